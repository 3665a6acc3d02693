"""The loop with work that takes no time: what is tried, when it looks, when it ends, and resuming after any kill."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from journeyman.config import TrainConfig
from journeyman.errors import ChangedArtifact, Interrupted, NoGo, StaleArtifact, TrainingDiverged
from journeyman.iterating.changes import Compared
from journeyman.iterating.ledger import Ledger, Looked, Stopped, Tried, in_force, looks_of, spent_s
from journeyman.iterating.loop import Ended, Iterating, Limits
from journeyman.iterating.protocol import Estimate, Shown
from journeyman.manifests import VerdictName
from journeyman.reasons import Reason
from journeyman.reasons import advice as do
from journeyman.reasons.base import Text
from test_changes import HIGHER, decision

RANK = do.HigherRank(16, 1.0)


class FakeWork:
    """Learning rates up to `best` are gains, higher ones losses; the clock runs with the work.

    Attributes:
        looks: settings with which the run was made, in order.
        trials: settings that were trained.
    """

    def __init__(
        self, best: float = 2e-3, deploys_at: float = 9.0, advice: Sequence[Reason] = (HIGHER,),
        verdict: VerdictName = "iterate", dies_at: int = 0,
    ) -> None:  # fmt: skip
        self.best, self.deploys_at, self.advice, self.verdict = best, deploys_at, advice, verdict
        self.looks: list[dict[str, Any]] = []
        self.trials: list[dict[str, Any]] = []
        self.refuses: dict[str, Any] | None = None
        self.diverges = False
        self.redone: list[dict[str, Any]] = []
        self.slower = 0.0
        self.half_made = False
        self.time, self.calls, self.dies_at = 0.0, 0, dies_at
        self.dies_of: BaseException = KeyboardInterrupt()

    def _works(self, seconds: float) -> None:
        self.calls += 1
        self.time += seconds
        if self.calls == self.dies_at:
            raise self.dies_of

    def shown(self, settings: Mapping[str, Any], *, redo: bool) -> Shown:
        self._works(100)
        if self.half_made and not redo:
            raise StaleArtifact("03-plan: made from other inputs", "journeyman run --redo")
        if redo:
            self.redone.append(dict(settings))
        if settings == self.refuses:
            raise NoGo(Text("a lint"))
        if dict(settings) not in self.looks:
            self.looks.append(dict(settings))
        rate = settings.get("train.learning_rate", 5e-4)
        recipe = TrainConfig().model_copy(update={"learning_rate": rate})
        verdict = "deploy" if rate >= self.deploys_at else self.verdict
        advice = list(self.advice) if verdict == "iterate" else []
        return Shown(decision(verdict, all=advice), recipe, len(self.looks), 30, 40)

    def estimate(self, now: Mapping[str, Any], changed: Mapping[str, Any]) -> Estimate:
        return Estimate(10, 100)

    def compare(self, now: Mapping[str, Any], changed: Mapping[str, Any]) -> Compared:
        self._works(10 + self.slower)
        self.trials.append(dict(changed))
        if self.diverges:
            raise TrainingDiverged("nan")
        before, after = (one.get("train.learning_rate", 5e-4) for one in (now, changed))
        won = before < after <= self.best
        return Compared(40, 3 * won, 1, 20 + 3 * won, 21, 1.0, 1.0)


def iterated(work: FakeWork, root: Path, looks: int = 9, budget_s: float = 1e6, session: str = "s") -> Ended:
    said: list[str] = []
    return Iterating(work, Ledger(root), session, Limits(budget_s, looks), said.append, lambda: work.time).run()


def test_it_goes_on_while_the_validation_rows_gain_and_looks_only_then(tmp_path: Path) -> None:
    work = FakeWork()
    ended = iterated(work, tmp_path)
    rates = [one.get("train.learning_rate") for one in work.trials]
    assert rates == [1e-3, 2e-3, 4e-3]
    assert [one.get("train.learning_rate") for one in work.looks] == [None, 1e-3, 2e-3], "4e-3 was not looked at"
    assert ended.reason.code == "iterating_gain_stopped" and ended.reason.sentence().startswith("the gain has stopped:")
    assert ended.settings == {"train.learning_rate": 2e-3}
    looks = [one for one in Ledger(tmp_path).entries if isinstance(one, Looked)]
    assert [(one.look, one.verdict) for one in looks] == [(2, "iterate"), (3, "iterate")]


def test_it_ends_with_the_first_deploy(tmp_path: Path) -> None:
    work = FakeWork(deploys_at=1e-3)
    ended = iterated(work, tmp_path)
    assert ended.reason.code == "iterating_deploy" and len(work.looks) == 2 and len(work.trials) == 1


@pytest.mark.parametrize(
    ("verdict", "says"),
    [
        ("deploy", "nothing to improve"),
        ("insufficient", "no rule fails, so other settings would settle nothing"),
        ("abort", "tuning improved nothing"),
    ],
)
def test_other_verdicts_leave_nothing_to_do(tmp_path: Path, verdict: VerdictName, says: str) -> None:
    work = FakeWork(verdict=verdict)
    ended = iterated(work, tmp_path)
    assert says in ended.reason.sentence() and not work.trials and ended.settings == {}


def test_advice_that_needs_a_person_is_left(tmp_path: Path) -> None:
    work = FakeWork(advice=[do.MoreTrainingRows(60)])
    ended = iterated(work, tmp_path)
    assert ended.reason.code == "iterating_no_change" and not work.trials
    assert [reason for reason, _ in ended.left] == [do.MoreTrainingRows(60)]


@pytest.mark.parametrize("looks", [0, 1, 2])
def test_no_more_looks_than_allowed_and_no_trial_without_one(tmp_path: Path, looks: int) -> None:
    work = FakeWork()
    ended = iterated(work, tmp_path, looks=looks)
    assert ended.reason.code == "iterating_looks_used" and len(work.looks) == 1 + looks and len(work.trials) == looks
    again = FakeWork()
    assert iterated(again, tmp_path, looks=looks).reason.code == "iterating_looks_used" and not again.trials
    more = FakeWork()
    iterated(more, tmp_path, looks=looks + 1)
    assert len(more.trials) == 1, "a higher limit goes on from there"


def test_a_look_that_was_not_finished_keeps_to_the_limits(tmp_path: Path) -> None:
    killed = FakeWork(dies_at=3)
    with pytest.raises(KeyboardInterrupt):
        iterated(killed, tmp_path)
    assert killed.redone == [] and len(killed.trials) == 1
    none, spent, more = FakeWork(), FakeWork(), FakeWork()
    ended = iterated(none, tmp_path, looks=0)
    assert ended.reason.code == "iterating_looks_used" and ended.settings == {} and none.looks == [{}]
    ended = iterated(spent, tmp_path, budget_s=109)
    assert ended.reason.code == "iterating_budget_spent" and ended.settings == {} and spent.looks == [{}]
    assert not none.redone and not spent.redone
    iterated(more, tmp_path, looks=1)
    assert more.looks == [{"train.learning_rate": 1e-3}] == more.redone


def test_a_look_that_was_begun_and_may_not_be_finished_is_said(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        iterated(FakeWork(dies_at=3), tmp_path)
    half = FakeWork()
    half.half_made = True
    with pytest.raises(
        StaleArtifact, match=r"learning_rate = 0\.001, which is better on the validation rows"
    ) as raised:
        iterated(half, tmp_path, looks=0)
    assert "give more --looks" in raised.value.remedy and "--redo" not in raised.value.remedy


def test_of_an_interrupted_look_only_the_rest_must_fit_into_the_budget(tmp_path: Path) -> None:
    work, again = FakeWork(dies_at=3), FakeWork()
    work.dies_of = Interrupted("stopped", "Run it again to resume")
    with pytest.raises(Interrupted):
        iterated(work, tmp_path)
    ended = iterated(again, tmp_path, budget_s=112)
    assert again.redone == [{"train.learning_rate": 1e-3}] and ended.reason.code == "iterating_budget_spent"


def test_a_look_for_which_a_slow_trial_left_no_time_is_not_begun(tmp_path: Path) -> None:
    work = FakeWork()
    work.slower = 50
    ended = iterated(work, tmp_path, budget_s=250)
    assert ended.reason.code == "iterating_budget_spent" and len(work.trials) == 1 and work.redone == []
    assert ended.settings == {}


def test_what_was_made_is_never_redone(tmp_path: Path) -> None:
    iterated(FakeWork(), tmp_path)
    again = FakeWork()
    assert iterated(again, tmp_path, looks=0).settings == {"train.learning_rate": 2e-3}
    assert again.redone == [], "a change of other settings must not become a look"


def test_the_time_of_what_is_interrupted_counts(tmp_path: Path) -> None:
    for number, calls in enumerate((2, 2, 2), start=1):
        work = FakeWork(dies_at=calls)
        work.dies_of = Interrupted("stopped", "Run it again to resume")
        with pytest.raises(Interrupted):
            iterated(work, tmp_path)
        entries = Ledger(tmp_path).entries
        assert len(entries) == number and spent_s(entries) == 10 * number and isinstance(entries[-1], Stopped)
    work = FakeWork()
    assert iterated(work, tmp_path, budget_s=239).reason.code == "iterating_budget_spent" and not work.trials
    assert len(looks_of(Ledger(tmp_path).entries)) == 0
    ended = iterated(FakeWork(), tmp_path)
    assert ended.settings == {"train.learning_rate": 2e-3}, "and it resumes"


def test_a_step_that_does_not_fit_into_the_budget_is_not_begun(tmp_path: Path) -> None:
    work = FakeWork()
    ended = iterated(work, tmp_path, budget_s=319)
    assert ended.reason.code == "iterating_budget_spent" and "110 s" in ended.reason.sentence()
    assert len(work.trials) == 1 and len(work.looks) == 2 and work.time == 210
    again = FakeWork()
    assert iterated(again, tmp_path, budget_s=319).reason.code == "iterating_budget_spent", "what was spent counts"
    assert not again.trials


def test_of_several_changes_the_first_better_one_is_taken(tmp_path: Path) -> None:
    work = FakeWork(advice=[RANK, HIGHER])
    ended = iterated(work, tmp_path, looks=1)
    assert [list(one) for one in work.trials] == [["train.lora.rank", "train.lora.alpha"], ["train.learning_rate"]]
    assert ended.settings == {"train.learning_rate": 1e-3}


def test_a_training_that_diverges_is_not_better(tmp_path: Path) -> None:
    work = FakeWork()
    work.diverges = True
    ended = iterated(work, tmp_path)
    assert ended.reason.code == "iterating_gain_stopped" and len(work.looks) == 1
    (entry,) = Ledger(tmp_path).entries
    assert isinstance(entry, Tried) and entry.outcome == "diverged"


def test_settings_that_the_plan_refuses_are_taken_back(tmp_path: Path) -> None:
    work = FakeWork()
    work.refuses = {"train.learning_rate": 2e-3}
    ended = iterated(work, tmp_path)
    assert ended.settings == {"train.learning_rate": 1e-3} and ended.shown.recipe.learning_rate == 1e-3
    assert len(looks_of(Ledger(tmp_path).of("s"))) == 1, "what the plan refuses is no look"


@pytest.mark.parametrize("dies_at", range(1, 8))
def test_a_kill_at_any_point_changes_nothing_but_the_time(tmp_path: Path, dies_at: int) -> None:
    whole = FakeWork()
    expected = iterated(whole, tmp_path / "whole")
    first, second = FakeWork(dies_at=dies_at), FakeWork()
    if dies_at <= whole.calls:
        with pytest.raises(KeyboardInterrupt):
            iterated(first, tmp_path / "killed")
    ended = iterated(second, tmp_path / "killed")
    assert (ended.reason, ended.settings) == (expected.reason, expected.settings)

    def seen(root: Path) -> list[Any]:
        return [
            (one.kind, one.settings, one.verdict if isinstance(one, Looked) else one.outcome)
            for one in Ledger(root).entries
            if not isinstance(one, Stopped)
        ]

    assert seen(tmp_path / "killed") == seen(tmp_path / "whole")
    assert len(first.trials) + len(second.trials) <= len(whole.trials) + 1, "at most the killed trial is repeated"


@pytest.mark.parametrize("dies_at", range(4, 7))
def test_a_kill_while_the_plan_refuses_leaves_nothing_half_made(tmp_path: Path, dies_at: int) -> None:
    first, second = FakeWork(dies_at=dies_at), FakeWork()
    first.refuses = second.refuses = {"train.learning_rate": 2e-3}
    with pytest.raises(KeyboardInterrupt):
        iterated(first, tmp_path)
    ended = iterated(second, tmp_path)
    assert ended.settings == {"train.learning_rate": 1e-3} and ended.reason.code == "iterating_gain_stopped"
    made = [one for one in second.redone if one != second.refuses]
    assert made == [{"train.learning_rate": 1e-3}] * len(made)
    last = Ledger(tmp_path).entries[-1]
    assert isinstance(last, (Looked, Tried)) and last.settings == {"train.learning_rate": 2e-3}


def test_other_rows_or_settings_begin_anew(tmp_path: Path) -> None:
    iterated(FakeWork(), tmp_path)
    other = FakeWork()
    iterated(other, tmp_path, session="other")
    assert len(other.trials) == 3 and in_force(Ledger(tmp_path).of("other")) == {"train.learning_rate": 2e-3}


def test_a_torn_line_is_dropped_and_a_changed_one_is_refused(tmp_path: Path) -> None:
    iterated(FakeWork(), tmp_path)
    ledger = Ledger(tmp_path)
    count = len(ledger.entries)
    with ledger.path.open("ab") as file:
        file.write(b'{"kind": "tri')
    assert len(Ledger(tmp_path).entries) == count
    ledger.path.write_bytes(ledger.path.read_bytes().replace(b"not_better", b"better"))
    with pytest.raises(ChangedArtifact, match="not as iterate wrote it"):
        Ledger(tmp_path)
