"""Compares texts in batches: in this process at first, and by an executor once that pays."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any, Protocol, TypeVar

from journeyman.curation.columns import U4
from journeyman.errors import Interrupted
from journeyman.parallel import HERE, Executor
from journeyman.protocols import Reporter

_WORTH_WORKERS = 1 << 25
"""Words that this process compares before workers are started, which takes about as long: two seconds."""


class WithWords(Protocol):
    """A batch of texts.

    Attributes:
        flat: their words, end to end.
    """

    @property
    def flat(self) -> U4: ...


_B = TypeVar("_B", bound=WithWords)
_R = TypeVar("_R")


def compared(
    function: Callable[[Any, _B], _R],
    setup: Callable[[], Any],
    batches: Iterator[_B],
    named: Callable[[_B], str],
    executor: Executor,
    reporter: Reporter,
) -> Iterator[_R]:
    """Yields `function(state, batch)` for each batch, in their order.

    Raises:
        Interrupted: asked to stop.
    """
    for made in HERE.map_batches(function, setup, _first(batches)):
        yield made
        hear_stop(reporter)
    for one in batches:
        rest = chain([one], batches)
        for made in executor.map_batches(function, setup, rest, named=named, stopping=lambda: reporter.stop_requested):
            yield made
            hear_stop(reporter)


def _first(batches: Iterator[_B]) -> Iterator[_B]:
    words = 0
    while words < _WORTH_WORKERS and (batch := next(batches, None)) is not None:
        yield batch
        words += len(batch.flat)


def hear_stop(reporter: Reporter) -> None:
    if reporter.stop_requested:
        raise Interrupted("stopped while comparing rows", "Run the command again: it compares them from the start")
