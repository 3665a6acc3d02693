"""What came of each question: a line in a file that only grows, on disk before the thread that asked asks again."""

from __future__ import annotations

import json
import os
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from journeyman.artifacts import disk_error, write_atomic
from journeyman.asking.choosing import Wanted
from journeyman.asking.rows import COMPLETE
from journeyman.checksum_lines import read_lines, sealed
from journeyman.inference.response_cache import CachedResponse
from journeyman.protocols import Generator, Question
from journeyman.records import Prediction

FOLDER = "asked-again"
"""The folder of a run for the ledger and the rows."""
LEDGER, ROWS = "answers.jsonl", "rows.jsonl"
_KEYS = {"question", "model", "outcome", "limit", "row"}

Kept = tuple[str, dict[str, Any] | None]
"""The outcome of an answer, and the row of the log that it becomes if it is complete."""


class Ledger:
    """The answers so far. Also what `dispatch` takes as the place of answers.

    Opening it only reads. Lines that were changed, or cut short by a kill, do not count: their questions are asked
    again.

    Args:
        place: the folder.
        model: role → the name of the model that is asked.
        keep: says what came of an answer, given the model that gave it.

    Attributes:
        damaged: number of lines that were changed after they were written.
        new: outcome → answers since it was opened.
    """

    def __init__(
        self, place: Path, model: Callable[[str], str], keep: Callable[[Wanted, Prediction, str], Kept] | None = None
    ) -> None:
        self._place, self._path, self._rows = place, place / LEDGER, place / ROWS
        self._model, self._keep = model, keep
        self._lock = threading.Lock()
        self.new: Counter[str] = Counter()
        self._wanted: dict[str, Wanted] = {}
        lines, self._torn = read_lines(self._path)
        self._lines = [one.content for one in lines if one.sealed and one.content and one.content.keys() == _KEYS]
        self.damaged = len(lines) - len(self._lines)

    def answered(self) -> set[str]:
        """The questions that have a complete answer, of whichever model."""
        return {one["question"] for one in self._lines if one["outcome"] == COMPLETE}

    def tried(self, questions: Mapping[str, str]) -> set[str]:
        """Of questions and their roles, those that the role's model has answered without success."""
        failed = {(one["question"], one["model"]) for one in self._lines if one["outcome"] != COMPLETE}
        return {question for question, role in questions.items() if (question, self._model(role)) in failed}

    def cut_at(self) -> dict[str, int]:
        """Question → the highest limit at which its new answer was cut."""
        limits: dict[str, int] = {}
        for one in self._lines:
            if one["outcome"] in ("truncated", "unclosed_reasoning"):
                limits[one["question"]] = max(limits.get(one["question"], 0), int(one["limit"]))
        return limits

    def expect(self, wanted: Mapping[str, Wanted]) -> None:
        """Names the rows whose answers will come, id → row, and makes the file ready; for the holder of the lock.

        Raises:
            DiskError: the folder cannot be written to.
        """
        self._wanted = dict(wanted)
        try:
            self._place.mkdir(mode=0o700, parents=True, exist_ok=True)
            if self._torn:  # truncated in place, so that a full disk or a kill cannot lose earlier answers
                os.truncate(self._path, self._path.read_bytes().rfind(b"\n") + 1)
        except OSError as error:
            raise disk_error(error, self._path) from error
        self._torn = False

    def take(self, question: Question, answer: Prediction) -> None:
        """Writes the line of an answer, and waits until it is on disk. For any thread.

        Raises:
            DiskError: it cannot be written.
        """
        assert self._keep is not None
        wanted, model = self._wanted[question.row_id], self._model(question.role)
        with self._lock:
            outcome, row = self._keep(wanted, answer, model)
            line = {
                "question": wanted.question, "model": model, "outcome": outcome, "limit": wanted.limit, "row": row
            }  # fmt: skip
            try:
                with self._path.open("ab") as file:
                    file.write(sealed(line))
                    file.flush()
                    os.fsync(file.fileno())
            except OSError as error:
                raise disk_error(error, self._path) from error
            self._lines.append(line)
            self.new[outcome] += 1

    def key(self, question: Question, generator: Generator) -> str:
        return self._wanted[question.row_id].question

    def find(self, key: str, question: Question) -> CachedResponse | None:
        """None: what is answered is not put."""
        return None

    def add(self, key: str, kept: CachedResponse) -> None:
        """Nothing: `take` has written it."""

    def write_rows(self) -> int:
        """Writes the complete answers as the file that ingest reads, and returns their number.

        Raises:
            DiskError: it cannot be written.
        """
        rows = {one["question"]: one["row"] for one in self._lines if one["outcome"] == COMPLETE and one["row"]}
        if self._place.is_dir():  # in ASCII, so that data.encoding does not matter
            write_atomic(self._rows, "".join(json.dumps(row) + "\n" for row in rows.values()).encode("ascii"))
        return len(rows)
