"""Reads a call's success from its log, with one vocabulary for all formats and three values: yes, no, unknown.

A failure in any field outweighs a success; words that are not in the vocabulary leave the status unknown and are noted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from journeyman.foreign import plain
from journeyman.reasons import notes as note
from journeyman.records import Note

_SUCCESS = {
    "accepted", "complete", "completed", "correct", "done", "finished", "fulfilled", "good", "ok", "okay", "pass",
    "passed", "resolved", "solved", "status_code_ok", "succeeded", "success", "successful", "true", "valid", "y",
    "yes",
}  # fmt: skip
_FAILURE = {
    "abort", "aborted", "bad", "blocked", "cancel", "canceled", "cancelled", "crash", "crashed", "critical",
    "denied", "dropped", "err", "error", "errored", "exception", "expired", "fail", "failed", "failing", "failure",
    "false", "fatal", "forbidden", "incorrect", "interrupted", "invalid", "killed", "ko", "n", "no", "not_ok",
    "quota_exceeded", "rate_limited", "refused", "rejected", "skipped", "status_code_error", "terminated",
    "throttled", "time_out", "timed_out", "timedout", "timeout", "unauthorized", "unresolved", "unsuccessful",
}  # fmt: skip
_UNFINISHED = {
    "in_progress", "inprogress", "pending", "processing", "queued", "running", "scheduled", "started", "waiting",
}  # fmt: skip
"""With these, the row does not contain an accepted answer."""
_SAYS_NOTHING = {
    "debug", "default", "incomplete", "info", "n/a", "na", "nan", "no_error", "no_errors", "none", "notice", "null",
    "status_code_unset", "streaming", "undefined", "unknown", "unset", "warn", "warning",
}  # fmt: skip
"""`incomplete` is a truncated answer, which its finish reason says."""
_TELLING = re.compile(
    r"\b(?:error|errored|failed|failure|fail|timeout|timed out|exception|cancell?ed|aborted|rejected|quota)\b"
)

_CLAIMS = (
    "status", "state", "outcome", "success", "succeeded", "successful", "is_success", "is_successful", "ok", "passed",
    "resolved", "completed", "status_message_code", "correct", "is_correct", "accepted", "thumbs_up", "thumbsUp",
)  # fmt: skip
_DENIALS = ("failed", "is_error", "has_error", "isError", "errored", "cancelled", "canceled", "timed_out", "aborted")
_CODES = (
    "status_code",
    "statusCode",
    "http_status",
    "http_status_code",
    "httpStatus",
    "response_status",
    "respStatus",
    "response_status_code",
    "responseStatus",
)
_EXITS = ("exit_code", "exitCode", "returncode", "return_code")
_ERRORS = (
    "error", "errors", "error_message", "errorMessage", "error_str", "exception", "failure_reason", "error_type",
    "error_code", "failure",
)  # fmt: skip
_OPINIONS = ("feedback", "user_feedback", "thumbs", "rating")
_VERDICTS = ("verdict", "result", "label", "kto_tag")
"""Fields in which only words of the vocabulary and booleans are read; any other text is ignored."""
_NESTED = ("metadata", "meta", "evaluation", "eval", "annotations", "annotation", "feedback", "user_feedback")
_IN_NESTED = frozenset(
    ("status", "success", "succeeded", "is_success", "passed", "failed", "correct", "is_correct", "error", "is_error",
     "status_code", "thumbs", "thumbs_up", "score", "reward", "rating", "verdict", "accepted")
)  # fmt: skip
"""Names of status fields one level deeper, where `state` or `code` may mean other things."""
_SCORES = ("score", "reward", "scores")
_HOW = "set data.success_field and data.success_at_least"
STATUS_FIELDS = frozenset((*_CLAIMS, *_DENIALS, *_CODES, *_EXITS, *_ERRORS, *_OPINIONS, *_SCORES, *_VERDICTS))
"""Fields that `claimed` reads at any level."""


@dataclass(frozen=True)
class Status:
    """The status of a call: `succeeded` is None if the log does not say; `notes` contain what was not understood."""

    succeeded: bool | None = None
    errors: list[str] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)

    def also(self, other: Status) -> Status:
        """The combination of both."""
        both = (self.succeeded, other.succeeded)
        together = False if False in both else True if True in both else None
        return Status(together, [*self.errors, *other.errors], [*self.notes, *other.notes])

    def or_answered(self, answered: bool) -> Status:
        """Counts a call with an answer as a success, unless something about it was not understood."""
        if self.succeeded is None and answered and not any(one.code == note.UnknownStatus.code for one in self.notes):
            return Status(True, self.errors, self.notes)
        return self

    def fields(self) -> dict[str, Any]:
        """The fields of an Interaction."""
        return {"succeeded": self.succeeded, "errors": self.errors, "notes": self.notes}


_SILENT = Status()


def claimed(*places: Mapping[str, Any]) -> Status:
    """The combined status of these objects, including their metadata and evaluations."""
    found = _SILENT
    for place in places:
        names, nested = _asked(tuple(place))
        said = [_said(name, place[name]) for name in names]
        for name in nested:
            inner = place[name]
            if isinstance(inner, Mapping):
                said += [_said(key, inner[key]) for key in inner if key in _IN_NESTED]
        for one in said:
            if one is not _SILENT:
                found = one if found is _SILENT else found.also(one)
    return found


@lru_cache(maxsize=1024)
def _asked(fields: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """The status fields among these names, and the fields that may contain more. Cached, since a log has few different
    sets of fields.

    Error fields come first, since they say what went wrong and not only that something did.
    """
    names = sorted((name for name in fields if name in STATUS_FIELDS), key=lambda one: (one not in _ERRORS, one))
    return names, [name for name in _NESTED if name in fields]


def _said(name: str, value: Any) -> Status:
    """The status in one field. Cached, since logs repeat a few short values."""
    if value is None or value == "" or value == []:
        return _SILENT
    if isinstance(value, str) and len(value) <= 20:
        return _of_short(name, value)
    return _of_field(name, value)


@lru_cache(maxsize=1024)
def _of_short(name: str, value: str) -> Status:
    return _of_field(name, value)


def distinct(*places: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The objects, each once: a row that is its own response is read only once."""
    found: list[Mapping[str, Any]] = []
    for place in places:
        if place and place not in found:
            found.append(place)
    return found


