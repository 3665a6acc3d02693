"""Answers that were already paid for: one line each, found again by what was asked of which files.

Another check, another rule or another adapter for one role asks only what is new. What an answer depends on is its
key: the conversation as it was sent, the tools, the limit, the load, and what the generator says of itself (the hashes
of base and adapter, engine and settings; or an endpoint and its model).
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from journeyman.artifacts import hash_of
from journeyman.ports import Generator, Question
from journeyman.records import Prediction

CACHE = ".answers"  # no .jsonl: data.sources may name *.jsonl beside it


@dataclass(frozen=True)
class Kept:
    """An answer, and the peak memory of the process that gave it."""

    answer: Prediction
    peak_memory_bytes: int | None


class Answers:
    """The answers kept in a run folder. A line that a kill cut short is dropped."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / CACHE
        self._lines = _whole_lines(self._path)

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

    def find(self, key: str, question: Question) -> Kept | None:
        line = self._lines.get(key)
        if line is None:
            return None
        # Two rows may ask the same; each keeps its own name.
        named = {"id": question.row_id, "role": question.role, "arm": question.arm}
        return Kept(Prediction.model_validate({**line["answer"], **named}), line["peak_memory_bytes"])

    def add(self, key: str, kept: Kept) -> None:
        answer = kept.answer.model_dump(mode="json")
        line = {"key": key, "peak_memory_bytes": kept.peak_memory_bytes, "answer": answer}
        self._lines[key] = line
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


def _whole_lines(path: Path) -> dict[str, dict[str, Any]]:
    if not path.is_file():
        return {}
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        os.truncate(path, whole)  # in place: a full disk or a kill cannot cost the answers before
    made = (json.loads(line) for line in data[:whole].decode().split("\n") if line)
    return {line["key"]: line for line in made}
