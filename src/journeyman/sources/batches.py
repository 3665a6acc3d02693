"""Joins batch requests with their answers, which are in two files, by custom_id.

Source: OpenAI's batch guide (input: custom_id, method, url, body; output: custom_id, response, error) and Anthropic's
Message Batches (requests: custom_id, params; results: custom_id, result). Requests are kept in memory while the sources
are read: OpenAI's files have at most 200 MB. Requests beyond the limit below are not joined, which is reported.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from journeyman.reasons import files as why
from journeyman.sources.files import Row, read_file

MOST_BYTES = 1 << 30


class Batches:
    """The requests of the sources, by custom_id.

    Attributes:
        requests: numbers of the sources that contain requests.
        answers: numbers of the sources that contain answers.
    """

    def __init__(self, sources: Sequence[Path], encoding: str) -> None:
        kinds = [_kind(path, encoding) for path in sources]
        self.requests = {number for number, one in enumerate(kinds) if one == "request"}
        self.answers = {number for number, one in enumerate(kinds) if one == "answer"}
        self._bodies: dict[str, dict[str, Any]] = {}
        self._answered: set[str] = set()
        if not (self.requests and self.answers):
            self.requests, self.answers = set(), set()
        size = 0
        for number in sorted(self.requests):
            for row, _ in read_file(sources[number], 0, encoding):
                size += len(row.raw or b"")
                value = row.parsed().value
                if value is not None and isinstance(value.get("custom_id"), str) and size < MOST_BYTES:
                    self._bodies[value["custom_id"]] = {k: value[k] for k in ("body", "params") if k in value}
        for number in sorted(self.answers):
            for row, _ in read_file(sources[number], 0, encoding):
                value = row.parsed().value
                if value is not None and isinstance(value.get("custom_id"), str):
                    self._answered.add(value["custom_id"])

    def joined(self, number: int, found: Iterator[tuple[Row, int]]) -> Iterator[tuple[Row, int]]:
        """Yields the rows of a source: answers joined with their requests, and requests with a reason."""
        for row, done in found:
            if number in self.answers or number in self.requests:
                row = self._row(number, row.parsed())
            yield row, done

    def _row(self, number: int, row: Row) -> Row:
        value = row.value
        custom_id = value.get("custom_id") if value is not None else None
        if value is None or not isinstance(custom_id, str):
            return row
        if number in self.requests and _is_request(value):
            return replace(
                row,
                value=None,
                problem=why.BatchRequestJoined() if custom_id in self._answered else why.BatchRequestUnanswered(),
            )
        body = self._bodies.get(custom_id)
        return row if body is None else replace(row, value={**body, **value})


def _is_request(value: dict[str, Any]) -> bool:
    return ("body" in value or "params" in value) and not {"response", "result"} & value.keys()


def _kind(path: Path, encoding: str) -> str:
    """Returns "request", "answer" or "", depending on the first readable row."""
    if not path.is_file():
        return ""
    for row, _ in read_file(path, 0, encoding):
        value = row.parsed().value
        if value is not None:
            if "custom_id" not in value:
                return ""
            return "request" if _is_request(value) else "answer"
    return ""
