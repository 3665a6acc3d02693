"""Reasons that name a role."""

from __future__ import annotations

from dataclasses import dataclass

from journeyman.foreign import named
from journeyman.reasons.base import Reason


@dataclass(frozen=True)
class OfRole(Reason):
    """The base of reasons about one role. `role` is the role as logged; the sentence shows it through `named`."""

    role: str

    def sentence(self) -> str:
        return self.says.format_map({**self.details, "role": named(self.role)})
