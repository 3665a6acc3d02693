"""Recorded traffic that was never asked: rows, judged exchanges, conversations, routes and training data."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import zstandard

from journeyman.checksum_lines import sealed

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC).timestamp()
CHECKS = '[roles.coder]\nchecks = ["regex"]\n'
STUDENT = f'{CHECKS}[route]\nstudent = "http://127.0.0.1:1"\n'
SYSTEM = "You are a coder."


def at(hours: float = 1.0) -> str:
    """A time so many hours before NOW."""
    return datetime.fromtimestamp(NOW - hours * 3600, UTC).isoformat(timespec="milliseconds")


def exchange(seq: int, *, hours: float = 1.0, **changes: Any) -> dict[str, Any]:
    """A judged exchange of the role coder, which the teacher answered well."""
    made = {
        "seq": seq, "at": at(hours), "role": "coder", "conversation": f"c{seq}", "outcome": "complete", "status": 200,
        "failed": False, "checked": "pass", "first_ms": 100, "duration_ms": 1000, "prompt_tokens": 50,
        "answer_tokens": 10, "model": "gpt-x-mini",
    }  # fmt: skip
    return {**made, **changes}


def by_student(seq: int, mode: str = "fallback", **changes: Any) -> dict[str, Any]:
    return exchange(seq, **{"arm": "student", "mode": mode, "trial": 1, "share": 1.0, "model": "coder", **changes})


def compared(seq: int, **changes: Any) -> dict[str, Any]:
    """An answer of the student in shadow, to exchange `of`."""
    return by_student(seq, "shadow", **{"place": "shadow", "of": seq, "teacher_checked": "pass", **changes})


def conversation(name: str, failed: float | None, *, hours: float = 1.0, **changes: Any) -> dict[str, Any]:
    made = {
        "role": "coder", "conversation": name, "mode": "fallback", "trial": 1, "arm": "student", "share": 1.0,
        "began": at(hours), "ended": at(hours), "exchanges": 1, "scored": 0 if failed is None else 1, "failed": failed,
    }  # fmt: skip
    return {**made, **changes}


def row(
    seq: int, text: str = "Hello there", *, hours: float = 1.0, system: str = SYSTEM, **changes: Any
) -> dict[str, Any]:
    """A row of the recorder."""
    turns = [{"role": "system", "content": system}] if system else []
    turns.append({"role": "user", "content": text})
    made = {
        "recorded": 1, "seq": seq, "assigned": seq, "outcome": "complete", "time": at(hours), "role": "coder",
        "conversation": f"c{seq}", "model": "gpt-x-mini", "method": "POST", "path": "/v1/chat/completions",
        "status": 200, "first_ms": 100, "duration_ms": 1000, "tokens": {"prompt": 50, "answer": 10},
        "request": {"model": "gpt-x-mini", "messages": turns},
        "response": {"choices": [{"index": 0, "message": {"role": "assistant", "content": "Yes."},
                                  "finish_reason": "stop"}]},
    }  # fmt: skip
    return {**made, **changes}


def feedback_row(seq: int, **said: Any) -> dict[str, Any]:
    made = row(seq, path="/v1/feedback", request=said)
    return {**made, "conversation": said.get("conversation"), "response": {}}


def write_lines(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        for line in lines:
            file.write(json.dumps(line).encode() + b"\n")


def write_rows(folder: Path, rows: Iterable[Mapping[str, Any]], number: int = 1, *, packed: bool = False) -> Path:
    """A file of rows in a run folder."""
    path = folder / "recorded" / f"rows-{number:06d}-2026-03-02.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    data = b"".join(map(sealed, rows))
    if packed:
        path = path.with_name(path.name + ".zst")
        data = zstandard.compress(data)
    path.write_bytes(data)
    return path


def write_exchanges(folder: Path, lines: Iterable[Mapping[str, Any]], name: str = "exchanges.jsonl") -> Path:
    write_lines(folder / "routing" / name, lines)
    return folder / "routing" / name


def write_routes(folder: Path, mode: str = "fallback", events: Iterable[Mapping[str, Any]] = ()) -> None:
    """Routes of the role coder."""
    made = {"format": 1, "roles": {"coder": {"mode": mode, "trial": 1, "since": at(5)}}, "events": list(events)}
    (folder / "routing").mkdir(exist_ok=True)
    (folder / "routing" / "routes.json").write_text(json.dumps(made))


def event(number: int, action: str, before: str, mode: str, *, hours: float = 1.0, why: str = "") -> dict[str, Any]:
    return {
        "number": number, "at": at(hours), "who": "journeyman", "action": action, "role": "coder", "before": before,
        "mode": mode, "why": why,
    }  # fmt: skip


def write_training(folder: Path, texts: Iterable[str], name: str = "train.jsonl", role: str = "coder") -> None:
    """Rows of a dataset, without its manifest."""

    def rows() -> Iterator[dict[str, Any]]:
        for number, text in enumerate(texts):
            turns = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": text}]
            yield {
                "id": f"{name}-{number}", "role": role, "messages": turns, "answer": "a", "group": f"{name}-{number}",
                "prompt_tokens": 1, "answer_tokens": 1,
            }  # fmt: skip

    write_lines(folder / "02-dataset" / name, rows())
