"""The arms that need more than a prompt: the teacher's logged answers, and the base with training rows before it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from journeyman.artifacts import read_rows
from journeyman.config import EvaluateConfig
from journeyman.records import Example, Message, Prediction
from journeyman.rendering.renderer import Renderer


def teacher_predictions(rows: Sequence[Example]) -> list[Prediction]:
    """What the logs hold, judged as the others are. Its time is what was logged, where it was."""
    return [
        Prediction(
            id=row.id,
            role=row.role,
            arm="teacher",
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
    """Role → turns of its first training rows that leave room for the longest test row in the context."""
    shown: dict[str, list[Message]] = {}
    longest = Counter[str]()
    for row in rows:
        longest[row.role] = max(longest[row.role], row.prompt_tokens)
    for row in read_rows(train_rows, Example):
        turns = shown.setdefault(row.role, [])
        plain = [turn for turn in row.messages if turn.role != "system"]
        if len(turns) >= 2 * config.few_shot or len(plain) != 1 or row.answer_calls or not row.ends:
            continue
        more = [*turns, plain[0], Message(role="assistant", content=row.answer)]
        if renderer.prompt_tokens(more) + longest[row.role] + config.max_new_tokens <= config.context:
            shown[row.role] = more
    return {role: turns for role, turns in shown.items() if turns}


def with_turns(messages: Sequence[Message], shown: Sequence[Message]) -> list[Message]:
    system = [turn for turn in messages if turn.role == "system"]
    return [*system, *shown, *(turn for turn in messages if turn.role != "system")]