def of_word(value: Any, name: str = "status") -> Status:
    """A status of any type: a word, a number or a boolean; None and "" are ignored."""
    if value is None or value == "" or isinstance(value, (list, dict)):
        return Status()
    if isinstance(value, bool):
        return Status(value, [] if value else [f"{name} false"])
    shown = plain(str(value), 60)
    says = _of_number(float(value)) if isinstance(value, int | float) else _of_text(str(value))
    if says is None:
        return Status(None, [], [note.UnknownStatus(name, repr(shown)).record()])
    return Status() if says == "nothing" else Status(says == "yes", [] if says == "yes" else [f"{name} {shown}"])


def of_code(value: Any, name: str = "status_code") -> Status:
    """An HTTP status; words are read as words (OpenTelemetry's status_code is one)."""
    text = str(value).strip()
    if re.fullmatch(r"\d{3}", text) and not isinstance(value, bool):
        return Status(True) if int(text) < 400 else Status(False, [f"{name} {text}"])
    return of_word(value, name)


def at_least(value: Any, threshold: float, name: str) -> Status:
    """Compares a reward or score with the threshold of success."""
    try:
        reached = float(value)
    except (TypeError, ValueError):
        return Status(None, [], [note.UnknownStatus(name, plain(repr(value), 60), "not a number").record()])
    return Status(True) if reached >= threshold else Status(False, [f"{name} {reached:g}, success from {threshold:g}"])


