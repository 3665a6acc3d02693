"""Where a row stands, and what its format does not say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Place:
    """Handed to every format with each row.

    Attributes:
        source: file and line, as file:line.
        role: the agent's role where the row names none.
        columns: for tables: a field of ours → the column that holds it.
    """

    source: str
    role: str
    columns: Mapping[str, str] = field(default_factory=dict)
