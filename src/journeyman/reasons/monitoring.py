"""What `journeyman monitor` says beside its figures: why one is not known, when to train again, and its alerts."""

from __future__ import annotations

from dataclasses import dataclass

from journeyman.foreign import named, plain
from journeyman.reasons.base import Reason

# --- why a figure is not known ---


@dataclass(frozen=True)
class TooFewPrompts(Reason, code="too_few_prompts"):
    says = (
        "too few prompts: {recorded:,} recorded, {known:,} and {held_out:,} held out to compare with; it takes {least} "
        "of each"
    )
    recorded: int
    known: int
    held_out: int
    least: int


@dataclass(frozen=True)
class NothingToCompareWith(Reason, code="nothing_to_compare_with"):
    says = (
        "there are no prompts of the role to compare with: none in the training or, without training data, none in "
        "rows older than the window"
    )


@dataclass(frozen=True)
class NoTrainedPrompts(Reason, code="no_trained_prompts"):
    says = "the run has neither a bundle nor training data"


@dataclass(frozen=True)
class RoleNotTrained(Reason, code="role_not_trained"):
    says = "the role is not among those of the training"


@dataclass(frozen=True)
class NoPromptsRead(Reason, code="no_prompts_read"):
    says = "no prompt of the role was read"


@dataclass(frozen=True)
class NothingDecides(Reason, code="nothing_decides"):
    says = "no check says more than that there is an answer, and there was no feedback; see roles.NAME.checks"


@dataclass(frozen=True)
class NoPrice(Reason, code="no_price"):
    says = "monitor.prices has no price for {model}"
    model: str

    def sentence(self) -> str:
        return self.says.format(model=named(self.model))


@dataclass(frozen=True)
class TeacherNotKnown(Reason, code="teacher_not_known"):
    says = "which model would have answered is not known; name it in monitor.teachers"


@dataclass(frozen=True)
class TokensNotKnown(Reason, code="tokens_not_known"):
    says = "none of the student's {answers:,} answers says how many tokens it has"
    answers: int


# --- when to train again ---


@dataclass(frozen=True)
class DriftFound(Reason, code="drift_found"):
    """`test` is the one with the smallest p-value among those that found something; `tests` names all of these."""

    tests: str
    test: str
    p_value: float
    effect: float
    recorded: int

    def sentence(self) -> str:
        return (
            f"the inputs are not those of the training: {self.tests} ({self.recorded:,} prompts; the test of "
            f"{self.test} has p {self.p_value:.2g}, effect {self.effect:.2f})"
        )


@dataclass(frozen=True)
class SuccessBelow(Reason, code="success_below"):
    """From 0 to 1."""

    says = "success is {share:.0%} ({low:.0%}–{high:.0%}, {of:,} {unit}), all of it below the {promised:.0%} promised"
    share: float
    low: float
    high: float
    of: int
    unit: str
    promised: float


@dataclass(frozen=True)
class StudentFailed(Reason, code="student_failed"):
    """`rows`: answers of the teacher that are newer than the training data."""

    says = "{rows:,} new answers of the teacher where the student failed; {least:,} are worth another training"
    rows: int
    least: int


@dataclass(frozen=True)
class FallbacksAbove(Reason, code="fallbacks_above"):
    """From 0 to 1; `top` is the most frequent reason."""

    share: float
    low: float
    high: float
    of: int
    limit: float
    top: str

    def sentence(self) -> str:
        return (
            f"the teacher answered {self.share:.1%} of {self.of:,} requests in the student's place "
            f"({self.low:.1%}–{self.high:.1%}), more than {self.limit:.0%}; most often: {plain(self.top, 60)}"
        )


@dataclass(frozen=True)
class TrainAgain(Reason, code="train_again"):
    """`because`: codes, separated by a comma."""

    says = "training again is worth it: {because}"
    because: str


# --- notes ---


@dataclass(frozen=True)
class NothingRecorded(Reason, code="nothing_recorded"):
    says = "nothing was recorded in the window"


@dataclass(frozen=True)
class NobodyJudges(Reason, code="nobody_judges"):
    says = "rows that nobody has judged are counted: success is known only where feedback was sent"


