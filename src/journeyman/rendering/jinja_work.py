"""Counts the work of one rendering, so that a hostile template ends with an error and not with the machine.

Jinja has no `while`: a template can only work long through loops, macros and large values. Each pass of a loop, each
call and each element of a large value is a step; each character that an operation makes or reads counts too. Both are
limited in proportion to the conversation. Nothing depends on a clock, so the same conversation always has the same
result.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from jinja2 import TemplateError

STEPS, STEPS_PER_TURN = 200_000, 2_000
CHARS, TIMES_INPUT = 1 << 24, 128
_MOST_STEPS = 5_000_000
_LEAF_CHARS = 24
"""Characters that a number or a constant may take in text."""


class TooMuchWork(TemplateError):
    """A template that does not come to an end, or makes texts out of proportion to its input."""


class Work:
    """The work that one rendering may still do."""

    __slots__ = ("chars", "steps")

    def __init__(self, turns: int = 0, chars: int = 0) -> None:
        self.steps = min(STEPS + STEPS_PER_TURN * turns, _MOST_STEPS)
        self.chars = CHARS + TIMES_INPUT * chars

    def step(self, count: int = 1) -> None:
        """Counts steps.

        Raises:
            TooMuchWork: there were too many.
        """
        self.steps -= count
        if self.steps < 0:
            raise TooMuchWork("it makes too many steps for this conversation")

    def text(self, chars: int) -> None:
        """Counts characters; call it before they are made. Raises TooMuchWork if there are too many."""
        self.chars -= chars
        if self.chars < 0:
            raise TooMuchWork("it makes too much text for this conversation")

    def value(self, value: Any) -> None:
        """Counts a value that is going to be written, compared or sorted: all that is in it, as often as it occurs.

        Lists may contain each other several times, so a small list can be a huge text.
        """
        waiting = [value]
        while waiting:
            one = waiting.pop()
            if isinstance(one, str):
                self.text(len(one))
            elif isinstance(one, list | tuple):
                self.step(len(one) + 1)
                waiting += one
            elif isinstance(one, Mapping):
                self.step(2 * len(one) + 1)
                waiting += one
                waiting += one.values()
            elif isinstance(one, int) and one.bit_length() > 64:
                self.text(one.bit_length())
            else:
                self.step()


_CURRENT: ContextVar[Work] = ContextVar("work")
current_work = _CURRENT.get
"""The work of the rendering (or compilation) that is running."""


@contextmanager
def limited_work(turns: int = 0, chars: int = 0) -> Iterator[None]:
    """Limits the work of the code in this context.

    Args:
        turns: number of messages and tools.
        chars: characters in them.
    """
    token = _CURRENT.set(Work(turns, chars))
    try:
        yield
    finally:
        _CURRENT.reset(token)


def counted(items: Iterable[Any]) -> Iterator[Any]:
    """The items, each a step."""
    step = current_work().step
    for item in items:
        step()
        yield item
