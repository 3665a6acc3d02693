"""Reads tokenizer and chat template from a Hugging Face folder, as llama.cpp's converter writes them to GGUF.

So training from the folder and serving the converted file have the same token ids. Sources: llama.cpp,
conversion/base.py and gguf-py/gguf/vocab.py; huggingface/tokenizers for tokenizer.json.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from journeyman.errors import InputError
from journeyman.foreign import plain
from journeyman.models.base import BYTE, CONTROL, NORMAL, UNKNOWN, UNUSED, USER_DEFINED, TokenizerData
from journeyman.models.hf_chat_template import chat_template_of, tool_template_of
from journeyman.models.hf_files import COMPLETE, TokenizerFiles
from journeyman.models.hf_splits import split_name
from journeyman.models.pre_tokenizers import PRE_TOKENIZERS
from journeyman.models.sentencepiece_model import pieces_of

_SPACE, _WRITTEN_SPACE = "\u2581", "\u0120"
_ADDED_SCORE, _UNUSED_SCORE = -1000.0, -10000.0


@dataclass
class _Vocabulary:
    """As many tokens as the model has embeddings; those without a text are unused."""

    tokens: list[str]
    types: list[int]
    scores: list[float]

    @classmethod
    def of_size(cls, size: int) -> _Vocabulary:
        return cls([f"[PAD{number}]" for number in range(size)], [UNUSED] * size, [_UNUSED_SCORE] * size)

    def add(self, number: int, token: str, kind: int) -> None:
        if 0 <= number < len(self.tokens):  # the converter leaves out the others, which have no embedding
            self.tokens[number], self.types[number], self.scores[number] = token, kind, _ADDED_SCORE


def tokenizer_of_folder(folder: Path) -> TokenizerData:
    """The tokenizer's data, with the ids that llama.cpp gives to the converted folder.

    Raises:
        InputError: there is no tokenizer, it is damaged, or it is of a kind that llama.cpp does not serve alike.
    """
    files = TokenizerFiles(folder)
    model = files.tokenizer.get("model")
    if not files.tokenizer and (folder / "tokenizer.model").is_file():
        return _sentencepiece(files)
    if not isinstance(model, dict):
        raise InputError(f"{folder}: no tokenizer.json with a model, and no tokenizer.model", COMPLETE)
    kind = model.get("type", "BPE")
    if kind != "BPE":
        shown = plain(str(kind), 40)
        raise InputError(
            f"{folder / 'tokenizer.json'}: tokenizers of the kind {shown!r} are not supported", "Use another base model"
        )
    if not model.get("byte_fallback"):
        return _byte_level(files, model)
    if not (folder / "tokenizer.model").is_file():
        raise InputError(
            f"{folder}: tokenizer.model is missing. Its scores decide how text is split, and llama.cpp's converter "
            "gives all tokens the same score without it",
            "Download tokenizer.model from the base model's page into the folder",
        )
    return _sentencepiece(files)


def _byte_level(files: TokenizerFiles, model: dict[str, Any]) -> TokenizerData:
    where = files.path / "tokenizer.json"
    known, merges, added = model.get("vocab"), model.get("merges"), list(files.added())
    if not isinstance(known, dict) or not all(isinstance(number, int) for number in known.values()):
        raise InputError(f"{where}: the vocabulary is damaged", COMPLETE)
    normalizer = files.tokenizer.get("normalizer")
    # The engine does not compose characters (NFC) before it splits, so neither does training.
    if normalizer is not None and (not isinstance(normalizer, dict) or normalizer.get("type") != "NFC"):
        raise InputError(f"{where}: the normalizer {_described(normalizer)} is not supported", "Use another base model")
    ignores_merges = bool(model.get("ignore_merges"))
    split = split_name(files.tokenizer.get("pre_tokenizer"), ignores_merges)
    if split is None:
        raise InputError(
            f"{where}: the pre-tokenizer {_described(files.tokenizer.get('pre_tokenizer'))} "
            f"{'with' if ignores_merges else 'without'} ignore_merges is not supported",
            "Use a GGUF file of this model as base",
        )
    vocabulary = _Vocabulary.of_size(
        files.size(1 + max([*known.values(), *(number for number, _, _ in added)], default=-1))
    )
    for token, number in known.items():
        vocabulary.add(number, token, NORMAL)
    _add(vocabulary, added)
    return _finished(files, "gpt2", split, vocabulary, _merges(merges, where))


def _merges(merges: Any, where: Path) -> list[str]:
    """Pairs of texts → texts with a space between, and spaces in them as byte-level tokens write them."""
    if not isinstance(merges, list):
        raise InputError(f"{where}: the merges are missing", COMPLETE)
    written = []
    for merge in merges:
        if isinstance(merge, list) and len(merge) == 2 and all(isinstance(one, str) for one in merge):
            merge = " ".join(one.replace(" ", _WRITTEN_SPACE) for one in merge)
        if not isinstance(merge, str):
            raise InputError(f"{where}: a merge is damaged: {plain(repr(merge), 80)}", COMPLETE)
        written.append(merge)
    return written


def _sentencepiece(files: TokenizerFiles) -> TokenizerData:
    pieces = pieces_of(files.path / "tokenizer.model")
    vocabulary = _Vocabulary.of_size(files.size(len(pieces)))
    for number, piece in enumerate(pieces[: len(vocabulary.tokens)]):
        kind = piece.kind if piece.kind in (UNKNOWN, CONTROL, UNUSED, BYTE) else NORMAL
        vocabulary.tokens[number], vocabulary.types[number] = piece.text, kind
        vocabulary.scores[number] = piece.score
    _add(vocabulary, files.added())
    return _finished(files, "llama", "default", vocabulary, None)


def _add(vocabulary: _Vocabulary, added: Iterable[tuple[int, str, bool]]) -> None:
    for number, token, special in added:
        if special or _looks_special(token):
            vocabulary.add(number, token, CONTROL)
        else:
            vocabulary.add(number, token.replace(_SPACE, " "), USER_DEFINED)


def _looks_special(token: str) -> bool:
    """Some models do not mark all their control tokens; these are the names that the converter knows."""
    if token in ("<pad>", "<mask>", "<2mass>", "[@BOS@]"):
        return True
    ends = (("<|", "|>"), ("<\uff5c", "\uff5c>"), ("<unused", ">"))
    return any(token.startswith(left) and token.endswith(right) for left, right in ends)


def _finished(
    files: TokenizerFiles, kind: str, split: str, vocabulary: _Vocabulary, merges: list[str] | None
) -> TokenizerData:
    spm = kind == "llama"
    begins, ends = _template_adds(files)
    begin_id, end_id = (files.special_id(f"{name}_token", vocabulary.tokens) for name in ("bos", "eos"))
    known = files.generation.get("eos_token_id")
    end_ids = [one for one in (known if isinstance(known, list) else [known]) if isinstance(one, int)]
    if end_id is None and end_ids:
        end_id = end_ids[0]
    default = spm or PRE_TOKENIZERS[split].adds_begin
    return TokenizerData(
        kind=kind,
        split=split,
        tokens=vocabulary.tokens,
        types=vocabulary.types,
        merges=merges,
        begin_id=begin_id,
        end_id=end_id,
        adds_begin=_said(files.settings.get("add_bos_token"), begins, default),
        chat_template=chat_template_of(files.path, files.settings),
        tool_template=tool_template_of(files.settings),
        scores=vocabulary.scores if spm else None,
        adds_space=spm and _adds_space(files),
        adds_end=_said(files.settings.get("add_eos_token"), ends, False),
        more_end_ids=[one for one in end_ids if one != end_id],
    )


def _said(setting: Any, template: bool | None, default: bool) -> bool:
    if isinstance(setting, bool):
        return setting
    return default if template is None else template


def _adds_space(files: TokenizerFiles) -> bool:
    if str(files.config.get("model_type", "")).startswith("gemma"):
        return False
    said = files.settings.get("add_prefix_space")
    return said if isinstance(said, bool) else True


def _template_adds(files: TokenizerFiles) -> tuple[bool | None, bool | None]:
    """Whether the post-processor puts a token before a text and after it; None if it does not say."""
    found = files.tokenizer.get("post_processor")
    listed = found.get("processors", [found]) if isinstance(found, dict) else []
    for one in listed if isinstance(listed, list) else []:
        parts = one.get("single") if isinstance(one, dict) and one.get("type") == "TemplateProcessing" else None
        if isinstance(parts, list) and len(parts) > 1:
            first, last = (isinstance(part, dict) and "SpecialToken" in part for part in (parts[0], parts[-1]))
            return first or None, last or None
    return None, None


def _described(part: Any) -> str:
    return plain(json.dumps(part, ensure_ascii=False), 300)
