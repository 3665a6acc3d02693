"""One row of each .jsonl, typed. A field's description is its documentation.

Interaction → (curate) → Example | Drop → (evaluate) → Prediction → Verdict
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Record(BaseModel):
    """Immutable, and strict at the door: an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Message(Record):
    """One turn of a conversation, as chat templates take it."""

    role: str
    content: str

    def as_chat(self) -> dict[str, str]:
        return {"role": self.role, "content": self.content}


class Interaction(Record):
    """One logged call of a model by an agent, whatever format it was logged in."""

    id: str = Field(description="the log's id, or source:line where it has none")
    source: str = Field(description="file name and line number, as file:line")
    role: str = Field(description="the agent's role: coder, tester, …")
    messages: list[Message] = Field(description="the input, system prompt included")
    output: str | None = Field(description="the answer; None where the call gave none")
    succeeded: bool = Field(description="what the log claims: status success and no errors")
    errors: list[str] = Field(default_factory=list)
    provider: str | None = None
    model: str | None = None
    duration_ms: float | None = Field(default=None, description="wall time of the call; None where not logged")
    max_tokens: int | None = Field(default=None, description="the output limit that was asked for")
    finish_reason: str | None = None
    timestamp: str | None = None
    check: dict[str, Any] = Field(default_factory=dict, description="what decides success: tests, a schema, …")
    extra: dict[str, Any] = Field(default_factory=dict, description="what the log held beyond these fields")


class Rejected(Record):
    """A line of a log that is no interaction."""

    source: str
    line: int
    reason: str
    text: str = Field(description="the line's beginning")


class Example(Record):
    """A curated row: what may be trained on or tested with."""

    id: str
    role: str
    messages: list[Message] = Field(description="the prompt, with the system prompt that will be served")
    answer: str
    group: str = Field(description="rows of one task share a group; a group lies in one split only")
    prompt_tokens: int
    answer_tokens: int = Field(description="the terminator included")
    duration_ms: float | None = None
    check: dict[str, Any] = Field(default_factory=dict)


class Drop(Record):
    """A row that curate left out, and why."""

    id: str
    source: str
    role: str
    rule: str
    detail: str


class Prediction(Record):
    """One answer of one arm to one sealed row."""

    id: str
    role: str
    arm: str = Field(description="base or tuned")
    text: str
    finish_reason: str
    latency_s: float
    first_token_s: float
    prompt_tokens: int
    answer_tokens: int


class Verdict(Record):
    """What the role's checks say of one prediction."""

    id: str
    role: str
    arm: str
    outcome: Literal["pass", "fail", "unscored"]
    check: str = Field(description="the check that decided: the first that did not pass, or the last")
    detail: str = ""
