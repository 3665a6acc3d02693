"""Questions unrelated to the tuned roles, which show whether tuning cost general abilities.

general.jsonl: short questions on everyday knowledge, arithmetic, reading and following instructions; small models
answer some of them. tools.jsonl: questions that require a tool call. Each contains its check data, as logged rows do in
`check`.
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
    """One question with its checks and their data."""

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
    """The base's and the adapter's answers to one part of the suite, in order; `note` says why it was skipped."""

    questions: Sequence[SuiteQuestion]
    base: Sequence[Prediction]
    tuned: Sequence[Prediction]
    note: Reason | None = None


def read_suite(name: str) -> list[SuiteQuestion]:
    """The questions of one of KINDS."""
    lines = files("journeyman.regression_suite").joinpath(f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [SuiteQuestion.model_validate(json.loads(line)) for line in lines]
