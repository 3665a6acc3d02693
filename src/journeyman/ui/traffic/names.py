"""Names from a log by number, as many as fit: of the rest, only that there are more is known."""

from __future__ import annotations

OTHERS = 0
"""The number of all names that did not fit."""


class Names:
    """The first `most` names that come; a name keeps its number."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._numbers: dict[str, int] = {}
        self.all: list[str] = [""]
        self.cut = False

    def number(self, name: str) -> int:
        """The number of a name, from 1; OTHERS if there are too many."""
        found = self._numbers.get(name)
        if found is None:
            if len(self.all) > self._most:
                self.cut = True
                return OTHERS
            found = self._numbers[name] = len(self.all)
            self.all.append(name)
        return found

    def known(self, name: str) -> int | None:
        """Like `number`, but gives none to a new name."""
        return self._numbers.get(name)
