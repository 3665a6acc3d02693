"""Why a check could not score an answer (the row's data, the user's own code, the judge), and weighted scores."""

from __future__ import annotations

from dataclasses import dataclass

from journeyman.reasons.base import Reason

# --- the row's check data ---


@dataclass(frozen=True)
class DataMissing(Reason, code="check_data_missing"):
    says = "the row has no check.{key}"
    key: str


@dataclass(frozen=True)
class NothingExpected(Reason, code="nothing_expected"):
    says = "neither check.{key} nor the teacher says what is expected"
    key: str = "expected"


@dataclass(frozen=True)
class DataOfOtherType(Reason, code="check_data_of_other_type"):
    says = "check.{key} is not {wanted}"
    key: str
    wanted: str


@dataclass(frozen=True)
class DataInvalid(Reason, code="check_data_invalid"):
    """`error` is the message of the parser, of the schema library or of the rules for files."""

    says = "check.{key}: {error}"
    key: str
    error: str


@dataclass(frozen=True)
class DataTooLarge(Reason, code="check_data_too_large"):
    says = "check.{key}: {problem}"
    key: str
    problem: str


@dataclass(frozen=True)
class SchemaReference(Reason, code="schema_reference"):
    says = "check.schema: '{reference}' is not defined in the schema, and references are never fetched"
    reference: str


@dataclass(frozen=True)
class SchemaEndless(Reason, code="schema_endless"):
    says = "check.schema refers to itself endlessly"


# --- checks that break down ---


@dataclass(frozen=True)
class NoChecks(Reason, code="no_checks"):
    says = "the role has no checks"


@dataclass(frozen=True)
class CheckRaised(Reason, code="check_raised"):
    says = "{check} raised {error}"
    check: str
    error: str


@dataclass(frozen=True)
class CheckOutOfTime(Reason, code="check_out_of_time"):
    """`clock`: "processor" or "wall". `setting` is the key that raises the limit; "" if there is none."""

    check: str
    seconds: float
    clock: str
    setting: str = ""

    def sentence(self) -> str:
        of = " of processor time" if self.clock == "processor" else ""
        key = f" ({self.setting})" if self.setting else ""
        return f"{self.check} did not finish within {self.seconds:g} s{of}{key}"


@dataclass(frozen=True)
class CheckDied(Reason, code="check_died"):
    says = "{check}: {problem}"
    check: str
    problem: str


@dataclass(frozen=True)
class CheckGaveOther(Reason, code="check_gave_other"):
    says = "{check} returned {value}, not True, False or None"
    check: str
    value: str


@dataclass(frozen=True)
class Scored(Reason, code="scored"):
    """By an Inspect AI scorer; `explanation` is the scorer's, "" if it gives none."""

    scorer: str
    value: str
    least: str
    explanation: str

    def sentence(self) -> str:
        explained = f": {self.explanation}" if self.explanation else ""
        return f"{self.scorer} gives {self.value}, required ≥ {self.least}{explained}"


# --- the judge ---


@dataclass(frozen=True)
class NothingToCompare(Reason, code="nothing_to_compare"):
    says = "neither check.expected nor the teacher gives an answer to compare with"


@dataclass(frozen=True)
class JudgeUnusable(Reason, code="judge_unusable"):
    """The judge could not be reached, or its reply was not in the required form."""

    says = "judge {model}: {error}"
    model: str
    error: str


@dataclass(frozen=True)
class JudgeSays(Reason, code="judge_says"):
    """The judge's choices ("1", "2" or "same") with the answer in the first and in the second place."""

    says = "{model} says {answer_first} with the answer first, {answer_second} with it second"
    model: str
    answer_first: str
    answer_second: str


@dataclass(frozen=True)
class JudgeContradicts(JudgeSays, code="judge_contradicts"):
    says = f"{JudgeSays.says}: it contradicts itself"


# --- weights ---


@dataclass(frozen=True)
class Weighed(Reason, code="weighed"):
    """Several checks combined by their weights.

    Attributes:
        share: of the weight that passed, from 0 to 1.
        asked: the share of the weight that must pass.
        cause: the code of the failed check with the largest weight; "" if none failed or it gave no reason.
        told: each check with its outcome and reason, as text.
    """

    says = "{share:.0%} of the weight, required ≥ {asked:.0%}: {told}"
    share: float
    asked: float
    cause: str
    told: str
