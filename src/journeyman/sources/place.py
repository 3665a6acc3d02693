"""Where a row stands, and what its format does not say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class Place:
    """Handed to every format with each row.

    Attributes:
        source: file and line, as file:line.
        role: the agent's role where the row names none.
        columns: for tables: a field of ours → the column that holds it.
        cut_tool_results, max_history: as in [data].
    """

    source: str
    role: str
    columns: Mapping[str, str] = field(default_factory=dict)
    cut_tool_results: int = 0
    max_history: int = 100_000

    def at(self, line: int) -> Place:
        """Another line of the same file."""
        return replace(self, source=f"{self.name}:{line}")

    @property
    def name(self) -> str:
        """The file's."""
        return self.source.rpartition(":")[0]
