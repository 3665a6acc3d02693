"""The arms of an evaluation, their questions, and the teacher's logged answers."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from journeyman.artifacts import read_rows
from journeyman.config import EvaluateConfig
from journeyman.protocols import Question
from journeyman.records import BASE, FEW_SHOT, TEACHER, TUNED, Example, Message, Prediction, system_text
from journeyman.rendering.renderer import Renderer

SERVER = f"{TUNED}@server"
"""The arm with the adapters on a server, if files may ship as well."""


def arm_of_file(base: Path, first: Path) -> str:
    """The name of the arm with the adapter on `base`: "tuned" for the first of the files that may ship."""
    return TUNED if base == first else f"{TUNED}@{base.name.removesuffix('.gguf')}"


def arm_of_merged(kind: str) -> str:
    """The name of the arm of a file with the adapter merged into weights of this format."""
    return f"{TUNED}@merged-{kind}"


def questions(
    arm: str,
    rows: Sequence[Example],
    adapter_of: Callable[[str], str | None],
    config: EvaluateConfig,
    shown: Mapping[str, list[Message]],
) -> list[Question]:
    """The rows as questions for an arm that may ship, or for the base.

    Args:
        adapter_of: role → the name of the adapter that answers for it; None: the base.
        shown: role → turns that the few-shot arm puts before the question; it skips roles without any.
    """
    tuned = arm.partition("@")[0] == TUNED
    return [
        Question(
            row_id=row.id,
            role=row.role,
            arm=arm,
            messages=_with_turns(row.messages, shown[row.role]) if arm == FEW_SHOT else row.messages,
            max_tokens=config.max_new_tokens,
            tools=row.tools,
            adapter=adapter_of(row.role) if tuned else None,
        )
        for row in rows
        if arm != FEW_SHOT or row.role in shown
    ]


def endpoint_questions(arm: str, rows: Sequence[Example], config: EvaluateConfig) -> list[Question]:
    """The rows of an endpoint's roles as questions for it."""
    roles = config.endpoints[arm].roles
    return [
        Question(row.id, row.role, arm, row.messages, config.max_new_tokens, row.tools)
        for row in rows
        if not roles or row.role in roles
    ]


def timed_rows(rows: Sequence[Example], most: int) -> list[Example]:
    """Up to `most` rows of each role, chosen by the hash of their ids, and so the same for every arm and adapter."""
    by_role: dict[str, list[Example]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: hashlib.sha256(row.id.encode()).digest()):
        if len(by_role[row.role]) < most:
            by_role[row.role].append(row)
    return [row for chosen in by_role.values() for row in chosen]


def teacher_predictions(rows: Sequence[Example]) -> list[Prediction]:
    """The logged answers, to be scored like those of other arms. Their latency is the logged one, if any."""
    return [
        Prediction(
            id=row.id,
            role=row.role,
            arm=TEACHER,
            text=row.answer,
            calls=row.answer_calls,
            finish_reason=("tool_calls" if row.answer_calls else "stop") if row.ends else "length",
            latency_s=row.duration_ms / 1000 if row.duration_ms is not None else None,
            first_token_s=None,
            prompt_tokens=row.prompt_tokens,
            answer_tokens=row.answer_tokens,
        )
        for row in rows
    ]


def few_shot_turns(
    train_rows: Path, rows: Sequence[Example], config: EvaluateConfig, renderer: Renderer
) -> dict[str, list[Message]]:
    """Role → turns of its first training rows that leave room for the longest test row in the context.

    A role whose rows have different system prompts gets none: an example would appear under another row's prompt.
    """
    shown: dict[str, list[Message]] = {}
    systems: dict[str, set[str]] = defaultdict(set)
    longest = Counter[str]()
    for row in rows:
        longest[row.role] = max(longest[row.role], row.prompt_tokens)
        systems[row.role].add(system_text(row.messages))
    for row in read_rows(train_rows, Example):
        turns = shown.setdefault(row.role, [])
        systems[row.role].add(system_text(row.messages))
        plain = [turn for turn in row.messages if turn.role != "system"]
        if len(turns) >= 2 * config.few_shot or len(plain) != 1 or row.answer_calls or not row.ends:
            continue
        more = [*turns, plain[0], Message(role="assistant", content=row.answer)]
        if renderer.prompt_tokens(more) + longest[row.role] + config.max_new_tokens <= config.context:
            shown[row.role] = more
    return {role: turns for role, turns in shown.items() if turns and len(systems[role]) <= 1}


def arms_of_base(shown: Mapping[str, list[Message]]) -> list[str]:
    """The arms of the first of the files that may ship."""
    return [BASE, *([FEW_SHOT] if shown else []), TUNED]


def _with_turns(messages: Sequence[Message], shown: Sequence[Message]) -> list[Message]:
    system = [turn for turn in messages if turn.role == "system"]
    return [*system, *shown, *(turn for turn in messages if turn.role != "system")]
