"""The place of a row, and the settings that its format needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class Place:
    """The place of a row and settings, passed to its format.

    Attributes:
        source: file and line, as file:line.
        role: the agent's role if the row does not name one.
        columns: for tables: field → the column that contains it.
        cut_tool_results, max_history: as in [data].
    """

    source: str
    role: str
    columns: Mapping[str, str] = field(default_factory=dict)
    cut_tool_results: int = 0
    max_history: int = 100_000

    def at(self, line: int) -> Place:
        """The place of another line of the same file."""
        return replace(self, source=f"{self.name}:{line}")

    @property
    def name(self) -> str:
        """The file's name."""
        return self.source.rpartition(":")[0]
