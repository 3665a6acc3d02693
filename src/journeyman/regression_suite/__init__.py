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


class SuiteQuestion(Record):
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
class SuiteRun:
    """The answers of base and adapter to one part of the suite, in its order; `note` if it was not asked."""

    questions: Sequence[SuiteQuestion]
    base: Sequence[Prediction]
    tuned: Sequence[Prediction]
    note: Reason | None = None


def read_suite(name: str) -> list[SuiteQuestion]:
    """The questions of one kind: one of KINDS."""
    lines = files("journeyman.regression_suite").joinpath(f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [SuiteQuestion.model_validate(json.loads(line)) for line in lines]
