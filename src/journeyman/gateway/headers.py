"""Which headers are passed on, and which are written."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence

from multidict import CIMultiDict

from journeyman.config import SECRET_HEADERS, RoleRule
from journeyman.gateway.bodies import CODINGS
from journeyman.gateway.roles import CONVERSATION_HEADERS

RawHeaders = Sequence[tuple[bytes, bytes]]
KEY_HEADER = "Journeyman-Key"
"""The port's own key, next to which a client sends the upstream's."""
_HOP = frozenset(
    ("connection", "keep-alive", "proxy-connection", "proxy-authenticate", "proxy-authorization", "te", "trailer",
     "transfer-encoding", "upgrade")
)  # fmt: skip
"""Headers of one connection (RFC 9110, section 7.6.1)."""
_OURS = frozenset(("host", "content-length", "expect", "journeyman-key", "journeyman-conversation"))
_WRITTEN = frozenset(
    ("content-type", "user-agent", "anthropic-version", "anthropic-beta", "openai-beta", "openai-organization",
     "openai-project", "traceparent", "baggage", *CONVERSATION_HEADERS)
)  # fmt: skip
_DIGITS = 16


def for_upstream(raw: RawHeaders) -> CIMultiDict[str]:
    """The request's headers as they are passed on. Codings that a row could not be read from are not offered."""
    sent = _without(raw, _HOP | _OURS)
    if offered := sent.popall("Accept-Encoding", None):
        codings = [one.strip() for one in ",".join(offered).split(",")]
        sent["Accept-Encoding"] = ", ".join(one for one in codings if _coding(one) in CODINGS) or "identity"
    return sent


def for_client(raw: RawHeaders) -> CIMultiDict[str]:
    """The answer's headers as they are passed on."""
    return _without(raw, _HOP)


def _without(raw: RawHeaders, dropped: frozenset[str]) -> CIMultiDict[str]:
    """The headers, written as they were sent, without these and those that Connection names."""
    pairs = [(name.decode("latin-1"), value.decode("utf-8", "surrogateescape")) for name, value in raw]
    for name, value in pairs:
        if name.lower() == "connection":
            dropped |= {one.strip().lower() for one in value.split(",")}
    return CIMultiDict(pair for pair in pairs if pair[0].lower() not in dropped)


def _coding(offered: str) -> str:
    return offered.partition(";")[0].strip().lower()


def written(rules: Iterable[RoleRule]) -> frozenset[str]:
    """The request headers whose values rows may have: a few that are known, and those of the rules."""
    return (_WRITTEN | {rule.header.partition(":")[0].strip().lower() for rule in rules} - {""}) - SECRET_HEADERS


def keys_in(headers: Mapping[str, str]) -> tuple[str, ...]:
    """The client's keys, wherever clients put them."""
    found = [value for name in SECRET_HEADERS if (value := headers.get(name))]
    return tuple(value.partition(" ")[2].strip() or value for value in found)


def key_hash(headers: Mapping[str, str]) -> str:
    """The beginning of the SHA-256 of the upstream's key, by which rules recognize it; "" if there is none."""
    named = ("authorization", "x-api-key", "api-key", "x-goog-api-key")
    sent = next((value for name in named if (value := headers.get(name))), "")
    key = sent.partition(" ")[2].strip() or sent
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()[:_DIGITS] if key else ""