@dataclass(frozen=True)
class LimitReached(Reason, code="limit_reached"):
    says = "the newest {lines:,} lines were read, which reach back to {reaches} only"
    lines: int
    reaches: str


@dataclass(frozen=True)
class SampledBackTo(Reason, code="sampled_back_to"):
    says = "prompts were taken from the newest {lines:,} rows, back to {reaches}"
    lines: int
    reaches: str


@dataclass(frozen=True)
class NotReadable(Reason, code="lines_not_readable"):
    says = "{lines:,} lines or files could not be read; journeyman record --check names damaged rows"
    lines: int


@dataclass(frozen=True)
class RowsLost(Reason, code="rows_lost"):
    says = "{rows:,} rows say that their contents were not or not all recorded"
    rows: int


@dataclass(frozen=True)
class FileNotUsable(Reason, code="file_not_usable"):
    says = "{what}: left out"
    what: str

    def sentence(self) -> str:
        return self.says.format(what=plain(self.what, 300))


@dataclass(frozen=True)
class NotJudgedYet(Reason, code="not_judged_yet"):
    says = "about {rows:,} rows wait to be judged, and are not counted yet"
    rows: int


@dataclass(frozen=True)
class MoreRoles(Reason, code="more_roles"):
    says = "{roles:,} more roles with fewer requests are not shown; record.roles says which roles there are"
    roles: int


@dataclass(frozen=True)
class ServesAnother(Reason, code="serves_another"):
    says = "the student serves another bundle than this run's, with whose prompts the recorded ones are compared"


@dataclass(frozen=True)
class ComparedWithOlder(Reason, code="compared_with_older"):
    says = "the run has no training data: prompts are compared with the oldest recorded ones"


@dataclass(frozen=True)
class RolesNotCompared(Reason, code="roles_not_compared"):
    says = "prompts of {roles:,} more roles were not looked at; {most} are at a time"
    roles: int
    most: int


# --- alerts ---


@dataclass(frozen=True)
class RolledBack(Reason, code="rolled_back"):
    before: str
    mode: str
    why: str

    def sentence(self) -> str:
        return f"rolled back from {self.before} to {self.mode}: {plain(self.why, 300)}"


@dataclass(frozen=True)
class Promoted(Reason, code="promoted"):
    before: str
    mode: str
    why: str

    def sentence(self) -> str:
        return f"promoted from {self.before} to {self.mode}: {plain(self.why, 300)}"


@dataclass(frozen=True)
class RecorderTrouble(Reason, code="recorder_trouble"):
    trouble: str

    def sentence(self) -> str:
        return f"the recorder cannot write its rows: {plain(self.trouble, 300)}"


@dataclass(frozen=True)
class RecorderSilent(Reason, code="recorder_silent"):
    says = "a recorder is at work, but {address} does not answer; if it was started with --port, set record.port"
    address: str


@dataclass(frozen=True)
class RecorderStopped(Reason, code="recorder_stopped"):
    says = "no recorder is at work in this folder"


@dataclass(frozen=True)
class AlertNotDelivered(Reason, code="alert_not_delivered"):
    """`to`: webhook or command; `tries`: so far."""

    says = "an alert was not delivered to the {to} (try {tries}): {why}"
    to: str
    tries: int
    why: str

    def sentence(self) -> str:
        return self.says.format(to=self.to, tries=self.tries, why=plain(self.why, 300))


@dataclass(frozen=True)
class AlertDropped(Reason, code="alert_dropped"):
    says = "an alert was given up after {tries} tries"
    tries: int


@dataclass(frozen=True)
class TooManyWaiting(Reason, code="too_many_alerts_waiting"):
    says = "the {messages:,} oldest alerts were given up, since more than {most:,} are waiting to be delivered"
    messages: int
    most: int


@dataclass(frozen=True)
class ReceiverRemoved(Reason, code="receiver_removed"):
    says = "{messages:,} alerts were given up that waited for the {to}, since monitor.{to} is not set any more"
    messages: int
    to: str
