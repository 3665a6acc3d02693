"""Makes the trials of a rung: trains each, has one engine answer for all, and records what came of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from journeyman.artifacts import hash_of_file
from journeyman.config import TrainConfig
from journeyman.durations import spelled
from journeyman.errors import EngineError, JourneymanError, NoGo, OutOfMemory, TrainingDiverged
from journeyman.manifests import AdapterManifest
from journeyman.protocols import Reporter
from journeyman.records import EVERY_ROLE, Example, Score
from journeyman.runs import Run
from journeyman.search.choosing import Scored, success_by_role
from journeyman.search.ledger import Ledger, Spent, Trial
from journeyman.search.rung_rows import scored_rows
from journeyman.search.space import Changes
from journeyman.search.state import FOLDER
from journeyman.search.timing import Clock, Watch
from journeyman.training.row_rules import trained_rows
from journeyman.trials.answering import Arm, tuned
from journeyman.trials.rows import TrialRows
from journeyman.trials.together import TrainedTrial

ANSWER = "answer"
"""The task of trials.answering with which the time of answers begins."""
_EVERY_S = 20.0
"""Seconds of work that a kill may cost the count of."""


TrainTrials = Callable[
    [Run, Sequence[tuple[TrainConfig, Path]], TrialRows, Reporter], Sequence[TrainedTrial | Exception]
]
ScoreRows = Callable[[Run, Sequence[Arm], Path, Reporter], dict[str, list[Score]]]


class Work:
    """What makes trials, and the time that it takes.

    Args:
        train, score: as trials.together.train_trials and trials.answering.score_rows.
    """

    def __init__(self, run: Run, train: TrainTrials, score: ScoreRows, clock: Clock, reporter: Reporter) -> None:
        self.run, self.train, self.score, self.clock, self.reporter = run, train, score, clock, reporter
        self._since = clock()

    def begin(self) -> None:
        """What was done before is not work of the search."""
        self._since = self.clock()

    def spent(
        self, ledger: Ledger, search: str, least_s: float = 0.0, trained: Mapping[str, float] | None = None
    ) -> None:
        """Records the time since this was called last, if it is so much, so that it counts even after a kill.

        Args:
            trained: key of a trial that was being trained → its part of that time, from 0 to 1.
        """
        now = self.clock()
        if (took := now - self._since) >= least_s:
            parts = {key: part * took for key, part in (trained or {}).items()}
            ledger.add(Spent(search=search, spent_s=took, trained=parts))
            self._since = now


@dataclass(frozen=True)
class Entrant:
    """A candidate that is to be tried.

    Attributes:
        key: see Trial.key.
    """

    number: int
    changes: Changes
    config: TrainConfig
    key: str

    @property
    def name(self) -> str:
        return f"{self.number}-{self.key[:12]}"


@dataclass(frozen=True)
class _Trained:
    entrant: Entrant
    made: AdapterManifest
    files: Mapping[str, Path]
    seconds: float
    step_s: float = 0.0


def _with_step_s(trained: Sequence[_Trained]) -> list[_Trained]:
    """With the seconds of their training without loading.

    Of trials that are trained at the same time, each loop lasts as long as all: so the loops' times say only which part
    of the time was not loading. They and `seconds` count what was done before an interruption.
    """
    took = sum(one.seconds for one in trained)
    part = min(1.0, sum(one.made.train_s for one in trained) / took) if took else 0.0
    return [replace(one, step_s=part * one.seconds) for one in trained]


def try_rung(
    work: Work,
    entrants: Sequence[Entrant],
    share: float,
    rows: TrialRows,
    search: str,
    ledger: Ledger,
    numbered: tuple[int, int],
) -> Iterator[Trial]:
    """Trains these candidates, scores them, and records each. A trial that fails is recorded and has no outcomes.

    Args:
        numbered: trials of the rung that were made before, and all of the rung, as they are told.

    Raises:
        Interrupted, DiskError: as training and scoring do.
        InputError: no file of the base may ship.
        EngineError: the engine fails for every trial.
    """
    work.begin()
    earlier, in_all = numbered
    for place, entrant in enumerate(entrants):
        rule = trained_rows(rows.train, entrant.config.rows)
        work.reporter.say(
            f"trial {earlier + place + 1} of {in_all} on {len(rule)} training rows: {described(entrant.changes)}"
        )
    passes = sum(entrant.config.epochs for entrant in entrants)
    parts = {one.key: one.config.epochs / passes for one in entrants}  # they may be trained at the same time
    before = {one.key: ledger.begun_s(search, one.key) for one in entrants}
    begun = work.clock()
    watch = Watch(work.reporter, "", work.clock, lambda: work.spent(ledger, search, _EVERY_S, parts))
    wanted = [(entrant.config, _folder(work.run, entrant, share)) for entrant in entrants]
    try:
        made = work.train(work.run, wanted, rows, watch)
    finally:
        work.spent(ledger, search, trained=parts)
    took = work.clock() - begun
    trained: list[_Trained] = []
    for entrant, result in zip(entrants, made, strict=True):
        seconds = before[entrant.key] + took * parts[entrant.key]
        if isinstance(result, Exception):
            failed = _failed(entrant, share, rows, search, result, seconds)
            ledger.add(failed)
            work.reporter.say(f"{described(entrant.changes)} has no result: {failed.why}")
            shutil.rmtree(_folder(work.run, entrant, share), ignore_errors=True)
            yield failed
        else:
            trained.append(_Trained(entrant, *result, seconds))
    yield from _answered(work, _with_step_s(trained), share, rows, search, ledger)


def _answered(
    work: Work, trained: Sequence[_Trained], share: float, rows: TrialRows, search: str, ledger: Ledger
) -> Iterator[Trial]:
    if not trained:
        return
    arms = [Arm(tuned(one.entrant.name), rows.val, one.files) for one in trained]
    begun = work.clock()
    watch = Watch(work.reporter, ANSWER, work.clock, lambda: work.spent(ledger, search, _EVERY_S))
    try:
        scores = work.score(work.run, arms, work.run.root / FOLDER / "answers", watch)
    except EngineError as error:
        if len(trained) == 1:
            if trained[0].entrant.number == 0:
                raise
            one = trained[0]
            failed = _failed(one.entrant, share, rows, search, error, one.seconds + work.clock() - begun)
            work.spent(ledger, search)
            ledger.add(failed)
            shutil.rmtree(_folder(work.run, one.entrant, share), ignore_errors=True)
            yield failed
            return
        work.reporter.say(f"the engine failed with all adapters, so each is asked alone: {error.what}")
        for one in trained:
            yield from _answered(work, [one], share, rows, search, ledger)
        return
    over = work.clock()
    work.spent(ledger, search)
    started = over if watch.began is None else watch.began
    for one in trained:
        trial = _scored(
            one, share, rows, search, scores[tuned(one.entrant.name)],
            (over - started) / len(trained), (started - begun) / len(trained), len(trained),
        )  # fmt: skip
        ledger.add(trial)
        work.reporter.say(f"{described(trial.changes)}: {told(trial)}")
        shutil.rmtree(_folder(work.run, one.entrant, share), ignore_errors=True)
        yield trial


def described(changes: Mapping[str, Any]) -> str:
    """A candidate by what distinguishes it."""
    return ", ".join(f"{key} = {_shown(value)}" for key, value in changes.items()) or "the default"


def told(trial: Trial) -> str:
    """What came of a trial, in one line."""
    if trial.state != "scored":
        return trial.why
    passed = sum(outcome == "pass" for outcome in trial.outcomes.values())
    loss = "not known" if trial.loss is None else f"{trial.loss:.4f}"
    return f"{passed} of {len(trial.outcomes)} rows pass, loss {loss}, {spelled(trial.seconds)}"


def _shown(value: Any) -> str:
    return "+".join(name.removesuffix("_proj") for name in value) if isinstance(value, list) else str(value)


def _folder(run: Run, entrant: Entrant, share: float) -> Path:
    return run.root / FOLDER / "trials" / f"{entrant.name}-{share:g}"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _failed(
    entrant: Entrant, share: float, rows: TrialRows, search: str, error: BaseException, seconds: float
) -> Trial:
    match error:
        case TrainingDiverged():
            state = "diverged"
        case NoGo() | OutOfMemory() | MemoryError():
            state = "does_not_fit"
        case _:
            state = "failed"
    return Trial.model_validate(
        {
            **_of(entrant, share, rows, search), "state": state, "train_s": seconds,
            "why": error.what if isinstance(error, JourneymanError) else f"{type(error).__name__}: {error}",
        }
    )  # fmt: skip


def _scored(
    one: _Trained, share: float, rows: TrialRows, search: str, scores: Sequence[Score],
    answer_s: float, engine_s: float, together: int,
) -> Trial:  # fmt: skip
    outcomes = {score.id: score.outcome for score in scores}
    scored = Scored(one.entrant.number, outcomes)
    adapters = one.made.adapters.values()
    losses = [adapter.train_loss for adapter in adapters]
    return Trial.model_validate(
        {
            **_of(one.entrant, share, rows, search),
            "state": "scored",
            "tokens": one.made.tokens,
            "steps": sum(adapter.steps for adapter in adapters),
            "train_s": one.seconds,
            "step_s": one.step_s,
            "answer_s": answer_s,
            "engine_s": engine_s,
            "together": together,
            "train_loss": None if len(losses) != 1 else losses[0],
            "loss": _loss(one.made, rows.val),
            "outcomes": outcomes,
            "by_role": success_by_role(scored, scored_rows(rows.val)),
            "adapter_sha256": {name: hash_of_file(file) for name, file in one.files.items()},
        }
    )


def _of(entrant: Entrant, share: float, rows: TrialRows, search: str) -> dict[str, Any]:
    return {
        "key": entrant.key, "search": search, "number": entrant.number, "changes": dict(entrant.changes),
        "share": share, "rows": len(trained_rows(rows.train, entrant.config.rows)), "at": _now(),
    }  # fmt: skip


def _loss(made: AdapterManifest, rows: Sequence[Example]) -> float | None:
    """The loss on the scored rows; of adapters by role, their mean by labels, known only if each role's is."""
    if EVERY_ROLE in made.adapters:
        return made.adapters[EVERY_ROLE].best_loss
    total, labels = 0.0, 0
    for role in {row.role for row in rows}:
        adapter = made.adapters.get(role)
        loss = None if adapter is None else adapter.best_loss
        if loss is None:
            return None
        count = sum(row.answer_tokens for row in rows if row.role == role)
        total, labels = total + loss * count, labels + count
    return total / labels if labels else None
