"""The columns of a log and its tables of names, which curate uses to compare rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from journeyman.curation.columns import U8, Indices, Rows, values_at
from journeyman.curation.duplicates import Words


class Log:
    """The columns of a log with its tables of names.

    Attributes:
        own: hash of each row's system prompt if the row keeps its own, else 0; all 0 until the prompts of the roles
            are known.
    """

    def __init__(
        self, rows: Rows, words: Words, roles: Sequence[str], files: Sequence[str], prompts: Mapping[int, str]
    ):
        self.rows, self.words, self.roles, self.files, self.prompts = rows, words, roles, files, prompts
        self.own: U8 = np.zeros(len(rows), dtype=np.uint64)

    def task_keys(self, rows: Indices) -> U8:
        """A key of each row's task and own prompt: the same question about two documents is two tasks."""
        keys, own = values_at(self.rows["task"], rows), values_at(self.own, rows)
        own *= np.uint64(0x9E3779B97F4A7C15)
        keys ^= own
        return keys

    def where(self, row: int) -> str:
        return f"{self.files[self.rows['file'][row]]}:{self.rows['line'][row]}"
