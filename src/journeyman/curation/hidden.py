"""Finds invisible characters, except those that flags, right-to-left text and scripts without spaces need."""

from __future__ import annotations

import re
import unicodedata

_HIDDEN = re.compile("[\u200b\u2060\ufeff\u202a-\u202e\u2066-\u2069\U000e0001-\U000e007f]")
_FLAG = re.compile("\U0001f3f4[\U000e0030-\U000e0039\U000e0061-\U000e007a]{1,6}\U000e007f")
"""The flag of a region: a black flag, its code in tag characters, and the end tag (Unicode Technical Standard 51)."""
_OVERRIDES = "\u202d\u202e"
_DIRECTIONS = "\u202a\u202b\u202c\u2066\u2067\u2068\u2069"
_NO_SPACES = ("THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN", "CJK", "HIRAGANA", "KATAKANA", "JAVANESE")
"""Scripts that mark possible line breaks with a zero-width space."""


def hidden_character(text: str) -> str | None:
    """The first character that hides something, or None."""
    if text.isascii() or not _HIDDEN.search(text):
        return None
    text = _FLAG.sub("", text).removeprefix("\ufeff")
    right_to_left = any(unicodedata.bidirectional(character) in ("R", "AL") for character in text)
    for found in _HIDDEN.finditer(text):
        character, place = found[0], found.start()
        if character in _DIRECTIONS and right_to_left and character not in _OVERRIDES:
            continue
        if character in "\u200b\u2060" and any(_unspaced(one) for one in text[max(0, place - 1) : place + 2]):
            continue
        return character
    return None


def _unspaced(character: str) -> bool:
    return unicodedata.name(character, "").startswith(_NO_SPACES)
