"""The prompts of recorded rows: a sample of each role, with how they differ from the trained prompts."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from journeyman.config import DataConfig
from journeyman.monitoring.prompts import Prompt, Sample, prompt_of
from journeyman.records import Interaction
from journeyman.sources.fields import mapping
from journeyman.sources.reader import Reader
from journeyman.sources.recorded import VERSION
from journeyman.sources.rows import parse_line

MOST_ROLES = 20
"""Roles whose prompts are kept, beside those that the config file or the training names: without rules, a role is a
model's name, and clients can invent any number of these."""
Differences = Callable[[str, Sequence[dict[str, Any]]], tuple[str, ...] | None]
"""From a role and turns: how these differ from the training's; None if nothing is known of the role."""


@dataclass(frozen=True)
class Looked:
    """A recorded prompt. `differences`: None if there is nothing to compare with."""

    prompt: Prompt
    differences: tuple[str, ...] | None


class RecordedPrompts:
    """Samples, filled row by row in any order.

    Args:
        most: conversations of each role.
        named: roles that are looked at in any case; of others, MOST_ROLES.

    Attributes:
        left_out: roles beyond MOST_ROLES.
    """

    def __init__(
        self, most: int, named: Set[str] = frozenset(), differences: Differences = lambda role, turns: None
    ) -> None:
        self._most, self._named, self._differences = most, named, differences
        self._reader = Reader(DataConfig())
        self._samples: dict[str, Sample[Looked]] = {}
        self.left_out: set[int] = set()

    def take(self, row: Mapping[str, Any]) -> None:
        """Looks at a row; requests that ask no model are left out."""
        request, role, number = mapping(row.get("request")), str(row.get("role") or ""), str(row.get("seq"))
        if "messages" not in request and "input" not in request:
            return
        if role not in self._samples and role not in self._named and len(self._samples) >= MOST_ROLES:
            if len(self.left_out) < 10_000:
                self.left_out.add(hash(role))
            return
        sample = self._samples.setdefault(role, Sample(self._most))
        group = str(row.get("conversation") or f"exchange {number}")
        if not sample.wants(group, number):
            return
        found = self._interaction(row, request, role)
        if found is None:
            return
        turns = [turn.as_chat() for turn in found.messages]
        sample.add(group, number, Looked(prompt_of(turns, found.tools), self._differences(role, turns)))

    def roles(self) -> list[str]:
        return list(self._samples)

    def of(self, role: str) -> list[Looked]:
        return self._samples[role].values() if role in self._samples else []

    def _interaction(self, row: Mapping[str, Any], request: Mapping[str, Any], role: str) -> Interaction | None:
        """The request as `ingest` reads it, whoever answered it, and however."""
        asked = {
            "recorded": VERSION, "seq": row.get("seq"), "outcome": "cut", "role": role or "agent",
            "path": row.get("path"), "request": request, "response": row.get("response"),
        }  # fmt: skip
        found = self._reader.records(parse_line(json.dumps(asked).encode(), 1), "recorded")
        return next((one for one in found if isinstance(one, Interaction)), None)
