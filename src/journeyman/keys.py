"""Keys of endpoints: read from the environment, sent in one header, and kept out of all output."""

from __future__ import annotations

import os

from journeyman.errors import UsageError
from journeyman.foreign import plain

_HIDDEN = "[key]"
_REVEALING = 8
"""This many consecutive characters of a key count as revealing it."""


def key_of(variable: str) -> str | None:
    """The key in an environment variable; None if it is not set.

    Raises:
        UsageError: a header cannot contain it. The message does not quote it.
    """
    key = os.environ.get(variable, "").strip() if variable else ""
    if not (key.isascii() and key.isprintable()):
        raise UsageError(f"${variable} is not a key: it has characters that a header cannot contain", "Set it again")
    return key or None


def bearer(key: str | None) -> dict[str, str]:
    """The header with the key."""
    return {"Authorization": f"Bearer {key}"} if key else {}


def said_by_server(text: str, key: str | None, limit: int) -> str:
    """A server's message as one line that is safe to show: without the key or parts of it."""
    if key:
        text = text.replace(key, _HIDDEN)
        for start in range(len(key) - _REVEALING + 1):
            text = text.replace(key[start : start + _REVEALING], _HIDDEN)
    return plain(text, limit)
