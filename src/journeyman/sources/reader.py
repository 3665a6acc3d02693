"""START HERE. The table of formats, and the reader that turns rows of any format into records.

Every row becomes interactions or rejections with a reason: nothing else is returned, and nothing is lost.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from journeyman.config import DataConfig
from journeyman.errors import UsageError
from journeyman.foreign import plain
from journeyman.reasons import files as why
from journeyman.reasons import notes as note
from journeyman.records import EVERY_ROLE, Interaction, Rejected
from journeyman.sources import (
    alpaca,
    anthropic,
    braintrust,
    claude_code,
    codex,
    gateways,
    inspect_log,
    interactions,
    langfuse,
    langsmith,
    litellm,
    mlflow,
    openai_chat,
    openai_finetune,
    openhands,
    otel,
    recorded,
    sharegpt,
    swe_agent,
    table,
    trajectory,
    trl,
    weave,
    xlam,
)
from journeyman.sources.fields import FINISH_REASONS, NotAnInteraction, at_path, first
from journeyman.sources.history import cut_notes, cut_results
from journeyman.sources.learn import refuse_marked
from journeyman.sources.place import Place
from journeyman.sources.rows import Row, checked
from journeyman.sources.sessions import Session, parsed_session
from journeyman.sources.status import Status, at_least, of_code
from journeyman.sources.unknown import advice, inner_rows


@dataclass(frozen=True)
class Format:
    """A log format."""

    name: str
    what: str
    claims: Callable[[Mapping[str, Any]], bool]
    interactions: Callable[[Mapping[str, Any], Place], Iterator[Interaction | NotAnInteraction]]


def _format(name: str, module: Any) -> Format:
    return Format(name, module.__doc__.splitlines()[0], module.claims, module.interactions)


FORMATS: Mapping[str, Format] = {
    name: _format(name, module)
    for name, module in {
        "interactions": interactions,
        "recorded": recorded,
        "claude_code": claude_code,
        "codex": codex,
        "inspect_log": inspect_log,
        "swe_agent": swe_agent,
        "openhands": openhands,
        "trajectory": trajectory,
        "langfuse": langfuse,
        "langsmith": langsmith,
        "litellm": litellm,
        "mlflow": mlflow,
        "braintrust": braintrust,
        "weave": weave,
        "otel": otel,
        "gateways": gateways,
        "anthropic": anthropic,
        "openai_chat": openai_chat,
        "trl": trl,
        "openai_finetune": openai_finetune,
        "sharegpt": sharegpt,
        "xlam": xlam,
        "alpaca": alpaca,
        "table": table,
    }.items()
}
"""Tried in this order; the first format that claims a row reads it."""


class Reader:
    """Turns rows into records.

    Raises:
        UsageError: data.format or data.columns names something that does not exist.
    """

    def __init__(self, config: DataConfig) -> None:
        self._config = config
        self._fixed = None if config.format == "auto" else FORMATS.get(config.format)
        if self._fixed is None and config.format != "auto":
            raise UsageError(f"data.format = {config.format!r}: unknown", f"One of: auto, {', '.join(FORMATS)}")
        unknown = sorted(set(config.columns) - set(table.FIELDS))
        if unknown:
            raise UsageError(f"data.columns.{unknown[0]}: unknown field", f"One of: {', '.join(table.FIELDS)}")
        if config.columns and self._fixed is None:
            self._fixed = FORMATS["table"]

    def records(self, row: Row, name: str) -> list[Interaction | Rejected]:
        """The records of one row: always at least one."""
        row = row.parsed() if row.session is None else parsed_session(row)
        if row.member:
            name = f"{name}/{row.member}"
        if row.value is None:
            assert row.problem is not None, "a row without a value says why"
            return [_rejected(row, name, row.problem)]
        if row.session is not None and self._fixed not in (None, FORMATS[row.session]):
            return [_rejected(row, name, why.OtherFormatSet(row.session))]
        found = self._format_of(row.value)
        if found is None:
            return _named(self._inner(row, name))
        return _named(self._read(row, name, found))

    def format_of(self, value: Mapping[str, Any]) -> str | None:
        """The name of the format that claims the object, if one does."""
        found = self._format_of(value)
        return found.name if found else None

    def _inner(self, row: Row, name: str) -> list[Interaction | Rejected]:
        """The rows within an object that is not a row itself: a page of an API, or a whole export in one object."""
        assert row.value is not None
        lists = inner_rows(row.value, self.format_of)
        if len(lists) > 1:
            named = ", ".join(plain(path, 60) for path in lists)
            return [_rejected(row, name, why.SeveralRowLists(named))]
        if not lists:
            return [_rejected(row, name, advice(row.value))]
        (elements,) = lists.values()
        records: list[Interaction | Rejected] = []
        for place, value in enumerate(elements):
            inner = checked(value, row.line, json.dumps(value, ensure_ascii=False))
            found = self._format_of(inner.value) if inner.value is not None else None
            if found is not None:
                records += self._read(inner, name, found)
            else:
                reason = inner.problem or advice(inner.value or {})
                records.append(_rejected(inner, name, reason.within(f"element {place}")))
        return records

    def _read(self, row: Row, name: str, found: Format) -> list[Interaction | Rejected]:
        assert row.value is not None
        records: list[Interaction | Rejected] = []
        try:
            refuse_marked(row.value)
            for one in found.interactions(row.value, self._place(row, name)):
                if isinstance(one, NotAnInteraction):
                    records.append(_not_one(row, name, one))
                elif (self._role(row.value) or one.role) == EVERY_ROLE:
                    records.append(_rejected(row, name, why.RoleCalledAll(EVERY_ROLE)))
                else:
                    records.append(self._completed(one, row.value))
        except NotAnInteraction as reason:
            records.append(_not_one(row, name, reason))
        except ValidationError as error:
            where = ".".join(str(part) for part in error.errors()[0]["loc"])
            records.append(_rejected(row, name, why.UnexpectedValue(found.name, where)))
        except Exception as error:  # no row may stop the others from being read, whatever it contains
            records.append(_rejected(row, name, why.Unreadable(found.name, type(error).__name__)))
        return records or [_rejected(row, name, why.NothingInIt(found.name))]

    def _completed(self, one: Interaction, value: Mapping[str, Any]) -> Interaction:
        """Applies what is common to all formats: settings that override the log, and notes on unknown words."""
        status = Status(one.succeeded, list(one.errors), list(one.notes))
        if self._config.success_field:
            status = self._by_field(value, one, status)
        if status.succeeded and one.output is None and not one.output_calls:
            status = Status(
                None, status.errors, status.notes
            )  # without an answer there is nothing that could be a success
        changes: dict[str, Any] = {}
        if one.finish_reason in ("error", "cancelled"):
            status = status.also(Status(False, [f"finish reason {one.finish_reason}"]))
        elif one.finish_reason is not None and one.finish_reason not in FINISH_REASONS:
            word = plain(one.finish_reason, 60)
            status = status.also(Status(notes=[note.UnknownFinishReason(word).record()]))
            changes = {"finish_reason": None, "extra": {**one.extra, "finish_reason": one.finish_reason}}
        if (role := self._role(value)) is not None:
            changes["role"] = role
        if self._config.cut_tool_results:
            messages = cut_results(one.messages, self._config.cut_tool_results)
            changes["messages"] = messages
            status = status.also(Status(notes=cut_notes(messages)))
        if status.succeeded is not one.succeeded or status.errors != one.errors or status.notes != one.notes:
            changes |= status.fields()
        return one.model_copy(update=changes) if changes else one

    def _by_field(self, value: Mapping[str, Any], one: Interaction, status: Status) -> Status:
        """If data.success_field is set, it alone decides; the success of a row without it is unknown.

        In a row with several samples, the path is one within each sample.
        """
        path, least = self._config.success_field, self._config.success_at_least
        found = first(at_path(value, path), at_path(one.extra, path))
        if found is None:  # then a logged failure counts, but a logged success does not
            missing = note.UnknownStatus(path).record()
            return replace(status, succeeded=status.succeeded and None, notes=[*status.notes, missing])
        said = of_code(found, path) if least is None else at_least(found, least, path)
        return Status(said.succeeded, said.errors, [*status.notes, *said.notes])

    def _format_of(self, value: Mapping[str, Any]) -> Format | None:
        if self._fixed is not None:
            return self._fixed
        # Logs seldom change format between rows, but a format tried out of order must not shadow another one.
        return next((one for one in FORMATS.values() if one.claims(value)), None)

    def _place(self, row: Row, name: str) -> Place:
        config = self._config
        source = f"{name}:{row.line}"
        return Place(source, config.default_role, config.columns, config.cut_tool_results, config.max_history)

    def _role(self, value: Mapping[str, Any]) -> str | None:
        """The role in the field data.role_field; it takes precedence over the format's."""
        role = at_path(value, self._config.role_field) if self._config.role_field else None
        return role if isinstance(role, str) and role else None