def _of_field(name: str, value: Any) -> Status:
    if name in _ERRORS:
        return of_error(value)
    if name in _CODES:
        return of_code(value, name)
    if name in _VERDICTS:
        return _of_verdict(name, value)
    if name in _OPINIONS:
        return _of_opinion(name, value)
    if name in _SCORES:  # it is unknown which values are a success
        told = note.UnknownStatus(name, "is not read", _HOW).record()
        return Status() if value in (None, "", {}, []) else Status(notes=[told])
    if name in _EXITS:
        ended = value if isinstance(value, int) and not isinstance(value, bool) else None
        return Status() if ended is None else Status(ended == 0, [f"{name} {ended}"] if ended else [])
    if name in _DENIALS:
        said = of_word(value, name).succeeded
        return Status() if said is None else Status(not said, [name] if said else [])
    if isinstance(value, Mapping):  # OpenTelemetry, Weave: {"status": {"code": …, "message": …}}
        code = value.get("status_code", value.get("statusCode", value.get("code")))
        if code in (2, "2"):  # OpenTelemetry's STATUS_CODE_ERROR
            return Status(False, [plain(str(value.get("message") or value.get("description") or "status ERROR"), 300)])
        return Status() if code in (0, 1, "0", "1") else of_code(code, f"{name}.code")
    return of_code(value, name)


def _of_verdict(name: str, value: Any) -> Status:
    if isinstance(value, bool):
        return of_word(value, name)
    said = _of_text(value) if isinstance(value, str) and len(value) < 30 and not value.strip().isdigit() else None
    return of_word(value, name) if said in ("yes", "no") else Status()


def _of_opinion(name: str, value: Any) -> Status:
    """User feedback: thumb down is a failure, thumb up a success."""
    word = str(value).strip().lower().replace("-", "_").replace(" ", "_")
    if word in ("thumbs_down", "thumb_down", "down", "negative", "dislike", "👎", "_1"):
        return Status(False, [f"{name} {plain(str(value), 40)}"])
    if word in ("thumbs_up", "thumb_up", "up", "positive", "like", "👍"):
        return Status(True)
    if value in (None, "", {}, []) or isinstance(value, dict | list):
        return Status()
    return Status(notes=[note.UnknownStatus(name, repr(plain(str(value), 40))).record()])


def of_error(value: Any) -> Status:
    """An error field: any value is a failure, except those that mean that there was no error."""
    if value in (None, "", 0, False, [], {}) or (isinstance(value, str) and _says_no_error(value)):
        return Status()
    if isinstance(value, Mapping):
        value = value.get("message") or value.get("type") or value.get("code") or "error"
    parts = value if isinstance(value, list) else [value]
    told = [p.get("message") or "error" if isinstance(p, Mapping) else p for p in parts]
    return Status(False, ["error" if one is True else plain(str(one), 300) for one in told])


def _says_no_error(text: str) -> bool:
    return text.strip().lower() in ("", "none", "null", "no", "false", "0", "{}", "[]", "nan", "n/a", "no error")


def _of_number(value: float) -> str | None:
    """0 and 1 as booleans, three digits as an HTTP status; other numbers are unknown."""
    if value in (0.0, 1.0):
        return "yes" if value else "no"
    return ("yes" if value < 400 else "no") if 100 <= value < 600 else None


def _of_text(text: str) -> str | None:
    try:
        return _of_number(float(text))
    except ValueError:
        pass
    word = re.sub(r"[\s\-]+", "_", text.strip().lower()).rsplit(".", 1)[-1]  # "RunStatus.FAILED"
    first = re.split(r"[^a-z_]", word, maxsplit=1)[0].strip("_")
    for one in (word, first):
        if one in _FAILURE or one in _UNFINISHED:
            return "no"
        if one in _SUCCESS and one == word:
            return "yes"
        if one in _SAYS_NOTHING and one == word:
            return "nothing"
    told = text.lower().replace("_", " ")
    return "no" if _TELLING.search(told) or re.search(r"\b[45]\d\d\b", told) else None
