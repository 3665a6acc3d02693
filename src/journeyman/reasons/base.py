"""Reasons, refusals, warnings and advice: each is a code with typed details and a sentence for the user.

Code that makes decisions compares codes and details, never sentences. Each package declares its reasons in one module
here (curation.py, scoring.py, …), with the sentence next to the fields that it uses, so that a sentence can be
reworded without changing any behavior. On disk and in `--json`, a reason is a `ReasonRecord`: scripts may rely on its
code.
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
    """Base class of all reasons. A subclass declares its code, its sentence and, as dataclass fields, its details.

    Example:
        @dataclass(frozen=True)
        class TooLong(Reason, code="too_long"):
            says = "{tokens:,} tokens, more than curate.max_length = {limit:,}"
            tokens: int
            limit: int
    """

    code: ClassVar[str]
    says: ClassVar[str]
    """The sentence, a format string over the details; override `sentence` if a format string is not enough."""
    fix: ClassVar[str] = ""
    """What to do about it, a format string over the details; override `what_to_do` if that is not enough."""

    def __init_subclass__(cls, code: str = "", **options: Any) -> None:
        super().__init_subclass__(**options)
        if not code:  # a base class of several reasons
            return
        assert code not in _KINDS, f"two reasons have the code {code!r}"
        cls.code = code
        _KINDS[code] = cls

    @property
    def details(self) -> dict[str, Detail]:
        return asdict(self)

    def sentence(self) -> str:
        """The text for the user: one clause without a final period."""
        return self.says.format_map(self.details)

    def what_to_do(self) -> str:
        """What to do about it: one clause without a final period; "" if the sentence says it, or nothing is wrong."""
        return self.fix.format_map(self.details)

    def record(self) -> ReasonRecord:
        """The form that is written to disk."""
        return ReasonRecord(code=self.code, details=self.details)


class ReasonRecord(BaseModel):
    """A reason on disk. Plain text, written before reasons had codes, is read as the code "text"."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    code: str
    details: dict[str, Detail] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        return {"code": Text.code, "details": {"text": value}} if isinstance(value, str) else value

    def reason(self) -> Reason:
        """The typed reason; `Text` if this version does not know the code or its details."""
        kind = _KINDS.get(self.code)
        try:
            return kind(**self.details) if kind else Text(_unknown(self.code, self.details))
        except TypeError:
            return Text(_unknown(self.code, self.details))

    def sentence(self) -> str:
        """The text for the user; code and details if the details do not have the types that the reason declares."""
        try:
            return self.reason().sentence()
        except (ValueError, TypeError, AttributeError):
            return _unknown(self.code, self.details)

    def what_to_do(self) -> str:
        """What to do about it; "" if that is not known."""
        try:
            return self.reason().what_to_do()
        except (ValueError, TypeError, AttributeError):
            return ""


@dataclass(frozen=True)
class Text(Reason, code="text"):
    """A sentence without a code: from an older version, or from a user's own check."""

    says = "{text}"
    text: str

    def sentence(self) -> str:
        return self.text


def _unknown(code: str, details: Mapping[str, Detail]) -> str:
    shown = ", ".join(f"{name} = {value}" for name, value in details.items())
    return f"{code} ({shown})" if shown else code


def kinds() -> Mapping[str, type[Reason]]:
    """Code → class, for all modules of reasons that have been imported."""
    return dict(_KINDS)
