"""The columns by which curate compares rows: about a hundred bytes per row, however long the row is.

Texts stay on disk. The columns are in a memory-mapped file, so the system can drop their pages.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROW = np.dtype([
    ("role", "u2"), ("teacher", "u2"), ("file", "u4"), ("line", "u4"),   # codes into tables of names
    ("rule", "u1"),          # index of the rule that dropped the row, 0 if none did
    ("cut", "?"),            # the answer is truncated, and kept without its end
    ("unfit", "?"),          # its check data cannot decide anything: never tested
    ("done", "?"),           # the log says that the answer ended on its own
    ("thinks", "u1"),        # 1: opens a reasoning block, 2: closes it as well
    ("fence", "?"),          # leaves a code fence open
    ("id", "u8"), ("task", "u8"), ("system", "u8"), ("session", "u8"), ("key", "u8"),   # hashes; 0 means none
    ("answer", "u8"), ("tail", "u8"), ("verdict", "u8"),
    ("turns", "u2"), ("words", "u4"), ("limit", "u4"), ("prompt_tokens", "u4"), ("output_tokens", "u4"),
    ("time", "f8"),          # seconds since 1970; nan if not logged
    ("outcomes", "u8"),      # bit n: the answer matches the n-th outcome that a credit rule needs
])  # fmt: skip

Rows = NDArray[Any]
U4 = NDArray[np.uint32]
U8 = NDArray[np.uint64]
Flags = NDArray[np.bool_]
Indices = NDArray[np.signedinteger[Any]]
_STEP = 1 << 20
_LEAST_PART, _MOST_PARTS = 1 << 21, 16


def hash_text(text: str) -> int:
    """64 bits of BLAKE2b, never 0."""
    return int.from_bytes(blake2b(text.encode("utf-8", "replace"), digest_size=8).digest(), "little") or 1


def mapped_array(path: Path, kind: Any) -> NDArray[Any]:
    """Maps a file of fixed-size values; an empty file becomes an empty array."""
    if not path.stat().st_size:
        return np.empty(0, dtype=kind)
    return np.asarray(np.memmap(path, dtype=kind, mode="r"))


def row_numbers(chosen: Flags) -> Indices:
    """The indices of the rows that are chosen, in four bytes each if that is enough."""
    return np.flatnonzero(chosen).astype(np.int32 if len(chosen) < 1 << 31 else np.int64)


def values_at(values: NDArray[Any], rows: Indices) -> NDArray[Any]:
    """`values[rows]`, a step at a time: numpy converts row numbers of four bytes to eight first."""
    found = np.empty(len(rows), dtype=values.dtype)
    for start in range(0, len(rows), _STEP):
        found[start : start + _STEP] = values[rows[start : start + _STEP]]
    return found


def parts_for(count: int) -> int:
    """In how many parts so many keys are sorted: sorting takes several times the memory of what is sorted."""
    return min(max(1, -(-count // _LEAST_PART)), _MOST_PARTS)


def parts_of(keys: U8) -> Iterator[Indices]:
    """Divides the indices of hashes into `parts_for` parts, with equal keys in the same part, in ascending order."""
    parts = parts_for(len(keys))
    for part in range(parts):
        found = [
            start + np.flatnonzero(keys[start : start + _STEP] % np.uint64(parts) == part)
            for start in range(0, len(keys), _STEP)
        ]
        yield np.concatenate([np.empty(0, dtype=np.int64), *found])


def sorted_parts(keys: U8) -> Iterator[tuple[Indices, Flags]]:
    """Yields the indices in the order of their keys, a part at a time, and which of them have a new key.

    Indices of equal keys ascend.
    """
    for part in parts_of(keys):
        mine = keys[part]
        order = np.argsort(mine, kind="stable")
        mine = mine[order]
        new = np.ones(len(order), dtype=bool)
        new[1:] = mine[1:] != mine[:-1]
        yield part[order], new


def equal_runs(keys: U8) -> Iterator[Indices]:
    """Yields the indices of equal keys, for every key that occurs more than once."""
    for order, new in sorted_parts(keys):
        bounds = np.append(np.flatnonzero(new), len(order))
        for run in np.flatnonzero(np.diff(bounds) > 1).tolist():
            yield order[bounds[run] : bounds[run + 1]]


def count_distinct(keys: U8) -> int:
    """How many different keys there are."""
    return sum(int(new.sum()) for _, new in sorted_parts(keys))


def numbered(keys: U8) -> Indices:
    """The number of each key, from 0; equal keys have the same one, others another."""
    numbers: Indices = np.empty(len(keys), dtype=np.int32 if len(keys) < 1 << 31 else np.int64)
    used = 0
    for order, new in sorted_parts(keys):
        numbers[order] = np.cumsum(new) - 1 + used
        used += int(new.sum())
    return numbers


class Names:
    """Numbers texts in order of first appearance."""

    def __init__(self, names: list[str] | None = None) -> None:
        self.names = list(names or [])
        self._codes = {name: code for code, name in enumerate(self.names)}

    def code(self, name: str) -> int:
        if name not in self._codes:
            self._codes[name] = len(self.names)
            self.names.append(name)
        return self._codes[name]

    def translated(self, codes: NDArray[Any], names: list[str]) -> NDArray[Any]:
        """Codes of another table (`names`) as codes of this one."""
        table = np.array([self.code(name) for name in names] or [0], dtype=codes.dtype)
        return np.asarray(table[codes])
