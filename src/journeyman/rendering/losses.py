"""What a chat template leaves out of a conversation. Only reasoning in earlier answers may be."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from journeyman import reasoning

_LEAST_COUNTED = 20
"""If several turns share a text longer than this, its occurrences are counted; shorter ones may occur by chance."""
_SWITCHES = ("/no_think", "/think")
"""Words in a system prompt that some templates (SmolLM3's) read as a switch and take out."""


def lost_turn(prompt: str, turns: Sequence[tuple[str, str]], source: str = "") -> int | None:
    """The first turn whose text is not in the prompt, or less often than in the conversation; None if there is none.

    Args:
        turns: (role, text) of each.
        source: the template, which tells whether it knows switches.
    """
    contents = [text.strip() for _, text in turns]
    if len(set(contents)) == len(contents) and all(map(prompt.__contains__, contents)):  # most conversations
        return None
    shown = [_shown(prompt, role, text, source) for (role, _), text in zip(turns, contents, strict=True)]
    if None in shown:
        return shown.index(None)
    for text, times in Counter(shown).items():
        assert text is not None
        if times > 1 and len(text) > _LEAST_COUNTED and prompt.count(text) < times:
            return len(shown) - 1 - shown[::-1].index(text)
    return None


def _shown(prompt: str, role: str, text: str, source: str) -> str | None:
    """The turn's text in the form that is in the prompt; None if none is."""
    if text in prompt:
        return text
    if (escaped := json.dumps(text, ensure_ascii=False)[1:-1]) in prompt:
        return escaped
    if role == "assistant":
        without = reasoning.stripped(text).strip()
    elif role == "system":
        without = text
        for word in _SWITCHES:
            if word in source:
                without = without.replace(word, "").strip()
    else:
        return None
    return without if without != text and without in prompt else None


def lost_tool(prompt: str, names: Sequence[str]) -> str | None:
    """The first name of an offered or called tool that is not in the prompt; None if all are."""
    return next((name for name in names if name not in prompt), None)


def turns_of(messages: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """(role, text) of each message in a request."""
    return [(str(turn["role"]), str(turn["content"])) for turn in messages]
