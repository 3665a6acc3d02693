"""The columns that curate keeps in memory: about a hundred bytes per row, however long the row is.

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
Indices = NDArray[np.int64]


def hash_text(text: str) -> int:
    """64 bits of BLAKE2b, never 0."""
    return int.from_bytes(blake2b(text.encode("utf-8", "replace"), digest_size=8).digest(), "little") or 1


def mapped_array(path: Path, kind: Any) -> NDArray[Any]:
    """Maps a file of fixed-size values; an empty file becomes an empty array."""
    if not path.stat().st_size:
        return np.empty(0, dtype=kind)
    return np.asarray(np.memmap(path, dtype=kind, mode="r"))


def equal_runs(keys: U8) -> Iterator[Indices]:
    """Yields the indices of equal keys, for every key that occurs more than once."""
    order = np.argsort(keys, kind="stable")
    cuts = np.flatnonzero(keys[order[1:]] != keys[order[:-1]]) + 1
    bounds = np.concatenate([[0], cuts, [len(keys)]])
    for run in np.flatnonzero(np.diff(bounds) > 1).tolist():
        yield order[bounds[run] : bounds[run + 1]]


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
