"""A new answer: what curate's rules say about it, and the row of a log that it becomes."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from journeyman.asking.choosing import Wanted
from journeyman.asking.teacher import REFUSED, UNREADABLE
from journeyman.config import Config, CurateConfig
from journeyman.curation.rules import (
    Candidate,
    asks_back,
    control_tokens,
    empty,
    hidden_text,
    mock_provider,
    other_teacher,
    pipeline_instructions,
    refused,
    teacher_terms,
    truncated,
    unclosed_reasoning,
)
from journeyman.records import Interaction, Prediction
from journeyman.redaction.redactor import Redactor
from journeyman.rendering.renderer import Renderer
from journeyman.sources.fields import mapping

COMPLETE = "complete"
MARK = "asked_again"
"""The field of a row, and then of the interaction's `extra`, that says where it comes from."""
_OF_ANSWERS = (
    refused, empty, unclosed_reasoning, control_tokens, hidden_text, pipeline_instructions, asks_back, truncated,
)  # fmt: skip
_OF_TEACHERS = (mock_provider, other_teacher, teacher_terms)
_ABOUT_THE_QUESTION = ("task", "context", "agent", "llm")


def interaction_of(
    wanted: Wanted, answer: Prediction, model: str, url: str, at: str, redactor: Redactor
) -> Interaction:
    """The old row with the new answer, redacted as ingest does.

    It keeps the old row's time and session: it belongs where the question does, among groups and among times.
    """
    old = wanted.row
    said = answer.finish_reason
    mark = {"of": old.id, "why": wanted.rule, "old_model": old.teacher, "at": at, "model": model}
    return redactor.interaction(
        old.model_copy(
            update={
                "output": answer.text or None,
                "output_calls": list(answer.calls),
                "reasoning": None,
                "followed_by": None,
                "succeeded": None if said in (REFUSED, UNREADABLE) else True,
                "notes": [],
                "errors": [],
                "provider": provider_of(url),
                "model": model,
                "duration_ms": None if answer.latency_s is None else round(answer.latency_s * 1000, 1),
                "max_tokens": wanted.limit,
                "finish_reason": said,
                "extra": {**old.extra, MARK: mark},
            }
        )
    )


def provider_of(url: str) -> str:
    """The endpoint's host, as the provider of its rows."""
    return urlsplit(url).hostname or ""


def outcome_of(new: Interaction, config: CurateConfig, renderer: Renderer) -> str:
    """COMPLETE, the name of the rule that finds fault with the answer, REFUSED or UNREADABLE."""
    if new.finish_reason in (REFUSED, UNREADABLE):
        return new.finish_reason
    seen = Candidate(new, config, renderer)
    return next((rule.__name__ for rule in _OF_ANSWERS if rule(seen) is not None), COMPLETE)


def drops_teacher(row: Interaction, model: str, url: str, config: CurateConfig, renderer: Renderer) -> str | None:
    """The rule that would drop all answers of a teacher, whatever they are; None if none does."""
    seen = Candidate(row.model_copy(update={"provider": provider_of(url), "model": model}), config, renderer)
    asked = (rule for rule in _OF_TEACHERS if config.rules.action(rule.__name__) == "drop")
    return next((rule.__name__ for rule in asked if rule(seen) is not None), None)


def log_row(new: Interaction, question: str, config: Config) -> dict[str, Any]:
    """The row in journeyman's own format of logs (sources/interactions.py).

    Of the old row's other fields, only those about the question are kept: the others are about the old answer, and may
    look like another format. The field curate.group_by is kept too, and data.success_field is not.
    """
    kept = {*_ABOUT_THE_QUESTION, config.curate.group_by.partition(".")[0]}
    extra = {name: value for name, value in new.extra.items() if name in kept}
    if config.data.success_field:
        extra = _without(extra, config.data.success_field)
    row: dict[str, Any] = {
        **extra,
        "id": f"again-{question[:16]}",
        "timestamp": new.timestamp,
        "session_id": new.session,
        "agent": {**mapping(extra.get("agent")), "role": new.role},
        "llm": {
            **mapping(extra.get("llm")),
            "provider": new.provider,
            "model": new.model,
            "config": {"max_tokens": new.max_tokens},
        },
        "execution": {
            **mapping(extra.get("execution")),
            "status": "success",
            "duration_ms": new.duration_ms,
            "input_messages": [turn.as_openai() for turn in new.messages],
            "output": new.output,
            "finish_reason": new.finish_reason,
            "tool_calls": [call.as_openai() for call in new.output_calls] or None,
            "tools": new.tools or None,
            "errors": [],
        },
        "check": new.check or None,
        MARK: new.extra[MARK],
    }
    return {name: value for name, value in row.items() if value is not None}


def _without(value: dict[str, Any], path: str) -> dict[str, Any]:
    """The object without the field at a dotted path."""
    name, _, rest = path.partition(".")
    inner = value.get(name)
    if rest:
        return {**value, name: _without(inner, rest)} if isinstance(inner, dict) else value
    return {key: one for key, one in value.items() if key != name}
