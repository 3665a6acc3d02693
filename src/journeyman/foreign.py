"""Text that comes from logs, models and requests, made safe for the place where it is shown."""

from __future__ import annotations

import unicodedata

_ACTING = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}
"""Unicode categories that a terminal or an editor acts on: controls, direction marks, surrogates, line separators."""


def plain(text: str, limit: int | None = None) -> str:
    r"""One line that no terminal acts on: controls, direction marks and surrogates become escapes such as `\x1b`.

    Args:
        limit: characters to keep; what is cut is marked by "…".
    """
    if limit is not None and len(text) > limit:
        text = text[: limit - 1] + "…"
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escaped(sign) if unicodedata.category(sign) in _ACTING else sign for sign in text)


def _escaped(sign: str) -> str:
    return sign.encode("unicode_escape").decode("ascii")
