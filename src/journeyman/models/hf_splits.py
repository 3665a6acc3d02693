r"""Names the pre-tokenizer in a Hugging Face `tokenizer.json` as GGUF does.

llama.cpp's converter recognizes a tokenizer by the ids that it gives for a test text. Here, the pre-tokenizer's own
description is compared, so a vocabulary that was extended or trained anew is recognized too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

_Step = tuple[Any, ...]

_SUFFIX = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_END = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_END_WITH_SLASH = _END.replace(r"[\r\n]*", r"[\r\n/]*")
_LLAMA3 = rf"{_SUFFIX}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}{_END}"
_QWEN2 = _LLAMA3.replace("{1,3}", "")
_QWEN35 = (
    rf"{_SUFFIX}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_BEFORE = r"[^\r\n\p{L}\p{N}]?"
_TEKKEN = rf"{_BEFORE}{_UPPER}*{_LOWER}+|{_BEFORE}{_UPPER}+{_LOWER}*|\p{{N}}{_END_WITH_SLASH}"
_GPT4O = rf"{_BEFORE}{_UPPER}*{_LOWER}+{_SUFFIX}?|{_BEFORE}{_UPPER}+{_LOWER}*{_SUFFIX}?|\p{{N}}{{1,3}}{_END_WITH_SLASH}"
_DEEPSEEK3 = (
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
    r"""| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"""
)
_BYTES: _Step = ("ByteLevel", False)
_GPT2_BYTES: _Step = ("ByteLevel", True)
_DIGITS: _Step = ("Digits", True)


def _split(expression: str) -> _Step:
    return "Split", expression


_NAMES: Final[Mapping[tuple[_Step, ...], tuple[str, str | None]]] = {
    (_GPT2_BYTES,): ("gpt-2", None),
    (_DIGITS, _GPT2_BYTES): ("smollm", None),
    (_split(_LLAMA3), _BYTES): ("dbrx", "llama-bpe"),
    (_split(_QWEN2), _BYTES): ("qwen2", None),
    (_split(_QWEN35), _BYTES): ("qwen35", None),
    (_split(_TEKKEN), _BYTES): ("", "tekken"),
    (_split(_GPT4O), _BYTES): ("gpt-4o", None),
    (_split(r"\p{N}{1,3}"), _split("[一-龥\u3040-ゟ゠-ヿ]+"), _split(_DEEPSEEK3), _BYTES): ("deepseek-v3", None),
    (_split("[\r\n]"), _split(r"\s?\p{L}+"), _split(r"\s?\p{P}+"), _split("[一-龥ࠀ-一가-\ud7ff]+"), _DIGITS, _BYTES): (
        "deepseek-coder", None,
    ),
}  # fmt: skip
"""The steps → (the name, the name if pieces that are tokens are not merged)."""


def split_name(pre_tokenizer: Any, ignores_merges: bool) -> str | None:
    """GGUF's name; None if the pre-tokenizer is not known.

    Args:
        pre_tokenizer: its description in tokenizer.json.
        ignores_merges: the model takes a piece that is a token as a whole.
    """
    steps = _steps(pre_tokenizer)
    plain, whole = _NAMES.get(steps, (None, None)) if steps else (None, None)
    return (whole if ignores_merges else plain) or None


def _steps(described: Any) -> tuple[_Step, ...] | None:
    """What is compared: the types of the steps with what decides about ids; None if there is anything else."""
    if not isinstance(described, dict):
        return None
    kind = described.get("type")
    if kind == "Sequence":
        inner = described.get("pretokenizers")
        parts = [_steps(one) for one in inner] if isinstance(inner, list) and len(inner) < 20 else [None]
        return None if None in parts else tuple(step for part in parts for step in part or ())
    if kind == "ByteLevel" and not described.get("add_prefix_space"):
        return (("ByteLevel", bool(described.get("use_regex", True))),)
    if kind == "Digits":
        return (("Digits", bool(described.get("individual_digits"))),)
    if kind == "Split" and described.get("behavior") == "Isolated" and not described.get("invert"):
        pattern = described.get("pattern")
        expression = pattern.get("Regex") if isinstance(pattern, dict) else None
        return (("Split", expression),) if isinstance(expression, str) else None
    return None
