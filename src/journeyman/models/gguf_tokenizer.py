"""Reads tokenizer and chat template from a GGUF header, with llama.cpp's defaults (src/llama-vocab.cpp)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from journeyman.models.base import TokenizerData
from journeyman.models.pre_tokenizers import OTHER_NAMES, PRE_TOKENIZERS

_ENDS = ("tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id")  # of a turn, of a message
_BEGIN, _END = 1, 2  # of SentencePiece vocabularies, if the header does not name them


def tokenizer_data_of(metadata: Mapping[str, Any]) -> TokenizerData:
    """The tokenizer's data, unchecked.

    Args:
        metadata: the header's keys; arrays are lists.
    """
    found = metadata.get
    kind = found("tokenizer.ggml.model")
    spm = kind == "llama"
    split = found("tokenizer.ggml.pre") or "default"
    split = OTHER_NAMES.get(split, split) if isinstance(split, str) else split
    known = PRE_TOKENIZERS.get(split) if isinstance(split, str) and not spm else None
    return TokenizerData(
        kind=kind,
        split=split,
        tokens=found("tokenizer.ggml.tokens"),
        types=found("tokenizer.ggml.token_type"),
        merges=found("tokenizer.ggml.merges"),
        begin_id=found("tokenizer.ggml.bos_token_id", _BEGIN if spm else None),
        end_id=found("tokenizer.ggml.eos_token_id", _END if spm else None),
        adds_begin=bool(found("tokenizer.ggml.add_bos_token", spm or (known is not None and known.adds_begin))),
        chat_template=found("tokenizer.chat_template"),
        tool_template=found("tokenizer.chat_template.tool_use"),
        scores=found("tokenizer.ggml.scores"),
        adds_space=bool(found("tokenizer.ggml.add_space_prefix", spm)),
        adds_end=bool(found("tokenizer.ggml.add_eos_token", False)),
        more_end_ids=[number for number in map(found, _ENDS) if isinstance(number, int)],
        model_name=found("general.name"),
    )
