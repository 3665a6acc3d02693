"""The engine's answers as clients see them: with the role as the model's name, and nothing about this machine."""

from __future__ import annotations

from typing import Any

from journeyman.redaction.redactor import Conversation

STOPPED_BY = "stopped_by"
_SHOWN = ("id", "object", "created", "choices", "usage", "timings")


def named(answer: dict[str, Any], role: str, seen: Conversation) -> dict[str, Any]:
    """An answer or a chunk of a stream with the role as its model, and reasoning as `reasoning_content`.

    With the text of `stop` that ended it as STOPPED_BY, if llama.cpp was asked to say so (`verbose`) or vLLM says it.
    """
    shown = {key: answer[key] for key in _SHOWN if key in answer}
    shown |= {"model": role, "system_fingerprint": None}
    choices = answer.get("choices")
    if choices:
        shown["choices"] = [_with_reasoning(choice) for choice in choices]
    words = [(answer.get("__verbose") or {}).get("stopping_word")]
    words += [choice.get("stop_reason") for choice in choices or ()]
    stopped = next((word for word in words if word and isinstance(word, str)), None)
    if stopped:
        shown[STOPPED_BY] = seen.restore(stopped)
    return shown


def _with_reasoning(choice: dict[str, Any]) -> dict[str, Any]:
    """The choice with reasoning in the field in which llama.cpp writes it; newer versions of vLLM call it `reasoning`,
    and some send both."""
    for name in ("message", "delta"):
        said = choice.get(name)
        if said and "reasoning" in said:
            kept = {key: value for key, value in said.items() if key != "reasoning"}
            thought = kept.get("reasoning_content") or said["reasoning"]
            return {**choice, name: {**kept, "reasoning_content": thought} if thought else kept}
    return choice
