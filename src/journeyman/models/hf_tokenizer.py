"""Reads the tokenizer of a Hugging Face folder: byte-level BPE in tokenizer.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from journeyman.errors import InputError
from journeyman.models.base import TokenizerData
from journeyman.models.hf_config import read_object

_NORMAL, _CONTROL, _USER_DEFINED, _UNUSED = 1, 3, 4, 5


def tokenizer_of_folder(folder: Path) -> TokenizerData:
    """The tokenizer and chat template of a folder.

    Raises:
        InputError: no tokenizer.json, or it is not byte-level BPE.
    """
    path = folder / "tokenizer.json"
    model = read_object(path)
    settings = read_object(folder / "tokenizer_config.json")
    bpe = model.get("model")
    if not isinstance(bpe, dict) or bpe.get("type") != "BPE":
        raise InputError(f"{path}: not byte-level BPE", "Use another base")
    size = read_object(folder / "config.json").get("vocab_size", 0)
    tokens = {number: (text, _NORMAL) for text, number in bpe["vocab"].items()}
    for one in model.get("added_tokens", []):
        tokens[one["id"]] = (one["content"], _CONTROL if one["special"] else _USER_DEFINED)
    every = [tokens.get(number, (f"[PAD{number}]", _UNUSED)) for number in range(max(size, len(tokens)))]
    ids = {text: number for number, (text, _) in tokens.items()}
    template = folder / "chat_template.jinja"
    return TokenizerData(
        kind="gpt2",
        split="gpt-2",
        tokens=[text for text, _ in every],
        types=[kind for _, kind in every],
        merges=[one if isinstance(one, str) else " ".join(one) for one in bpe["merges"]],
        begin_id=ids.get(_text(settings.get("bos_token"))),
        end_id=ids.get(_text(settings.get("eos_token"))),
        chat_template=template.read_text("utf-8") if template.is_file() else settings.get("chat_template"),
    )


def _text(token: Any) -> str:
    return str(token["content"]) if isinstance(token, dict) else str(token)
