"""Rows that are rendered when they are looked at, and then kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import overload

from journeyman.rendering.renderer import Rendered


class RenderedRows(Sequence[Rendered]):
    """Rows as token ids.

    Args:
        render: makes the row of a number.
        lengths: tokens of each row, as curate counted them.

    Attributes:
        seconds: spent on rendering.
        rendered: rows that were rendered.
    """

    def __init__(self, render: Callable[[int], Rendered], lengths: Sequence[int]) -> None:
        self._render, self.lengths = render, lengths
        self._made: dict[int, Rendered] = {}
        self.seconds, self.rendered = 0.0, 0

    def __len__(self) -> int:
        return len(self.lengths)

    @overload
    def __getitem__(self, place: int) -> Rendered: ...

    @overload
    def __getitem__(self, place: slice) -> list[Rendered]: ...

    def __getitem__(self, place: int | slice) -> Rendered | list[Rendered]:
        if isinstance(place, slice):
            return [self[number] for number in range(*place.indices(len(self)))]
        if place not in self._made:
            start = time.perf_counter()
            self._made[place] = self._render(place)
            self.seconds += time.perf_counter() - start
            self.rendered += 1
        return self._made[place]
