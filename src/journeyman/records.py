"""The typed rows of each .jsonl file. A field's description is its documentation.

Interaction → (curate) → Example, Finding → (evaluate) → Prediction → Score
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from journeyman.reasons import ReasonRecord, Text


class Record(BaseModel):
    """An immutable record with strict validation: an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ToolCall(Record):
    """One call of a tool that the model asks for."""

    name: str
    arguments: Any = Field(description="the decoded JSON value; text only if the log contains invalid JSON")
    id: str | None = None

    def as_chat(self) -> dict[str, Any]:
        """The call in the form that chat templates take: with structured arguments."""
        call = {"type": "function", "function": {"name": self.name, "arguments": self.arguments}}
        return call if self.id is None else {"id": self.id, **call}

    def as_openai(self) -> dict[str, Any]:
        """The call in the form that the chat completions API takes: with arguments encoded as JSON text."""
        call = self.as_chat()
        if not isinstance(self.arguments, str):
            call["function"]["arguments"] = json.dumps(self.arguments, ensure_ascii=False)
        return call


def tool_name(tool: Mapping[str, Any]) -> str:
    """The name in a tool's definition, in OpenAI's form or bare; "" if it has none."""
    function = tool.get("function")
    return str((function if isinstance(function, dict) else tool).get("name", ""))


class Message(Record):
    """One turn of a conversation."""

    role: str
    content: str
    tool_calls: list[ToolCall] = Field(default_factory=list, description="the tool calls of an assistant turn")
    tool_call_id: str | None = Field(None, description="the call that a tool turn answers")
    name: str | None = None
    extra: dict[str, Any] = Field(default_factory=dict, description="other fields of the log")

    def as_chat(self) -> dict[str, Any]:
        """The turn in the form that chat templates take."""
        return self._as(ToolCall.as_chat)

    def as_openai(self) -> dict[str, Any]:
        """The turn in the form that the chat completions API takes."""
        return self._as(ToolCall.as_openai)

    def _as(self, call: Callable[[ToolCall], dict[str, Any]]) -> dict[str, Any]:
        chat: dict[str, Any] = {"role": self.role, "content": self.content}
        if self.tool_calls:
            chat["tool_calls"] = [call(one) for one in self.tool_calls]
        if self.tool_call_id is not None:
            chat["tool_call_id"] = self.tool_call_id
        if self.name is not None:
            chat["name"] = self.name
        return chat


def split_system(messages: Sequence[Message]) -> tuple[list[Message], list[Message]]:
    """Splits a conversation into its leading system turns and the turns after them."""
    count = 0
    for turn in messages:
        if turn.role != "system":
            break
        count += 1
    return list(messages[:count]), list(messages[count:])


def system_text(messages: Sequence[Message]) -> str:
    """The system prompt of a conversation; "" if it has none."""
    return "\n\n".join(turn.content for turn in split_system(messages)[0])


def _older_note(value: Any) -> Any:
    """Reads a note of an older version, which has a code and a sentence instead of details."""
    if not isinstance(value, dict) or "detail" not in value:
        return value
    return Text(f"{value['code']}: {value['detail']}").record()


Note = Annotated[ReasonRecord, BeforeValidator(_older_note)]
"""Something in a kept row that was not understood or not stored (reasons/notes.py)."""


class Interaction(Record):
    """One logged call of a model by an agent, independent of the log's format."""

    id: str = Field(description="unique: the source, plus the number of the answer if a row gave several")
    log_id: str | None = Field(None, description="the log's own id, which may not be unique")
    source: str = Field(description="path below the source's root and line number, as path:line")
    role: str = Field(description="the agent's role: coder, tester, …")
    messages: list[Message] = Field(description="the input, including the system prompt")
    output: str | None = Field(description="the answer; None if the call gave none")
    output_calls: list[ToolCall] = Field(default_factory=list, description="the tool calls of the answer")
    reasoning: str | None = Field(
        default=None, description="reasoning logged separately from the answer; never trained"
    )
    tools: list[dict[str, Any]] = Field(default_factory=list, description="the offered tools, as OpenAI functions")
    followed_by: str | None = Field(None, description="who speaks next in the log: user, tool or assistant; if known")
    succeeded: bool | None = Field(None, description="success according to the log; None if it does not say")
    notes: list[Note] = Field(default_factory=list, description="what was not understood or not stored")
    errors: list[str] = Field(default_factory=list)
    provider: str | None = None
    model: str | None = None
    duration_ms: float | None = Field(default=None, description="wall time of the call; None if not logged")
    max_tokens: int | None = Field(default=None, description="the requested limit for the output")
    finish_reason: str | None = Field(
        default=None, description="stop, length, tool_calls, refusal, … in OpenAI's terms"
    )
    timestamp: str | None = Field(default=None, description="start of the call, in ISO 8601 if the log allows it")
    session: str | None = Field(default=None, description="conversation, trace or session that the call belongs to")
    redacted: dict[str, int] = Field(
        default_factory=dict, description="kind of secret or personal data → number replaced"
    )
    check: dict[str, Any] = Field(default_factory=dict, description="what decides success: tests, a schema, …")
    extra: dict[str, Any] = Field(default_factory=dict, description="other fields of the log")

    @property
    def teacher(self) -> str:
        """Provider and model, as provider/model; "unknown" if the log names neither."""
        return "/".join(filter(None, (self.provider, self.model))) or "unknown"


