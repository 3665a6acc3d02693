"""Answers that were already paid for: one line each, found again by what was asked of which files.

Another check, another rule or another adapter for one role asks only what is new. What an answer depends on is its key:
the arm, the conversation as it was sent, the tools, the hashes of base and adapter, the engine and its settings.
"""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

from journeyman.artifacts import hash_of, sha256_of
from journeyman.inference.llama import EngineSettings
from journeyman.records import Example, Message, Prediction

CACHE = ".answers"  # no .jsonl: data.sources may name *.jsonl beside it


class Answers:
    """The answers kept in a run folder. A line that a kill cut short is dropped.

    Attributes:
        peak_memory_bytes: of the engine, over all answers that were taken from here or added; None where unknown.
    """

    def __init__(self, folder: Path, settings: EngineSettings, base_sha256: str) -> None:
        self._path = folder / CACHE
        self._settings = settings
        self._adapters = {name: sha256_of(path) for name, path in settings.adapters.items()}
        self._asked = {
            "base": base_sha256,
            "engine": version("xllamacpp"),
            "context": settings.context,
            "threads": settings.threads,
            "max_new_tokens": settings.max_new_tokens,
            "temperature": settings.temperature,
        }
        self._lines = _whole_lines(self._path)
        self.peak_memory_bytes: int | None = None

    def key(self, row: Example, arm: str, messages: list[Message]) -> str:
        adapter = self._adapters.get(row.role) or self._adapters.get("all") if arm == "tuned" else None
        said = [message.model_dump() for message in messages]
        return hash_of({**self._asked, "arm": arm, "adapter": adapter, "messages": said, "tools": row.tools})

    def find(self, key: str, row: Example) -> Prediction | None:
        line = self._lines.get(key)
        if line is None:
            return None
        self._saw(line["peak_memory_bytes"])
        # Two rows may ask the same; each keeps its own name.
        return Prediction.model_validate(line["answer"]).model_copy(update={"id": row.id, "role": row.role})

    def add(self, key: str, answer: Prediction, peak_memory_bytes: int | None) -> None:
        line = {"key": key, "peak_memory_bytes": peak_memory_bytes, "answer": answer.model_dump(mode="json")}
        self._lines[key] = line
        self._saw(peak_memory_bytes)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")

    def _saw(self, peak: int | None) -> None:
        if peak is not None:
            self.peak_memory_bytes = max(peak, self.peak_memory_bytes or 0)


def _whole_lines(path: Path) -> dict[str, dict[str, Any]]:
    if not path.is_file():
        return {}
    lines = path.read_text(encoding="utf-8").split("\n")
    if lines[-1]:
        path.write_text("".join(line + "\n" for line in lines[:-1]), encoding="utf-8")
    made = (json.loads(line) for line in lines[:-1] if line)
    return {line["key"]: line for line in made}
