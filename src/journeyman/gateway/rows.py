"""One row of the ledger: an exchange as its journal has it, decoded, with secrets replaced."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from journeyman.checksum_lines import sealed
from journeyman.config import RecordConfig, RedactConfig
from journeyman.gateway.answers import calls_in, finish_of, stream_errors, tokens_of, whole_answer
from journeyman.gateway.bodies import Body, body_of
from journeyman.gateway.journal import Frame, frames
from journeyman.gateway.redacting import Redacted, conversation_without_keys, without_keys
from journeyman.gateway.roles import Facts, conversation_of, role_of
from journeyman.redaction.redactor import Redactor
from journeyman.sources.fields import mapping
from journeyman.sources.recorded import VERSION
from journeyman.sources.streams import Joined

OUTCOMES = ("complete", "cut", "cancelled", "failed", "refused")
ENDED, UNFINISHED, UNBUILT, FULL = "recorder_ended", "stream_unfinished", "not_readable", "journal_full"
_OWN = frozenset(
    ("recorded", "seq", "assigned", "outcome", "why", "time", "key_hash", "bytes", "redacted", "of", "route")
)
"""Fields whose values are the recorder's."""
_LONGEST_ERROR = 300


@dataclass(frozen=True)
class RowSettings:
    """What rows depend on."""

    record: RecordConfig
    redact: RedactConfig

    def redactor(self) -> Redactor:
        return Redactor(secrets=self.redact.secrets, personal=self.redact.personal)


@dataclass(frozen=True)
class Row:
    """A row and what the metrics count.

    Attributes:
        line: with its checksum and line end.
        first_ms: until the first byte of the answer; None: there was none.
        lost: whether it says that contents were not or not all recorded.
        unbuilt: whether that is because no row could be made of the journal's file.
    """

    line: bytes
    outcome: str
    role: str = ""
    status: int | None = None
    first_ms: int | None = None
    duration_ms: int = 0
    prompt_tokens: int = 0
    answer_tokens: int = 0
    lost: bool = False
    unbuilt: bool = False


@dataclass(frozen=True)
class Task:
    """What a row is made of.

    Attributes:
        assigned: the highest number that an exchange has so far.
        keys: the client's keys, to be replaced wherever a row repeats one; of an exchange that another process
            left, those that a journal in memory has.
        incomplete: whether the journal could not hold everything.
        outcome, why: how the exchange ended; empty: the journal says it, or the process that knew was killed.
    """

    path: Path
    number: int
    assigned: int
    keys: tuple[str, ...] = ()
    incomplete: bool = False
    outcome: str = ""
    why: str = ""


def rows_of(settings: RowSettings, tasks: Sequence[Task]) -> list[Row]:
    """The rows of files of the journal, in the same order."""
    return [row_of(settings, task) for task in tasks]


def row_of(settings: RowSettings, task: Task) -> Row:
    """The row of a journal's file. What cannot be read becomes a row without contents that says so."""
    if task.incomplete and not task.path.exists():
        return bare_row(task, FULL)
    try:
        return _Exchange(settings, task).row()
    except Exception as error:  # an exchange without a row would be missing from the ledger
        return bare_row(task, f"{UNBUILT}: {type(error).__name__}")


def bare_row(task: Task, why: str) -> Row:
    """A row without contents."""
    outcome = task.outcome or "cut"
    content = {"recorded": VERSION, "seq": task.number, "assigned": task.assigned, "outcome": outcome, "why": why}
    return Row(
        sealed({**content, "errors": [f"{outcome}: {why}"], "lost": True}),
        outcome,
        lost=True,
        unbuilt=why.startswith(UNBUILT),
    )