class Rejected(Record):
    """A row of a log that could not become an interaction."""

    source: str
    line: int
    reason: ReasonRecord
    text: str = Field(description="the beginning of the row")
    rows: int = Field(1, description="if above 1: more rows of the source with this reason, which are only counted")


class Example(Record):
    """A curated row, for training or testing."""

    id: str
    log_id: str | None = Field(None, description="the log's own id")
    role: str
    messages: list[Message] = Field(description="the prompt, with the system prompt that will be served")
    answer: str
    answer_calls: list[ToolCall] = Field(default_factory=list)
    tools: list[dict[str, Any]] = Field(default_factory=list)
    group: str = Field(description="rows of one task or session share a group; a group is in one split only")
    prompt_tokens: int
    answer_tokens: int = Field(description="including the terminator, if there is one")
    ends: bool = Field(True, description="False: the answer is cut off, and no terminator is trained")
    weight: float = Field(1.0, description="of the row's loss; see curate.credit")
    duration_ms: float | None = None
    check: dict[str, Any] = Field(default_factory=dict)


class Finding(Record):
    """What a curation rule found in a row, and what was done about it."""

    id: str
    log_id: str | None = Field(None, description="the log's own id")
    source: str
    role: str
    rule: str
    action: Literal["dropped", "mended", "noted"]
    reason: ReasonRecord
    task: str = Field("", description="the task's beginning, for the report")
    answer: str = Field("", description="the answer's end, for the report")

    @model_validator(mode="before")
    @classmethod
    def _with_a_sentence(cls, value: Any) -> Any:
        """Reads findings of older runs, which have a sentence called `detail` instead of the reason."""
        if isinstance(value, dict) and "detail" in value and "reason" not in value:
            return {"reason" if key == "detail" else key: inner for key, inner in value.items()}
        return value


EVERY_ROLE = "all"
"""The name of all roles together in manifests; no role may have it."""

TEACHER, BASE, FEW_SHOT, TUNED = "teacher", "base", "few-shot", "tuned"
ARMS = (TEACHER, BASE, FEW_SHOT, TUNED)
"""Who answers: the logs, the untuned model, the same with examples in its prompt, the adapter. In addition,
`tuned@FILE` is the adapter on another quantization of the base, and every endpoint is an arm under its name."""


class Prediction(Record):
    """One arm's answer to one test row."""

    id: str
    role: str
    arm: str = Field(description="one of ARMS, tuned@FILE, or an endpoint's name")
    text: str
    calls: list[ToolCall] = Field(default_factory=list, description="the tool calls that the engine parsed from it")
    finish_reason: str
    latency_s: float | None
    first_token_s: float | None
    prompt_tokens: int
    answer_tokens: int
    load: int | None = Field(None, description="number of concurrent requests; None: not known")


class Score(Record):
    """What the role's checks say about one prediction."""

    id: str
    role: str
    arm: str
    outcome: Literal["pass", "fail", "unscored"]
    check: str = Field(description="the check that decided: the first that did not pass, or the last")
    reason: ReasonRecord | None = None
    checks: dict[str, str] = Field(default_factory=dict, description="every check that was run → its outcome")

    @model_validator(mode="before")
    @classmethod
    def _with_a_sentence(cls, value: Any) -> Any:
        """Reads scores of older runs, which have a sentence called `detail` instead of the reason."""
        if isinstance(value, dict) and "detail" in value and "reason" not in value:
            detail = value["detail"]
            return {**{key: value[key] for key in value if key != "detail"}, "reason": detail or None}
        return value

    def why(self) -> str:
        """The reason as a sentence; "" if there is none."""
        return "" if self.reason is None else self.reason.sentence()


class RegressionAnswer(Record):
    """One question of the regression suite, answered by the base and by an adapter."""

    adapter: str = Field(description="'all' or a role")
    part: str = Field(validation_alias=AliasChoices("part", "probe"), description="part of the suite: general or tools")
    id: str
    task: str
    base: str
    tuned: str
    base_passes: bool
    tuned_passes: bool
    base_ends: bool = Field(description="it ended its answer on its own")
    tuned_ends: bool