def _named(records: list[Interaction | Rejected]) -> list[Interaction | Rejected]:
    """Unique ids: the place in the log, and the number of the answer if a line has several."""
    if len(records) == 1:  # most rows
        return [_with_id(records[0], records[0].source)] if isinstance(records[0], Interaction) else records
    answers = Counter(one.source for one in records if isinstance(one, Interaction))
    named: list[Interaction | Rejected] = []
    given: Counter[str] = Counter()
    for one in records:
        if isinstance(one, Interaction):
            id_ = one.source if answers[one.source] == 1 else f"{one.source}#{given[one.source]}"
            given[one.source] += 1
            one = _with_id(one, id_)
        named.append(one)
    return named


def _with_id(one: Interaction, id_: str) -> Interaction:
    return one.model_copy(update={"id": id_, "log_id": None if one.id in (one.source, id_) else one.id})


def _not_one(row: Row, name: str, one: NotAnInteraction) -> Rejected:
    if one.line is None:
        return _rejected(row, name, one.reason)
    text = one.text
    if text is None:
        text = row.value.beginning(one.line) if isinstance(row.value, Session) else row.text
    return Rejected(source=name, line=one.line, reason=one.reason.record(), text=text)


def _rejected(row: Row, name: str, reason: why.SourceReason) -> Rejected:
    return Rejected(source=name, line=row.line, reason=reason.record(), text=row.text)
