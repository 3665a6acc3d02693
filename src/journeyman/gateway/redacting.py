"""Secrets and personal data of an exchange replaced by placeholders, in the order that `ingest` has.

A value gets the placeholder that `serve` will give it: the turns come first, the system prompt after them and with
numbers of its own (redaction/redactor.py).
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from journeyman.redaction.redactor import Redactor
from journeyman.sources.fields import decoded, mapping

_SYSTEM = ("system", "developer")
_ENCODED = ("arguments", "partial_json")
_LEAST_KEY = 6
KEY = "<KEY>"


def without_keys(value: Any, keys: Sequence[str]) -> Any:
    """A JSON value in which the client's own keys are replaced, wherever they stand."""
    keys = sorted((key for key in keys if len(key) >= _LEAST_KEY), key=len, reverse=True)
    if not keys or value is None:
        return value
    if isinstance(value, str):
        for key in keys:
            value = value.replace(key, KEY)
        return value
    if isinstance(value, list):
        return [without_keys(one, keys) for one in value]
    if isinstance(value, dict):
        return {without_keys(name, keys): without_keys(one, keys) for name, one in value.items()}
    return value


def conversation_without_keys(conversation: str, keys: Sequence[str]) -> str:
    """A conversation's id, or its hash if it is a key, as a session's cookie may be both: it stays one of its own."""
    if without_keys(conversation, keys) == conversation:
        return conversation
    return "key-" + hashlib.sha256(conversation.encode("utf-8", "surrogatepass")).hexdigest()[:24]


class Redacted:
    """One exchange.

    Attributes:
        counts: how many values of each kind were replaced.
    """

    def __init__(self, redactor: Redactor) -> None:
        self._redactor, self._seen = redactor, redactor.conversation()

    @property
    def counts(self) -> Counter[str]:
        return self._seen.counts

    def text(self, text: str) -> str:
        return self._seen.text(text)

    def name(self, name: str) -> str:
        """An id, which stays an id if it is personal itself."""
        return self._redactor.pseudonym(name) or ""

    def exchange(self, request: Any, response: Any) -> tuple[Any, Any]:
        """Request and response with placeholders."""
        for value in (request, response):
            if value is not None:
                self._seen.reserve(json.dumps(value, ensure_ascii=False))
        return self._request(request), self._value(response)

    def value(self, value: Any) -> Any:
        """Another value of the exchange, with the same placeholders."""
        return self._value(value)

    def _request(self, request: Any) -> Any:
        if not isinstance(request, dict):
            return self._value(request)
        made: dict[str, Any] = {}
        listed = next((name for name in ("messages", "input") if isinstance(request.get(name), list)), "")
        turns = request.get(listed, [])
        first = {i: self._value(one) for i, one in enumerate(turns) if mapping(one).get("role") not in _SYSTEM}
        if isinstance(request.get("input"), str):
            made["input"] = self._value(request["input"])
        for name in ("system", "instructions"):
            if name in request:
                made[name] = self._value(request[name], system=True)
        if listed:
            made[listed] = [first[i] if i in first else self._value(one, system=True) for i, one in enumerate(turns)]
        if "tools" in request:
            made["tools"] = self._value(request["tools"])
        return {self.text(name): made[name] if name in made else self._value(one) for name, one in request.items()}

    def _value(self, value: Any, *, system: bool = False) -> Any:
        if isinstance(value, str):
            return self._seen.text(value, system=system)
        if isinstance(value, list):
            return [self._value(one, system=system) for one in value]
        if isinstance(value, dict):
            return {self._seen.text(name): self._field(name, one, system) for name, one in value.items()}
        return value

    def _field(self, name: str, value: Any, system: bool) -> Any:
        """A field; in text that is JSON, escapes would hide the beginning of a value."""
        if name in _ENCODED and isinstance(value, str):
            inner = decoded(value)
            if isinstance(inner, dict | list):
                made = self._value(inner, system=system)
                return value if made == inner else json.dumps(made, ensure_ascii=False)
        return self._value(value, system=system)
