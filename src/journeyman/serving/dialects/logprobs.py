"""Log probabilities of tokens: the engine gives none unless it is asked for at least one alternative to each token."""

from __future__ import annotations

from typing import Any


def logprob_options(alternatives: int) -> dict[str, Any]:
    """The engine's options for log probabilities with so many alternatives to each token, which may be none."""
    return {"logprobs": True, "top_logprobs": max(1, alternatives)}


def with_alternatives(event: dict[str, Any], most: int) -> dict[str, Any]:
    """An answer or a chunk with no more alternatives to each token than the client asked for."""
    choices = event.get("choices") or ()
    if not any(choice.get("logprobs") for choice in choices):
        return event
    return {**event, "choices": [_cut(choice, most) for choice in choices]}


def _cut(choice: dict[str, Any], most: int) -> dict[str, Any]:
    given = choice.get("logprobs")
    if not given or not given.get("content"):
        return choice
    content = [
        {**one, "top_logprobs": one["top_logprobs"][:most]} if one.get("top_logprobs") else one
        for one in given["content"]
    ]
    return {**choice, "logprobs": {**given, "content": content}}
