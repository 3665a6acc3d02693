"""Rows of a stage's files: objects when iterated over, and data frames."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, Generic, TypeVar

from pydantic import BaseModel

from journeyman.api.columns import columns_of, flat
from journeyman.api.html import table

R = TypeVar("R", bound=BaseModel)
_MOST_SHOWN = 20


class Rows(Generic[R]):
    """Rows that are read from disk each time they are iterated over, so that a large file is never held in memory.

    `list(rows)` holds them; `records`, `to_pandas` and `to_polars` hold one flat row each. In flat rows a reason has
    two columns, its code under the field's name and its sentence under NAME_sentence, and lists and dicts are JSON.
    """

    def __init__(self, kind: type[R], read: Callable[[], Iterable[R]]) -> None:
        """`read` starts reading from the beginning."""
        self.kind = kind
        self._read = read
        self._count: int | None = None

    def __iter__(self) -> Iterator[R]:
        return iter(self._read())

    def __len__(self) -> int:
        if self._count is None:
            self._count = sum(1 for _ in self)
        return self._count

    def __bool__(self) -> bool:
        return any(True for _ in self)

    def __getitem__(self, index: int) -> R:
        """The row of that number, from 0; negative numbers count from the end."""
        place = index + len(self) if index < 0 else index
        found = next(islice(self, place, None), None) if place >= 0 else None
        if found is None:
            raise IndexError(f"no row {index}: there are {len(self)}")
        return found

    def where(self, condition: Callable[[R], bool]) -> Rows[R]:
        """The rows that meet the condition."""
        return Rows(self.kind, lambda: (row for row in self if condition(row)))

    @property
    def columns(self) -> list[str]:
        """The columns of flat rows."""
        return list(columns_of(self.kind))

    def records(self) -> list[dict[str, Any]]:
        """Flat rows, as dicts of text, numbers, bools and None."""
        return [flat(row) for row in self]

    def to_pandas(self) -> Any:
        """A pandas.DataFrame; its columns and types are the same if there is no row.

        Raises:
            UsageError: pandas is not installed.
        """
        from journeyman.api.frames import pandas_frame

        return pandas_frame(self.records(), columns_of(self.kind))

    def to_polars(self) -> Any:
        """A polars.DataFrame; its columns and types are the same if there is no row.

        Raises:
            UsageError: polars is not installed.
        """
        from journeyman.api.frames import polars_frame

        return polars_frame(self.records(), columns_of(self.kind))

    def _repr_html_(self) -> str:
        shown = [flat(row) for row in islice(self, _MOST_SHOWN)]
        more = f"; the first {len(shown)} are shown" if len(self) > len(shown) else ""
        rows = [list(row.values()) for row in shown]
        return table(self.columns, rows, f"{len(self):,} rows of {self.kind.__name__}{more}")

    def __repr__(self) -> str:
        return f"<{len(self)} rows of {self.kind.__name__}: {', '.join(self.columns)}>"
