"""Scores answers by their roles' checks, one after the other in a separate thread, so that a stop takes effect while a
check is running."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TypeVar

from journeyman.config import EvaluateConfig
from journeyman.errors import Interrupted
from journeyman.foreign import plain
from journeyman.manifests import CheckRule
from journeyman.protocols import Reporter
from journeyman.records import Example, Prediction, Score
from journeyman.scoring.checks import Checks, judge
from journeyman.scoring.contracts import Answer, Limits

_T = TypeVar("_T")
_R = TypeVar("_R")
_LOOK_EVERY_S = 0.2
_MOST_LINES = 5
_DEFAULT_RULE = CheckRule(checks=["answered"])


def judge_rows(
    rows: Sequence[Example],
    predictions: Sequence[Prediction],
    rules: Mapping[str, CheckRule],
    config: EvaluateConfig,
    folder: Path,
    reporter: Reporter,
) -> list[Score]:
    """One score for each answer, in order; the reporter hears which checks left answers unscored.

    Args:
        rows: what was asked; their ids are those of the answers.
        rules: role → its checks; a role without any is asked for an answer only.
        folder: where the user's own checks are.

    Raises:
        Interrupted: a stop was requested.
    """
    by_id = {row.id: row for row in rows}
    limits, checks = Limits(unsafe=config.unsafe_exec), Checks(folder, config.judge, config.check_timeout_s)

    def judged(p: Prediction) -> Score:
        row = by_id[p.id]
        asked = "\n\n".join(turn.content for turn in row.messages if turn.role != "system")
        answer = Answer(p.text, p.finish_reason, row.check, limits, p.calls, row.answer, row.answer_calls, asked)
        made = judge(answer, rules.get(p.role, _DEFAULT_RULE), checks)
        return Score(
            id=p.id, role=p.role, arm=p.arm, outcome=made.finding.outcome, check=made.check,
            reason=made.finding.reason and made.finding.reason.record(), checks=dict(made.outcomes),
        )  # fmt: skip

    reporter.begin("judge", len(predictions), "answers")
    scores = each_judged(judged, predictions, reporter)
    for line in unscored_lines(scores):
        reporter.say(line)
    return scores


def each_judged(judged: Callable[[_T], _R], answers: Sequence[_T], reporter: Reporter) -> list[_R]:
    """Returns `judged(answer)` for each answer, in order, and reports progress.

    Raises:
        Interrupted: a stop was requested. The current check is abandoned; its limits end it.
    """
    done: SimpleQueue[tuple[_R | None, BaseException | None]] = SimpleQueue()
    over = threading.Event()

    def work() -> None:
        for answer in answers:
            if over.is_set():
                return
            try:
                done.put((judged(answer), None))
            except BaseException as error:  # raised again where the results are read
                done.put((None, error))
                return

    threading.Thread(target=work, name="judging", daemon=True).start()
    made: list[_R] = []
    try:
        while len(made) < len(answers):
            if reporter.stop_requested:
                raise Interrupted(
                    f"stopped with {len(answers) - len(made)} answers still to be scored",
                    "Run the same command again to resume: cached answers are not requested again",
                )
            try:
                result, error = done.get(timeout=_LOOK_EVERY_S)
            except Empty:
                continue
            if error is not None:
                raise error
            made.append(result)  # type: ignore[arg-type]
            reporter.advance(len(made))
    finally:
        over.set()
    return made


def unscored_lines(scores: Sequence[Score]) -> list[str]:
    """One line for each check that left answers unscored: how many, with one row's reason as an example."""
    by_check: dict[str, list[Score]] = {}
    for score in scores:
        if score.outcome == "unscored":
            by_check.setdefault(score.check, []).append(score)
    return [
        f"{len(mine)} answers unscored by {plain(check, 60)}, for example row {plain(mine[0].id, 60)}: "
        f"{plain(mine[0].why(), 200)}"
        for check, mine in sorted(by_check.items(), key=lambda pair: -len(pair[1]))[:_MOST_LINES]
    ]