class _Exchange:
    def __init__(self, settings: RowSettings, task: Task) -> None:
        self._settings, self._task = settings, task
        self._head: dict[str, Any] = {}
        self._status: dict[str, Any] = {}
        self._end: dict[str, Any] = {}
        self._request = b""
        self._pieces: list[bytes] = []
        self._reference = b""
        self._first_ms: int | None = None
        self._last_ms = 0
        for frame in frames(task.path):
            self._take(frame)
        self._keys = task.keys or tuple(self._head.get("keys", ()))

    def _take(self, frame: Frame) -> None:
        self._last_ms = frame.ms
        match frame.kind:
            case "head":
                self._head = frame.fields
            case "body":
                self._request = frame.data
            case "status":
                self._status |= frame.fields
            case "piece":
                self._pieces.append(frame.data)
                self._first_ms = frame.ms if self._first_ms is None else self._first_ms
            case "end":
                self._end = frame.fields
            case "reference":
                self._reference = frame.data

    def row(self) -> Row:
        task, head, status = self._task, self._head, self._status
        if not head:
            return bare_row(task, FULL if task.incomplete else ENDED)
        sent = mapping(head.get("headers"))
        got = mapping(status.get("headers"))
        data = b"".join(self._pieces)
        request = body_of(self._request, sent.get("content-type", ""), head.get("coding", ""))
        response = body_of(data, got.get("content-type", ""), status.get("coding", ""))
        outcome, why = self._outcome(response)
        facts = Facts(
            head["path"], sent, head.get("key", ""), head.get("key_hash", ""), mapping(request.value)
        )  # fmt: skip
        kept = Redacted(self._settings.redactor())
        contents = kept.exchange(
            without_keys(request.value, self._keys), without_keys(whole_answer(response), self._keys)
        )  # fmt: skip
        beside = self._beside()
        answer = mapping(response.value)
        usage = mapping(answer.get("usage"))
        errors = [f"{outcome}: {why}"] if outcome != "complete" else []
        errors += [kept.text(without_keys(one, self._keys)[:_LONGEST_ERROR]) for one in stream_errors(response)]
        row: dict[str, Any] = {
            "recorded": VERSION,
            "seq": task.number,
            "assigned": task.assigned,
            "outcome": outcome,
            "why": why or None,
            "time": head["time"],
            "of": head.get("of"),
            "route": self._route(kept),
            "role": kept.text(role_of(facts, self._settings.record.roles)),
            "conversation": kept.name(conversation_without_keys(conversation_of(facts), self._keys)),
            "provider": status.get("upstream"),
            "model": kept.text(str(answer.get("model") or facts.model)) or None,
            "method": head["method"],
            "path": kept.text(head["path"]),
            "status": status.get("status"),
            "streamed": response.stream is not None or None,
            "first_ms": None if "of" in head else self._first_ms,
            "duration_ms": status.get("took_ms", self._end.get("ms", self._last_ms)),
            "tokens": {name: value for name, value in tokens_of(usage).items() if value} or None,
            "finish_reason": kept.text(without_keys(finish_of(answer) or "", self._keys)),
            "tool_calls": calls_in(answer) or None,
            "errors": errors or None,
            "key": head.get("key") or None,
            "key_hash": head.get("key_hash") or None,
            "headers": {name: kept.text(value) for name, value in sent.items()},
            "request": contents[0],
            "response": contents[1],
            "reference": None if beside is None else kept.value(without_keys(whole_answer(beside), self._keys)),
            "rest": kept.text(without_keys(response.rest, self._keys)) or None,
            "unread": {
                name: f"{len(raw)} bytes, {kept.text(body.unread)}"
                for name, raw, body in (("request", self._request, request), ("response", data, response))
                if body.unread
            },
            "bytes": {"request": len(self._request), "response": len(data)},
            "lost": task.incomplete or None,
            "redacted": dict(kept.counts),
        }
        row = {
            name: value if name in _OWN else without_keys(value, self._keys)
            for name, value in row.items()
            if value not in (None, {}, "")
        }
        tokens = tokens_of(usage)
        return Row(
            sealed(row), outcome, row.get("role", ""), status.get("status"), self._first_ms,
            row.get("duration_ms", 0), tokens["prompt"], tokens["answer"], task.incomplete,
        )  # fmt: skip

    def _route(self, kept: Redacted) -> dict[str, Any]:
        """The route; why the student failed is in its own words, which may repeat anything."""
        route = mapping(self._status.get("route"))
        why = route.get("why")
        return {**route, "why": kept.text(without_keys(why, self._keys))} if isinstance(why, str) else route

    def _beside(self) -> Body | None:
        """The teacher's answer, in the row of an answer of the student that was only compared."""
        told = mapping(self._status.get("reference"))
        return body_of(self._reference, told.get("content-type", ""), told.get("coding", "")) if told else None

    def _outcome(self, response: Body) -> tuple[str, str]:
        task = self._task
        outcome, why = task.outcome or self._end.get("outcome", "cut"), task.why or self._end.get("why", "")
        stream = response.stream
        if outcome in ("cut", "cancelled") and self._whole(stream):
            return "complete", ""
        if not self._end and not task.outcome:
            return "cut", ENDED
        unfinished = stream is not None and not stream.ended and (stream.answer is not None or bool(stream.errors))
        if outcome == "complete" and unfinished:
            return "cut", UNFINISHED
        if outcome == "complete" and task.incomplete:
            return "cut", FULL
        return outcome, why

    def _whole(self, stream: Joined | None) -> bool:
        """Whether the last event came: then many clients leave before the end of the connection."""
        status = self._status.get("status")
        good = isinstance(status, int) and status < 400
        return good and stream is not None and stream.closed and stream.answer is not None and not self._task.incomplete
