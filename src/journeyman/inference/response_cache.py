"""The response cache: one line for each answer, found by a hash of everything that the answer depends on.

After a change of checks, rules or one role's adapter, only new questions are asked. The key consists of the
conversation as sent, the tools, the token limit, the load and the generator's identity (the hashes of base and adapter,
engine and settings; or an endpoint and its model).

Each line contains its own checksum (see checksum_lines); questions of damaged or edited lines are asked again. A file
without checksums was written by version 0.4.0 or before: it is accepted and rewritten with checksums once.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from journeyman.artifacts import disk_error, hash_of, write_atomic
from journeyman.checksum_lines import Line, read_line, read_lines, sealed
from journeyman.evidence import RESPONSES, left_over, place_to_read, place_to_write
from journeyman.protocols import Generator, Question
from journeyman.records import Prediction
from journeyman.retention import ROLE


@dataclass(frozen=True)
class CachedResponse:
    """An answer, and the peak memory of the process that generated it."""

    answer: Prediction
    peak_memory_bytes: int | None


class ResponseCache:
    """The cached answers of a run folder. A line that was cut short by a kill is dropped.

    Attributes:
        damaged: number of lines that were changed after they were written. They are dropped, and their questions are
            asked again.
    """

    def __init__(self, folder: Path) -> None:
        self._path = place_to_write(folder, RESPONSES)
        lines, torn = read_lines(self._path)
        old = left_over(folder, RESPONSES)
        more = [line for line in read_lines(old)[0] if line.sealed] if old else []
        sound = [line.content for line in lines if line.content is not None and _is_answer(line)]
        if any(line.sealed for line in lines):
            sound = [line.content for line in lines if line.content is not None and line.sealed and _is_answer(line)]
        self.damaged = len(lines) - len(sound)
        sound += [line.content for line in more if line.content is not None and _is_answer(line)]
        self._lines: dict[str, dict[str, Any]] = {content["key"]: content for content in sound}
        if self.damaged or more or not all(line.sealed for line in lines):
            write_atomic(self._path, b"".join(map(sealed, sound)))
        elif torn:  # truncated in place, so that a full disk or a kill cannot lose earlier answers
            os.truncate(self._path, self._path.read_bytes().rfind(b"\n") + 1)
        if old:
            old.unlink()

    def damage(self) -> str:
        """For the user: that there was some; "" if not."""
        said = f"{self.damaged} entries of the response cache were damaged or edited: their questions are asked again"
        return said if self.damaged else ""

    def key(self, question: Question, generator: Generator) -> str:
        return hash_of(
            {
                **generator.identity(question),
                "messages": [message.model_dump() for message in question.messages],
                "tools": list(question.tools),
                "max_tokens": question.max_tokens,
                "load": question.load,
            }
        )

    def find(self, key: str, question: Question) -> CachedResponse | None:
        line = self._lines.get(key)
        if line is None:
            return None
        # Two rows may ask the same question; each keeps its own id.
        named = {"id": question.row_id, "role": question.role, "arm": question.arm}
        return CachedResponse(Prediction.model_validate({**line["answer"], **named}), line["peak_memory_bytes"])

    def add(self, key: str, kept: CachedResponse) -> None:
        answer = kept.answer.model_dump(mode="json")
        line = {"key": key, "peak_memory_bytes": kept.peak_memory_bytes, "answer": answer}
        self._lines[key] = line
        try:
            with self._path.open("ab") as file:
                file.write(sealed(line))
        except OSError as error:
            raise disk_error(error, self._path) from error


def may_spare_answers(folder: Path) -> bool:
    """Whether an evaluation of the run may find answers in the cache; which ones, depends on the held-out rows.

    The base's answers to general prompts, which training has cached, are none of them.
    """
    place = place_to_read(folder, RESPONSES)
    if not place.is_file():
        return False
    with place.open("rb") as file:
        return any(not _is_general(read_line(line.removesuffix(b"\n"))) for line in file)


def _is_general(line: Line) -> bool:
    answer = (line.content or {}).get("answer")
    return isinstance(answer, dict) and answer.get("role") == ROLE


def _is_answer(line: Line) -> bool:
    content = line.content or {}
    if content.keys() != {"key", "peak_memory_bytes", "answer"} or not isinstance(content["key"], str):
        return False
    try:
        Prediction.model_validate(content.get("answer"))
    except ValidationError:
        return False
    return True
