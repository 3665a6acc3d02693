"""`POST /v1/feedback`: how an exchange or a conversation ended, from whoever knows it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

_FIELDS = frozenset(("exchange", "conversation", "role", "success", "score", "final", "comment"))


@dataclass(frozen=True)
class Feedback:
    """What a request said.

    Attributes:
        exchange: number of the exchange, as the header Journeyman-Exchange named it; None: about the conversation.
        conversation: its id as in the row, which may be a pseudonym; "" if an exchange is named.
        role: of the conversation; "": of every role that takes part in it.
        score: from 0, failed, to 1; None: nothing but that it has ended.
        final: the conversation is over.
    """

    exchange: int | None
    conversation: str
    role: str
    score: float | None
    final: bool


def feedback_fault(body: bytes) -> str:
    """What is wrong with the body of a request; "" if nothing is."""
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        return "the body is not JSON"
    if not isinstance(said, dict):
        return "the body is not a JSON object"
    if unknown := sorted(said.keys() - _FIELDS):
        return f"unknown field {unknown[0]!r}; fields: {', '.join(sorted(_FIELDS))}"
    exchange, conversation, score = said.get("exchange"), said.get("conversation"), said.get("score")
    if exchange is not None and (not isinstance(exchange, int) or isinstance(exchange, bool) or exchange < 1):
        return "exchange: not a number of an exchange (header Journeyman-Exchange)"
    if exchange is None and not (isinstance(conversation, str) and conversation):
        return "name the exchange (header Journeyman-Exchange) or the conversation"
    if not all(isinstance(said.get(name, kind()), kind) for name, kind in _TYPES.items()):
        return "success and final are true or false, role and comment are text"
    if score is not None and (not isinstance(score, int | float) or isinstance(score, bool) or not 0 <= score <= 1):
        return "score: not a number from 0 to 1"
    if score is None and "success" not in said and not said.get("final"):
        return "say how it went: success (true or false) or score (0 to 1); or final, that it is over"
    return ""


_TYPES: dict[str, type] = {"success": bool, "final": bool, "role": str, "comment": str}


def feedback_of(request: dict[str, Any], conversation: str) -> Feedback | None:
    """The feedback in a recorded request; None if it is none.

    Args:
        conversation: of the row.
    """
    if feedback_fault(json.dumps(request).encode()):
        return None
    score = request.get("score")
    if score is None and "success" in request:
        score = float(request["success"])
    return Feedback(
        request.get("exchange"), "" if request.get("exchange") else conversation, str(request.get("role", "")),
        None if score is None else float(score), bool(request.get("final", False)),
    )  # fmt: skip
