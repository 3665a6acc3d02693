"""Keys of endpoints: read from the environment, sent in one header, and kept out of everything that is said."""

from __future__ import annotations

import os

from journeyman.errors import UsageError
from journeyman.foreign import plain

_HIDDEN = "[key]"
_TELLING = 8
"""So many characters of a key in a row tell something of it."""


def key_of(variable: str) -> str | None:
    """The key in an environment variable; None where there is none.

    Raises:
        UsageError: no header can carry what it holds. The message does not quote it.
    """
    key = os.environ.get(variable, "").strip() if variable else ""
    if not (key.isascii() and key.isprintable()):
        raise UsageError(f"${variable} holds no key: it has characters that no header can carry", "Set it again")
    return key or None


def bearer(key: str | None) -> dict[str, str]:
    """The header that carries it."""
    return {"Authorization": f"Bearer {key}"} if key else {}


def said_by_server(text: str, key: str | None, limit: int) -> str:
    """What a server said, as one line that is safe to show: without the key, and without pieces of it."""
    if key:
        text = text.replace(key, _HIDDEN)
        for start in range(len(key) - _TELLING + 1):
            text = text.replace(key[start : start + _TELLING], _HIDDEN)
    return plain(text, limit)
