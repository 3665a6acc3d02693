"""What is wrong with a single row: one function a rule, pure, in the order in which they are asked.

A rule gives None where the row may stay, or one sentence that says why not.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from journeyman.config import CurateConfig
from journeyman.records import Interaction

Rule = Callable[[Interaction, CurateConfig], str | None]

_THINK_OPEN, _THINK_CLOSE = "<think>", "</think>"


def failed(row: Interaction, config: CurateConfig) -> str | None:
    if row.succeeded:
        return None
    return f"the log says so: {row.errors[0][:120]}" if row.errors else "the log's status is not success"


def empty(row: Interaction, config: CurateConfig) -> str | None:
    return None if row.output and row.output.strip() else "no answer"


def mock_provider(row: Interaction, config: CurateConfig) -> str | None:
    return f"provider {row.provider!r}" if row.provider in config.drop_providers else None


def unclosed_reasoning(row: Interaction, config: CurateConfig) -> str | None:
    text = row.output or ""
    if text.rfind(_THINK_OPEN) > text.rfind(_THINK_CLOSE):
        return "a <think> block that never closes: there is no answer in it"
    return None


def reasoning(row: Interaction, config: CurateConfig) -> str | None:
    if config.reasoning == "drop" and _THINK_CLOSE in (row.output or ""):
        return "holds a <think> block, and curate.reasoning is 'drop'"
    return None


def truncated(row: Interaction, config: CurateConfig) -> str | None:
    if row.finish_reason in ("length", "max_tokens"):
        return f"finish reason {row.finish_reason!r}"
    if len(re.findall(r"^[ \t]*```", row.output or "", re.MULTILINE)) % 2:
        return "a code fence that never closes"
    return None


RULES: Sequence[Rule] = (failed, empty, mock_provider, unclosed_reasoning, reasoning, truncated)
"""Asked in this order; the first that speaks names the drop."""


def strip_reasoning(text: str) -> str:
    """The answer without its closed <think> blocks."""
    return re.sub(r"<think>.*?</think>\s*", "", text, flags=re.DOTALL).strip() if _THINK_OPEN in text else text
