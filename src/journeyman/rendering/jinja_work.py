"""Counts the work of one rendering, so that a hostile template ends with an error and not with the machine.

Jinja has no `while`: a template can only work long through loops, macros and large values. Each pass of a loop, each
call and each element of a large value is a step; each character that an operation makes or reads counts too. Both are
limited in proportion to the conversation. Nothing depends on a clock, so the same conversation always has the same
result.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, cast

from jinja2 import TemplateError
from jinja2.utils import Namespace

STEPS, STEPS_PER_TURN = 200_000, 2_000
CHARS, TIMES_INPUT = 1 << 24, 128
_MOST_STEPS = 5_000_000
_VIEWS: tuple[type, ...] = (type({}.keys()), type({}.values()), type({}.items()))


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
        waiting, chars = [value], 0
        while waiting:
            one = waiting.pop()
            if isinstance(one, str):
                chars += len(one)
            elif isinstance(one, dict):
                self.step(1 + len(one))
                waiting += one
                waiting += one.values()
            elif isinstance(one, list | tuple):
                self.step(1 + len(one))
                waiting += one
            elif isinstance(one, int):
                chars += one.bit_length()
            elif isinstance(one, _VIEWS):
                waiting.append(list(cast("Iterable[Any]", one)))
            elif issubclass(type(one), Namespace):  # its text is that of all its attributes
                raise TemplateError("it writes or compares a namespace")
        self.text(chars)


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
