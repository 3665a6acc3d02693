"""Judges answers one after the other in a thread of its own, so that a stop is heard while a check is at work."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import TypeVar

from journeyman.errors import Interrupted
from journeyman.foreign import plain
from journeyman.protocols import Reporter
from journeyman.records import Score

_T = TypeVar("_T")
_R = TypeVar("_R")
_LOOK_EVERY_S = 0.2
_MOST_LINES = 5


def each_judged(judged: Callable[[_T], _R], answers: Sequence[_T], reporter: Reporter) -> list[_R]:
    """`judged(answer)` for each, in order, with progress.

    Raises:
        Interrupted: asked to stop. The check at hand is left behind; its limits end it.
    """
    done: SimpleQueue[tuple[_R | None, BaseException | None]] = SimpleQueue()
    over = threading.Event()

    def work() -> None:
        for answer in answers:
            if over.is_set():
                return
            try:
                done.put((judged(answer), None))
            except BaseException as error:  # raised where the results are read
                done.put((None, error))
                return

    threading.Thread(target=work, name="judging", daemon=True).start()
    made: list[_R] = []
    try:
        while len(made) < len(answers):
            if reporter.stop_requested:
                raise Interrupted(
                    f"stopped with {len(answers) - len(made)} answers to judge",
                    "Run it again: no answer is asked twice",
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


def unscored_lines(verdicts: Sequence[Score]) -> list[str]:
    """What a person should hear of answers that nothing decided: how many for each check, with one row's reason."""
    by_check: dict[str, list[Score]] = {}
    for verdict in verdicts:
        if verdict.outcome == "unscored":
            by_check.setdefault(verdict.check, []).append(verdict)
    return [
        f"{len(mine)} answers unscored by {plain(check, 60)}, among them row {plain(mine[0].id, 60)}: "
        f"{plain(mine[0].why(), 200)}"
        for check, mine in sorted(by_check.items(), key=lambda pair: -len(pair[1]))[:_MOST_LINES]
    ]
