"""Answers in the form of the Responses API: the response object and its output items."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from journeyman.serving.dialects.dialect import new_id
from journeyman.serving.dialects.pieces import CALL, REASONING, Piece, Usage
from journeyman.serving.requests import Asked

_ECHOED: Mapping[str, Any] = {
    "instructions": None, "max_output_tokens": None, "max_tool_calls": None, "metadata": {},
    "parallel_tool_calls": True, "reasoning": {"effort": None, "summary": None}, "temperature": None,
    "text": {"format": {"type": "text"}}, "tool_choice": "auto", "tools": [], "top_logprobs": 0, "top_p": None,
    "user": None,
}  # fmt: skip
"""Fields of the request that the response repeats, with their values if they were not sent."""


@dataclass(frozen=True)
class Head:
    """What is known of a response before its first token."""

    fields: Mapping[str, Any]
    id: str = field(default_factory=lambda: new_id("resp_"))
    created_at: int = field(default_factory=lambda: int(time.time()))

    @classmethod
    def of(cls, asked: Asked) -> Head:
        return cls({"model": asked.role, **{name: asked.given.get(name, one) for name, one in _ECHOED.items()}})

    def response(self, status: str, output: Sequence[Mapping[str, Any]] = (), **changes: Any) -> dict[str, Any]:
        """The response object."""
        return {
            "id": self.id, "object": "response", "created_at": self.created_at, "status": status, "background": False,
            "error": None, "incomplete_details": None, **self.fields, "output": list(output),
            "previous_response_id": None, "service_tier": "default", "store": False, "truncation": "disabled",
            "usage": None, **changes,
        }  # fmt: skip


def ended(head: Head, items: Sequence[Mapping[str, Any]], finish_reason: Any, usage: Usage | None) -> dict[str, Any]:
    """The response object of a complete answer, or of one that reached its limit of tokens."""
    counts = None if usage is None else usage_object(usage)
    if finish_reason == "length":
        details = {"reason": "max_output_tokens"}
        return head.response("incomplete", items, incomplete_details=details, usage=counts)
    return head.response("completed", items, usage=counts)


def usage_object(usage: Usage) -> dict[str, Any]:
    """The token counts. The engine does not count the tokens of its reasoning apart."""
    return {
        "input_tokens": usage.prompt,
        "input_tokens_details": {"cached_tokens": usage.cached},
        "output_tokens": usage.answer,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.prompt + usage.answer,
    }


def item_of(piece: Piece, make_id: Callable[[str], str], *, complete: bool, status: str = "") -> dict[str, Any]:
    """A part of an answer as an output item.

    Args:
        make_id: makes the item's id from a prefix.
        complete: False if the answer was cut off by its limit.
        status: instead of the one that follows from `complete`.
    """
    status = status or ("completed" if complete else "incomplete")
    if piece.kind == CALL:
        return {
            "id": make_id("fc_"), "type": "function_call", "status": status,
            "call_id": piece.call_id or new_id("call_"), "name": piece.name, "arguments": piece.text,
        }  # fmt: skip
    if piece.kind == REASONING:
        content = [{"type": "reasoning_text", "text": piece.text}] if piece.text else []
        return {"id": make_id("rs_"), "type": "reasoning", "status": status, "summary": [], "content": content}
    content = [text_part(piece)] if piece.text else []
    return {"id": make_id("msg_"), "type": "message", "status": status, "role": "assistant", "content": content}


def text_part(piece: Piece) -> dict[str, Any]:
    """The text of a message."""
    return {"type": "output_text", "text": piece.text, "annotations": [], "logprobs": logprobs_of(piece)}


def logprobs_of(piece: Piece) -> list[dict[str, Any]]:
    """The log probabilities of a text's tokens, without fields of the engine's own."""
    return [{**_token(one), "top_logprobs": list(map(_token, one.get("top_logprobs", [])))} for one in piece.logprobs]


def _token(one: Mapping[str, Any]) -> dict[str, Any]:
    return {name: one.get(name) for name in ("token", "logprob", "bytes")}
