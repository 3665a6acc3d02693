"""The second pass over the rows, in worker processes: renders what remains as examples and counts tokens."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import jsonschema
import numpy as np
from numpy.typing import NDArray

from journeyman import reasoning
from journeyman.artifacts import row_bytes
from journeyman.config import CurateConfig
from journeyman.curation.examine import finding_of
from journeyman.curation.row_batches import RowBatch
from journeyman.curation.selection import Ruling, Trigger
from journeyman.errors import InputError
from journeyman.manifests import RolePrompt
from journeyman.models.base import Vocabulary
from journeyman.reasons import Reason
from journeyman.reasons import curation as why
from journeyman.records import (
    Example,
    Finding,
    Interaction,
    Message,
    ToolCall,
    split_system,
    system_text,
    tool_name,
)
from journeyman.rendering.renderer import Renderer

EXAMPLE = np.dtype([("row", "u4"), ("tokens", "u4")])
KEPT = np.dtype([("row", "u4"), ("group", "i8"), ("weight", "f8"), ("ends", "?"), ("output_tokens", "i8")])


@dataclass(frozen=True)
class Chosen:
    """A row of the log with the decisions about it."""

    row: int
    line: bytes
    dropped: Ruling | None
    noted: Sequence[Ruling]
    group: int
    weight: float
    ends: bool
    output_tokens: int


@dataclass(frozen=True)
class ChosenBatch:
    """The rows of a batch that the first pass kept, with the decisions about them.

    Attributes:
        rows: all rows of the batch.
        first, count: number of the first row of the batch, and how many it has.
        kept: what `Chosen` says of each row that is kept, in the order of the rows.
        dropped, noted: number of a row → the rulings about it.
    """

    rows: RowBatch
    first: int
    count: int
    kept: NDArray[Any]
    dropped: dict[int, Ruling]
    noted: dict[int, list[Ruling]]

    def chosen(self) -> Iterator[Chosen]:
        lines = self.rows.lines()
        assert len(lines) == self.count, f"{len(lines)} rows where {self.count} were counted"
        for row, group, weight, ends, tokens in self.kept.tolist():
            line, ruling = lines[row - self.first], self.dropped.get(row)
            yield Chosen(row, line, ruling, self.noted.get(row, ()), group, weight, ends, tokens)


@dataclass
class RenderedBatch:
    examples: bytes
    columns: NDArray[Any]
    findings: dict[str, bytes]
    dropped: Counter[tuple[str, str]] = field(default_factory=Counter)
    noted: Counter[tuple[str, str]] = field(default_factory=Counter)


class RenderWorker:
    """The state of a worker process.

    Args:
        prompts: role → its prompt contract.
        tools: tool name → its newest definition, for tools that have several.
    """

    def __init__(
        self, base: Vocabulary, config: CurateConfig, prompts: Mapping[str, RolePrompt], tools: Mapping[str, Any]
    ) -> None:
        self.renderer = Renderer(base)
        self.config, self.prompts, self.tools = config, prompts, tools


class _Dropped(Exception):
    def __init__(self, rule: str, reason: Reason) -> None:
        self.rule, self.reason = rule, reason


def render(worker: RenderWorker, batch: ChosenBatch) -> RenderedBatch:
    """Renders the remaining rows as examples, and records findings about the others."""
    examples: list[bytes] = []
    columns: list[tuple[int, int]] = []
    dropped: list[Finding] = []
    noted: list[Finding] = []
    for chosen in batch.chosen():
        row = Interaction.model_validate_json(chosen.line)
        noted += [finding_of(row, rule, "noted", _reason(found, row)) for rule, found in chosen.noted]
        try:
            if chosen.dropped:
                rule, found = chosen.dropped
                raise _Dropped(rule, _reason(found, row))
            example, mended = _example(worker, row, chosen)
        except _Dropped as drop:
            dropped.append(finding_of(row, drop.rule, "dropped", drop.reason))
            continue
        noted += [finding_of(row, rule, "mended", reason) for rule, reason in mended]
        examples.append(row_bytes(example))
        columns.append((chosen.row, example.prompt_tokens + example.answer_tokens))
    return RenderedBatch(
        b"".join(examples),
        np.array(columns, dtype=EXAMPLE),
        {"dropped": b"".join(map(row_bytes, dropped)), "noted": b"".join(map(row_bytes, noted))},
        Counter((one.rule, one.role) for one in dropped),
        Counter((one.rule, one.role) for one in noted),
    )


def _reason(found: Reason | Trigger, row: Interaction) -> Reason:
    return found.in_row(row) if isinstance(found, Trigger) else found


def _example(worker: RenderWorker, row: Interaction, chosen: Chosen) -> tuple[Example, list[tuple[str, Reason]]]:
    config = worker.config
    mended: list[tuple[str, Reason]] = []
    system, turns = logged, asked = split_system(row.messages)
    prompt = worker.prompts.get(row.role)
    if prompt is None or prompt.kind == "fixed":
        own, system = system, [] if prompt is None else [Message(role="system", content=prompt.text)]
        if own != system and system_text(own) != system_text(system):
            mended.append(("system_prompt", why.OtherPrompt()))
    answer = row.output or ""
    if config.rules.action("reasoning") == "strip" and any(
        map(reasoning.may_hold, [answer, *(turn.content for turn in turns)])
    ):
        marks = reasoning.markers(turn.content for turn in row.messages if turn.role in ("system", "user"))
        answer = reasoning.stripped(answer, marks)
        turns, thought = _without_thoughts(turns, marks)
        if thought:
            mended.append(("reasoning", why.EarlierReasoning(thought)))
    tools, outdated = _newest(row, worker)
    if outdated:
        mended.append(("schema_drift", why.OutdatedTools(", ".join(outdated))))
    # The first pass checked the row as logged: what is unchanged needs no second look.
    control, unchanged = worker.renderer.control, tools is row.tools and turns is asked and answer is row.output
    if found := (
        (None if system is logged else control.find_in_row(system, "", [], []))
        if unchanged
        else control.find_in_row([*system, *turns], answer, row.output_calls, tools)
    ):
        raise _Dropped("control_tokens", why.ControlToken(*found.shown()))
    try:
        answer_text = worker.renderer.answer_text([*system, *turns], answer, row.output_calls, tools)
        counted = chosen.output_tokens if answer_text == row.output else worker.renderer.count(answer_text)
        answer_tokens = counted + chosen.ends
        while True:
            prompt_tokens = worker.renderer.prompt_tokens([*system, *turns], tools)
            if prompt_tokens + answer_tokens <= config.max_length:
                break
            shorter = _without_oldest(turns) if config.rules.action("too_long") == "cut" else None
            if shorter is None:
                raise _Dropped("too_long", why.TooLong(prompt_tokens + answer_tokens, config.max_length))
            turns = shorter
    except InputError as error:
        raise _Dropped("template", why.TemplateRefuses(error.what)) from error
    removed = len(split_system(row.messages)[1]) - len(turns)
    if removed:
        mended.append(("too_long", why.TurnsRemoved(removed)))
    example = Example(
        id=row.id,
        log_id=row.log_id,
        role=row.role,
        messages=[*system, *turns],
        answer=answer,
        answer_calls=row.output_calls,
        tools=tools,
        group=f"task-{chosen.group}",
        prompt_tokens=prompt_tokens,
        answer_tokens=answer_tokens,
        ends=chosen.ends,
        weight=chosen.weight,
        duration_ms=row.duration_ms,
        check=row.check,
    )
    return example, mended


def _without_thoughts(turns: list[Message], marks: Sequence[tuple[str, str]]) -> tuple[list[Message], int]:
    """The history as it will be served, with reasoning removed from its answers."""
    bare = [
        turn.model_copy(update={"content": reasoning.stripped(turn.content, marks)})
        if turn.role == "assistant"
        else turn
        for turn in turns
    ]
    return bare, sum(new.content != old.content for new, old in zip(bare, turns, strict=True))


def _without_oldest(turns: list[Message]) -> list[Message] | None:
    """Removes the turns before the second user turn, so that a conversation starts with a question and no tool result
    loses its call."""
    starts = [place for place, turn in enumerate(turns) if turn.role == "user"]
    return turns[starts[1] :] if len(starts) > 1 else None


def _newest(row: Interaction, worker: RenderWorker) -> tuple[list[dict[str, Any]], list[str]]:
    """Returns the tools with outdated definitions replaced; raises _Dropped if a call does not match the newest one."""
    if not worker.tools or worker.config.rules.action("schema_drift") != "drop":
        return row.tools, []
    tools, outdated = [], []
    for tool in row.tools:
        newest = worker.tools.get(tool_name(tool), tool)
        if newest != tool:
            outdated.append(tool_name(tool))
        tools.append(newest)
    calls = [*row.output_calls, *(call for turn in row.messages for call in turn.tool_calls)]
    for call in calls:
        if call.name in worker.tools and not _fits(call, worker.tools[call.name]):
            raise _Dropped("schema_drift", why.UnfitCall(call.name))
    return tools, outdated


def _fits(call: ToolCall, tool: Mapping[str, Any]) -> bool:
    function = tool.get("function")
    schema = function.get("parameters") if isinstance(function, dict) else None
    if not isinstance(schema, dict):
        return True
    validator = _validator(json.dumps(schema, sort_keys=True))
    properties = schema.get("properties")
    if isinstance(properties, dict) and isinstance(call.arguments, dict) and set(call.arguments) - set(properties):
        return False
    return validator is None or bool(validator.is_valid(call.arguments))


@cache
def _validator(schema: str) -> Any:
    try:
        kind = jsonschema.validators.validator_for(json.loads(schema))
        kind.check_schema(json.loads(schema))
        return kind(json.loads(schema))
    except jsonschema.SchemaError:
        return None
