"""The tokens at which the engine stops: those that the base's header names, and those that llama.cpp knows by name.

Source: llama.cpp, src/llama-vocab.cpp, special_eog_ids. Tokens for the middle of code (fim_pad and so on), at which it
also stops, end no answer and are left out.
"""

from __future__ import annotations

from journeyman.models.base import TokenizerData
from journeyman.rendering.token_types import ENDS, TOOL_RESPONSE, closes_only_a_message


def end_tokens(data: TokenizerData) -> dict[str, int]:
    """Text → id of the tokens that end an answer; empty if the base has none."""
    tokens = data.tokens or ()
    found = {text: place for place, text in enumerate(tokens) if text in ENDS}
    if closes_only_a_message(set(found)):
        found.pop("<|end|>", None)
    if TOOL_RESPONSE in found:
        found.pop("</s>", None)
    named = [place for place in (data.end_id, *data.more_end_ids) if isinstance(place, int)]
    return found | {tokens[place]: place for place in named if 0 <= place < len(tokens)}
