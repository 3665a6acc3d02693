"""START HERE. The table of formats, and what turns a row of any of them into records.

Every row becomes interactions or rejected rows with a reason: nothing else comes out and nothing is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from journeyman.config import DataConfig
from journeyman.errors import UsageError
from journeyman.records import EVERY_ROLE, Interaction, Rejected
from journeyman.sources import (
    alpaca,
    anthropic,
    interactions,
    langfuse,
    langsmith,
    litellm,
    openai_chat,
    openai_finetune,
    otel,
    sharegpt,
    table,
)
from journeyman.sources.fields import NotAnInteraction, at_path
from journeyman.sources.files import Row
from journeyman.sources.place import Place


@dataclass(frozen=True)
class Format:
    """One way to log a model's call."""

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
        "langfuse": langfuse,
        "langsmith": langsmith,
        "litellm": litellm,
        "otel": otel,
        "anthropic": anthropic,
        "openai_chat": openai_chat,
        "openai_finetune": openai_finetune,
        "sharegpt": sharegpt,
        "alpaca": alpaca,
        "table": table,
    }.items()
}
"""Asked in this order; the first that claims a row reads it."""

UNREADABLE = "cannot be read"
"""In the reason of a row that no rule of its format foresees; the tests hold that none they try is."""


_NO_ROLE = f"its role is called {EVERY_ROLE!r}, which here means every role: rename it, or set data.role_field"


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
        """What one row became: at least one record, always."""
        row = row.parsed()
        if row.value is None:
            return [_rejected(row, name, row.problem)]
        found = self._format_of(row.value)
        if found is None:
            return [_rejected(row, name, f"no known format has the fields {_names(row.value)}")]
        records: list[Interaction | Rejected] = []
        role = self._role(row.value)
        try:
            for one in found.interactions(row.value, self._place(row, name)):
                if isinstance(one, NotAnInteraction):
                    records.append(_rejected(row, name, str(one)))
                elif (role or one.role) == EVERY_ROLE:
                    records.append(_rejected(row, name, _NO_ROLE))
                else:
                    records.append(one if role is None else one.model_copy(update={"role": role}))
        except NotAnInteraction as reason:
            records.append(_rejected(row, name, str(reason)))
        except ValidationError as error:
            where = ".".join(str(part) for part in error.errors()[0]["loc"])
            records.append(_rejected(row, name, f"{found.name}: unexpected value at {where}"))
        except Exception as error:  # whatever a log may hold, one row must not end the reading of the others
            records.append(_rejected(row, name, f"{found.name}: {UNREADABLE} ({type(error).__name__})"))
        return records or [_rejected(row, name, f"{found.name}: nothing in it")]

    def _format_of(self, value: Mapping[str, Any]) -> Format | None:
        if self._fixed is not None:
            return self._fixed
        # Logs seldom change format from row to row, but a format asked out of order must not shadow another.
        return next((one for one in FORMATS.values() if one.claims(value)), None)

    def _place(self, row: Row, name: str) -> Place:
        return Place(f"{name}:{row.line}", self._config.default_role, self._config.columns)

    def _role(self, value: Mapping[str, Any]) -> str | None:
        """The role that data.role_field names in the row; it goes before what the format says."""
        role = at_path(value, self._config.role_field) if self._config.role_field else None
        return role if isinstance(role, str) and role else None


def _names(value: Mapping[str, Any]) -> str:
    shown = ", ".join(repr(str(key)[:30]) for key in list(value)[:8])
    return shown + (", …" if len(value) > 8 else "") if value else "of an empty object"


def _rejected(row: Row, name: str, reason: str) -> Rejected:
    return Rejected(source=name, line=row.line, reason=reason, text=row.text)
