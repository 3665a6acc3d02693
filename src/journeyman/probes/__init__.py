"""Questions that have nothing to do with what is tuned: did tuning cost something that nobody looked at?

general.jsonl: short questions of everyday knowledge, arithmetic, reading and doing as told, which small models answer
in part. tools.jsonl: questions that a tool answers. Each holds what decides, as logged rows do in `check`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from pydantic import Field

from journeyman.reasons import Reason
from journeyman.records import Message, Prediction, Record

KINDS = ("general", "tools")
MOST_TOKENS = 96


class Probe(Record):
    """One question and what decides on its answers."""

    id: str
    task: str
    checks: list[str]
    check: dict[str, Any]
    tools: list[dict[str, Any]] = Field(default_factory=list)

    @property
    def messages(self) -> list[Message]:
        return [Message(role="user", content=self.task)]


@dataclass(frozen=True)
class ProbeRun:
    """The answers of base and adapter to one kind of probe, in the probes' order; `note` where it was not asked."""

    probes: Sequence[Probe]
    base: Sequence[Prediction]
    tuned: Sequence[Prediction]
    note: Reason | None = None


def read_probes(name: str) -> list[Probe]:
    """The questions of one kind: one of KINDS."""
    lines = files("journeyman.probes").joinpath(f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [Probe.model_validate(json.loads(line)) for line in lines]
