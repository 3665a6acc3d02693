"""Which headers are passed on, and which are written."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from urllib.parse import parse_qsl

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
_SECRET_PARAMETERS = frozenset(("key", "api_key", "api-key", "apikey", "access_token", "token"))
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


def keys_in(headers: Mapping[str, str], query: str = "") -> tuple[str, ...]:
    """The client's keys, wherever clients put them: the longest first, as one may be a part of another.

    Args:
        headers: those with several values occur several times.
        query: the query string as it was sent.
    """
    found = {value for name, value in parse_qsl(query, errors="replace") if name.lower() in _SECRET_PARAMETERS}
    for name, value in headers.items():
        if name.lower() == "cookie":
            pairs = [one.partition("=") for one in value.split(";")]
            found |= {(held if equals else first).strip().strip('"') for first, equals, held in pairs}
        elif name.lower() in SECRET_HEADERS:
            found |= {value, value.partition(" ")[2].strip()}
    return tuple(sorted(found - {""}, key=lambda key: (-len(key), key)))


def key_hash(headers: Mapping[str, str]) -> str:
    """The beginning of the SHA-256 of the upstream's key, by which rules recognize it; "" if there is none."""
    named = ("authorization", "x-api-key", "api-key", "x-goog-api-key")
    sent = next((value for name in named if (value := headers.get(name))), "")
    key = sent.partition(" ")[2].strip() or sent
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()[:_DIGITS] if key else ""
