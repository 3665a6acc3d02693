"""Texts that mark turns but are not tokens, such as `[/INST]` in Llama 2's format: no message may contain them.

Between the user's text and the answer, most templates write a control token, which no message can contain. A template
that writes ordinary text there would let a message forge the end of its turn.
"""

from __future__ import annotations

from collections.abc import Callable

from journeyman.errors import InputError
from journeyman.rendering.template import ChatTemplate

_ASKED, _SAID = "\x01", "\x02"
_TURNS = [{"role": role, "content": text} for role, text in (("user", _ASKED), ("assistant", _SAID), ("user", _ASKED))]


def text_markers(template: ChatTemplate, control_token: Callable[[str], str | None]) -> list[str]:
    """The texts between turns in which the template writes no control token.

    Args:
        control_token: returns the first control token of a text, or None.
    """
    try:
        text = template.render(_TURNS, add_generation_prompt=False)
    except InputError:
        return []
    between = [text.partition(_ASKED)[2].partition(_SAID)[0], text.partition(_SAID)[2].partition(_ASKED)[0]]
    found = [part.strip() for part in between if control_token(part) is None]
    return list(dict.fromkeys(marker for marker in found if marker))
