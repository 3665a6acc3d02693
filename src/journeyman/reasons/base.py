"""Every reason, refusal, warning and piece of advice: a code with typed details, and the sentence that shows it.

Code that decides something compares codes and details, never sentences. Each package declares its reasons in one
module of this package (curation.py, scoring.py, …), the sentence beside the fields it needs, so a sentence can be
reworded without changing what any program does. On disk and in `--json` a reason is a `ReasonRecord`: scripts may
rely on its code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

Detail = str | int | float | bool | None

_KINDS: dict[str, type[Reason]] = {}


@dataclass(frozen=True)
class Reason:
    """The base of all reasons. A subclass names its code, its sentence and, as dataclass fields, its details.

    Example:
        @dataclass(frozen=True)
        class TooLong(Reason, code="too_long"):
            says = "{tokens:,} tokens, more than curate.max_length = {limit:,}"
            tokens: int
            limit: int
    """

    code: ClassVar[str]
    says: ClassVar[str]
    """The sentence as a format string over the details; override `sentence` where a format string is not enough."""

    def __init_subclass__(cls, code: str = "", **options: Any) -> None:
        super().__init_subclass__(**options)
        if not code:  # a base shared by several reasons
            return
        assert code not in _KINDS, f"two reasons have the code {code!r}"
        cls.code = code
        _KINDS[code] = cls

    @property
    def details(self) -> dict[str, Detail]:
        return asdict(self)

    def sentence(self) -> str:
        """What a user reads: one clause without a final period."""
        return self.says.format_map(self.details)

    def record(self) -> ReasonRecord:
        """As it is written to disk."""
        return ReasonRecord(code=self.code, details=self.details)


class ReasonRecord(BaseModel):
    """A reason on disk. Text from before reasons had codes is read as the code "text"."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    code: str
    details: dict[str, Detail] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        return {"code": Text.code, "details": {"text": value}} if isinstance(value, str) else value

    def reason(self) -> Reason:
        """The typed reason; `Text` where this version does not know the code or its details."""
        kind = _KINDS.get(self.code)
        try:
            return kind(**self.details) if kind else Text(_unknown(self.code, self.details))
        except TypeError:
            return Text(_unknown(self.code, self.details))

    def sentence(self) -> str:
        """What a user reads; code and details if their types are not those that the reason declares."""
        try:
            return self.reason().sentence()
        except (ValueError, TypeError, AttributeError):
            return _unknown(self.code, self.details)


@dataclass(frozen=True)
class Text(Reason, code="text"):
    """A sentence that has no code: written by an older version, or by a user's own check."""

    says = "{text}"
    text: str

    def sentence(self) -> str:
        return self.text


def _unknown(code: str, details: Mapping[str, Detail]) -> str:
    shown = ", ".join(f"{name} = {value}" for name, value in details.items())
    return f"{code} ({shown})" if shown else code


def kinds() -> Mapping[str, type[Reason]]:
    """Code → class, for every module of reasons that has been imported."""
    return dict(_KINDS)
