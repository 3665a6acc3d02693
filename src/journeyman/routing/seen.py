"""Which exchanges have a row: what began after a gap in their numbers has to wait."""

from __future__ import annotations

from collections.abc import Iterable


class Seen:
    """`mark` is the highest number up to which all exchanges have a row.

    Args:
        above: numbers above the mark.

    Attributes:
        highest: of all numbers that are known to have been given.
    """

    def __init__(self, now: float, mark: int = 0, above: Iterable[int] = (), highest: int = 0) -> None:
        self._mark, self._above = mark, dict.fromkeys(above, now)
        self.highest = max([mark, highest, *self._above])

    def add(self, number: int, assigned: int, now: float) -> None:
        """The row of an exchange was read, which names the highest number at that time."""
        self.highest = max(self.highest, number, assigned)
        if number > self._mark:
            self._above.setdefault(number, now)
        self._advance()

    def mark(self, now: float, patience_s: float) -> int:
        """The mark; it passes every number whose row has not come for so long after that of a later one."""
        waited = [number for number, since in self._above.items() if now - since >= patience_s]
        if waited:
            self._mark = max(waited)
            self._above = {number: since for number, since in self._above.items() if number > self._mark}
            self._advance()
        return self._mark

    def _advance(self) -> None:
        while self._mark + 1 in self._above:
            self._mark += 1
            del self._above[self._mark]

    def state(self) -> tuple[int, list[int], int]:
        return self._mark, sorted(self._above), self.highest
