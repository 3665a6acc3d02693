"""What each token is to the engine: it corrects the types in the header by the tokens' names.

Source: llama.cpp, src/llama-vocab.cpp (llama_vocab::impl::load).
"""

from __future__ import annotations

import re
from typing import Final

from journeyman.models.base import CONTROL, NORMAL, UNKNOWN, USER_DEFINED, TokenizerData

ENDS: Final = frozenset(
    ["<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|flush|>", "<|calls|>", "<end_of_turn>",
     "<|endoftext|>", "</s>", "<|eom_id|>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]", "<|end_of_text|>",
     "<end_of_utterance>", "<eos>", "<turn|>", "<|tool_response>", "<\uff5cend\u2581of\u2581sentence\uff5c>", "[e~[",
     "<|ifm|im_end|>"]
)  # fmt: skip
"""Tokens at which the engine stops, if a vocabulary has them."""
_FILL_IN: Final = frozenset(
    ["<|fim_prefix|>", "<fim-prefix>", "<fim_prefix>", "<\uff5cfim\u2581begin\uff5c>", "<PRE>", "\u2581<PRE>",
     "<|code_prefix|>", "<|prefix|>", "<|plamo:fim_prefix|>",
     "<|fim_suffix|>", "<fim-suffix>", "<fim_suffix>", "<\uff5cfim\u2581hole\uff5c>", "<SUF>", "\u2581<SUF>",
     "<|code_suffix|>", "<|suffix|>", "<|plamo:fim_suffix|>",
     "<|fim_middle|>", "<fim-middle>", "<fim_middle>", "<\uff5cfim\u2581end\uff5c>", "<MID>", "\u2581<MID>",
     "<|code_middle|>", "<|middle|>", "<|plamo:fim_middle|>",
     "<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]",
     "<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>", "<|file_sep|>",
     "<|plamo:file_separator|>"]
)  # fmt: skip
"""Tokens of code completion. If a vocabulary has several of one purpose, the engine corrects only one of them."""
_ALWAYS_SHOWN: Final = frozenset(["<|channel|>", "<|message|>", "<|start|>", "<|constrain|>"])
_PHI3_KEEPS: Final = frozenset(["<unk>", "<s>", "<|endoftext|>"])
TOOL_RESPONSE: Final = "<|tool_response>"
_MARKER = re.compile(r"<[|\uff5c].*[|\uff5c]>", re.DOTALL)


def token_types(data: TokenizerData) -> list[tuple[str, int]]:
    """(token, type) of every id, as the engine takes them.

    Raises:
        ValueError: see TokenizerData.typed_tokens.
    """
    typed = [(token or f"[EMPTY_{number}]", kind) for number, (token, kind) in enumerate(data.typed_tokens())]
    texts = {token for token, _ in typed}
    controls = (ENDS | _FILL_IN) & texts
    shown = _ALWAYS_SHOWN & texts
    if closes_only_a_message(texts):
        shown |= {"<|end|>"} & texts
    normal = {"</s>"} if TOOL_RESPONSE in texts else frozenset[str]()
    changed = {
        **dict.fromkeys(controls, CONTROL), **dict.fromkeys(shown, USER_DEFINED), **dict.fromkeys(normal, NORMAL)
    }  # fmt: skip
    return [(token, changed.get(token, kind)) for token, kind in typed]


def closes_only_a_message(texts: set[str]) -> bool:
    """Whether `<|end|>` ends one of an answer's messages and another token the answer, as in gpt-oss."""
    return bool(texts & {"<|call|>", "<|calls|>"} and texts & {"<|return|>", "<|flush|>"})


def special_tokens(data: TokenizerData) -> list[str]:
    """The texts that the engine takes for a single token wherever they stand in a text."""
    return [token for token, kind in token_types(data) if kind in (UNKNOWN, CONTROL, USER_DEFINED)]


def control_texts(data: TokenizerData) -> list[str]:
    """The special tokens that mean something to the model or the engine, so that untrusted text must not contain them.

    A user-defined token may be only a piece of vocabulary: Gemma has one for each run of spaces and each HTML tag. It
    counts if the chat template writes it or if it looks like a marker, `<|…|>`; without a template, every one does.
    """
    chosen = None if data.choice is None else data.choice.source
    template = data.chat_template if chosen is None else chosen
    return [
        token
        for token, kind in token_types(data)
        if kind in (UNKNOWN, CONTROL) or (kind == USER_DEFINED and (token in _ALWAYS_SHOWN or _marks(token, template)))
    ]


def _marks(token: str, template: str | None) -> bool:
    return template is None or token in template or _MARKER.fullmatch(token) is not None


def stripping(data: TokenizerData) -> tuple[frozenset[str], frozenset[str]]:
    """The special tokens that take the white space before them, and those that take the white space after them.

    GGUF files don't say this; the engine goes by the model's name.

    Raises:
        ValueError: the engine refuses to load such a vocabulary.
    """
    name = (data.model_name or "").lower()
    special = special_tokens(data)
    if "phi-3" in name or "phi3" in name:
        if missing := {*_PHI3_KEEPS, "</s>"} - {token for token, _ in token_types(data)}:
            raise ValueError(f"a model with the name {name!r} has no token {min(missing)!r}")
        return frozenset(), frozenset(special) - _PHI3_KEEPS
    if "modern-bert" in name:
        return frozenset({"[MASK]"} & set(special)), frozenset()
    return frozenset(), frozenset()
