"""Which role and which conversation a request belongs to: the rules of [record], and the headers that say it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from journeyman.config import RoleRule
from journeyman.sources.fields import mapping

UNKNOWN = "agent"
FEEDBACK = "/v1/feedback"
"""Where clients say how an exchange or a conversation ended; such a request is recorded and not passed on."""
CONVERSATION_HEADERS = (
    "journeyman-conversation", "x-claude-code-session-id", "x-session-id", "x-litellm-session-id",
)  # fmt: skip
_TRACE = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")
_BAGGAGE = re.compile(r"(?:^|,)\s*gen_ai\.conversation\.id\s*=\s*([^,;\s]+)")


@dataclass(frozen=True)
class Facts:
    """What a rule can look at.

    Attributes:
        headers: names in lower case.
        key: the name of the port's key that was sent.
        key_hash: SHA-256 of the key for the upstream, in hex.
    """

    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    key: str = ""
    key_hash: str = ""
    request: Mapping[str, Any] = field(default_factory=dict)

    @property
    def model(self) -> str:
        named = self.request.get("model")
        return named if isinstance(named, str) else ""

    @property
    def system(self) -> str:
        """The system prompt: Anthropic's `system`, Responses' `instructions`, the first turns of a chat."""
        return "\n".join(text for text in map(_text, system_parts(self.request)) if text)


def system_parts(request: Mapping[str, Any]) -> list[Any]:
    """The contents of the system prompt, in any of the three dialects."""
    found = [request[name] for name in ("system", "instructions") if request.get(name)]
    for turn in _turns(request):
        if turn.get("role") not in ("system", "developer"):
            break
        found.append(turn.get("content"))
    return found


def _turns(request: Mapping[str, Any]) -> list[dict[str, Any]]:
    turns = request.get("messages", request.get("input"))
    return [mapping(one) for one in turns] if isinstance(turns, list) else []


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "".join(text for part in parts if isinstance(text := mapping(part).get("text"), str))


def first_question(request: Mapping[str, Any]) -> str:
    """The first turn of the user."""
    if isinstance(asked := request.get("input", request.get("prompt")), str):
        return asked
    return next((_text(turn.get("content")) for turn in _turns(request) if turn.get("role") == "user"), "")


def role_of(facts: Facts, rules: Sequence[RoleRule]) -> str:
    """The role of the first rule that matches, else the model's name."""
    return next((rule.role for rule in rules if _matches(facts, rule)), "") or facts.model or UNKNOWN


def _matches(facts: Facts, rule: RoleRule) -> bool:
    name, _, value = rule.header.partition(":")
    return (
        (not rule.path or fnmatchcase(facts.path, rule.path))
        and (not rule.model or fnmatchcase(facts.model, rule.model))
        and (not rule.key or facts.key == rule.key or (len(rule.key) >= 8 and facts.key_hash.startswith(rule.key)))
        and (not rule.header or _header_matches(facts.headers.get(name.strip().lower()), value.strip()))
        and (not rule.system or re.search(rule.system, facts.system) is not None)
    )


def _header_matches(sent: str | None, wanted: str) -> bool:
    return sent is not None and fnmatchcase(sent, wanted or "*")


def conversation_of(facts: Facts) -> str:
    """The conversation's id: from the first header that names it, else a hash of its beginning, else "".

    Feedback names the one that it is about in its body.
    """
    if facts.path == FEEDBACK:
        named = facts.request.get("conversation")
        return named if isinstance(named, str) else ""
    for name in CONVERSATION_HEADERS:
        if facts.headers.get(name):
            return facts.headers[name]
    if told := _BAGGAGE.search(facts.headers.get("baggage", "")):
        return told[1]
    if trace := _TRACE.fullmatch(facts.headers.get("traceparent", "").strip().lower()):
        return trace[1]
    asked = first_question(facts.request)
    if not asked:
        return ""
    return "begins-" + hashlib.sha256(f"{facts.system}\0{asked}".encode("utf-8", "replace")).hexdigest()[:24]
