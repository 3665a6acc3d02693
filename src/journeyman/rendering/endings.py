"""The tokens at which the engine stops: those that the base's header names, and those that llama.cpp knows by name.

Source: llama.cpp, src/llama-vocab.cpp, special_eog_ids. Tokens for the middle of code (fim_pad and so on), at which it
also stops, end no answer and are left out.
"""

from __future__ import annotations

from journeyman.models.base import TokenizerData

_BY_NAME = frozenset({
    "<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|flush|>", "<|calls|>", "<end_of_turn>",
    "<|endoftext|>", "</s>", "<|eom_id|>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]", "<|end_of_text|>",
    "<end_of_utterance>", "<eos>", "<turn|>", "<|tool_response>", "<\uff5cend\u2581of\u2581sentence\uff5c>", "[e~[",
})  # fmt: skip
_NOT_BESIDE = (
    ({"<|return|>", "<|call|>"}, "<|end|>"),
    ({"<|calls|>", "<|flush|>"}, "<|end|>"),
    ({"<|tool_response>"}, "</s>"),
)
"""With these tokens in the vocabulary, the other one only ends a part of an answer."""


def end_tokens(data: TokenizerData) -> dict[str, int]:
    """Text → id of the tokens that end an answer; empty if the base has none."""
    tokens = data.tokens or ()
    found = {text: place for place, text in enumerate(tokens) if text in _BY_NAME}
    for others, text in _NOT_BESIDE:
        if others <= found.keys():
            found.pop(text, None)
    named = [place for place in (data.end_id, *data.more_end_ids) if isinstance(place, int)]
    return found | {tokens[place]: place for place in named if 0 <= place < len(tokens)}
