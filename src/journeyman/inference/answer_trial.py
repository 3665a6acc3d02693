"""Asks the serving engine some questions of the training rows, to know how fast it answers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TypeVar

from journeyman.errors import Interrupted
from journeyman.protocols import EngineSettings, EvaluatedEngine, Generator, Question
from journeyman.records import BASE, TUNED, Example
from journeyman.regression_suite import MOST_TOKENS, SuiteQuestion
from journeyman.sizing.answer_time import TimedAnswer

T = TypeVar("T")
SUITE = "regression suite"
_MOST_TOKENS = 64
"""Of an answer that is measured: its pace is known by then."""
_ALONE, _ROUNDS = 3, 3
_SHARES = {BASE: 0.3, SUITE: 0.5, TUNED: 0.75}
"""When an arm's questions end, as a share of the time for all: the rest is for those that are asked alone."""
_SUITE_TOKENS = 60
"""Of a prompt of the regression suite, about."""

RunningEngine = Callable[[EngineSettings], AbstractContextManager[EvaluatedEngine]]


@dataclass(frozen=True)
class Answering:
    """What was measured.

    Attributes:
        loaded: arm → answers at the settings' number of concurrent requests; SUITE: the base's to the regression suite.
        alone: answers one at a time.
        start_s: to start the engine and load the file.
    """

    loaded: dict[str, list[TimedAnswer]]
    alone: list[TimedAnswer]
    start_s: float


def measure_answers(
    settings: EngineSettings, rows: Sequence[Example], suite: Sequence[SuiteQuestion], max_new_tokens: int,
    budget_s: float, running_engine: RunningEngine,
) -> Answering:  # fmt: skip
    """Measures for about `budget_s` seconds, the start included.

    Args:
        settings: with an adapter of the shape that will be trained, or with none.
        rows: training rows, of which some are asked.
        suite: the regression suite's questions, of which some are asked too.

    Raises:
        EngineError: the engine did not start, or failed.
    """
    begun = time.monotonic()
    asked = _some(rows, _ROUNDS * settings.parallel)
    with running_engine(settings) as engine:
        start_s = time.monotonic() - begun
        left = max(0.5 * budget_s, budget_s - start_s)
        first = time.monotonic()
        loaded = {}
        for arm, share in _SHARES.items():
            adapter = next(iter(settings.adapters), None) if arm == TUNED else None
            questions = [_question(row, arm, adapter, max_new_tokens, settings.parallel) for row in asked]
            tokens = [row.prompt_tokens for row in asked]
            if arm == SUITE:
                questions = [_of_suite(one, settings.parallel) for one in _spaced(suite, _ROUNDS * settings.parallel)]
                tokens = [_SUITE_TOKENS] * len(questions)
            loaded[arm] = _ask(engine, tokens, questions, settings.parallel, first + share * left)
        adapter = next(iter(settings.adapters), None)
        few = _some(rows, _ALONE)
        questions = [_question(row, TUNED, adapter, max_new_tokens, 1) for row in few]
        alone = _ask(engine, [row.prompt_tokens for row in few], questions, 1, first + left)
    return Answering(loaded, alone, start_s)


def _some(rows: Sequence[Example], count: int) -> list[Example]:
    """Evenly spaced rows, in the order in which an evaluation asks: by role."""
    return sorted(_spaced(rows, count), key=lambda row: row.role)


def _spaced(given: Sequence[T], count: int) -> list[T]:
    count = min(count, len(given))
    return [given[place * len(given) // count] for place in range(count)]


def _of_suite(one: SuiteQuestion, load: int) -> Question:
    return Question(one.id, "regression", BASE, one.messages, min(MOST_TOKENS, _MOST_TOKENS), one.tools, None, load)


def _question(row: Example, arm: str, adapter: str | None, most: int, load: int) -> Question:
    return Question(row.id, row.role, arm, row.messages, min(most, _MOST_TOKENS), row.tools, adapter, load)


def _ask(
    engine: Generator, tokens: Sequence[int], questions: Sequence[Question], load: int, until: float
) -> list[TimedAnswer]:
    """Asks `load` at a time until the time is up; of answers that are cut off then, the beginning counts.

    Args:
        tokens: of each prompt.
    """
    over = threading.Event()

    def ask(number: int) -> TimedAnswer | None:
        if number >= load and time.monotonic() >= until:  # the first ones are asked in any case
            return None
        return _timed(engine, questions[number], tokens[number], until, over)

    with ThreadPoolExecutor(load, thread_name_prefix="trial") as pool:
        try:
            return [one for one in pool.map(ask, range(len(questions))) if one is not None]
        finally:
            over.set()


def _timed(
    engine: Generator, question: Question, prompt_tokens: int, until: float, over: threading.Event
) -> TimedAnswer | None:
    start, seen = time.monotonic(), [0.0, 0.0, 0.0]  # first, last, number of pieces

    def heard(pieces: int) -> None:
        now = time.monotonic()
        seen[0] = seen[0] or now
        seen[1], seen[2] = now, pieces
        if over.is_set() or (pieces > 1 and now >= until):
            raise Interrupted("the time for measuring is up")

    try:
        answer = engine.generate(question, heard)
    except Interrupted:
        answer = None
    if not seen[2]:  # no text came
        return None
    tokens = int(seen[2]) if answer is None else max(answer.answer_tokens, int(seen[2]))
    ended = answer is not None and answer.finish_reason != "length"
    return TimedAnswer(prompt_tokens, seen[0] - start, seen[1] - seen[0], tokens, ended)
