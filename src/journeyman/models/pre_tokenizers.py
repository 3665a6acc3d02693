r"""How byte-level BPE tokenizers split text before they merge, under the names that GGUF gives (`tokenizer.ggml.pre`).

Source: llama.cpp, src/llama-vocab.cpp and src/unicode.cpp. It serves, so what it does is right here, even where it
differs from the tokenizer that a model was trained with: it takes `\p{Lu}` for any letter, for example.

A split consists of passes. Each cuts every piece that the previous one left into matches and what lies between them.
`\p{…}` stands for the categories of rendering/unicode_categories.py and occurs only in brackets; `\s` is Unicode's
White_Space.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

_SUFFIX = r"'(?:[sStTmMdD]|[rR][eE]|[vV][eE]|[lL][lL])"
_SPACES = r"\s+(?!\S)|\s+"
_LINES = rf"\s*[\r\n]+|{_SPACES}"
_GPT2 = rf"'s|'t|'re|'ve|'m|'ll|'d| ?[\p{{L}}]+| ?[\p{{N}}]+| ?[^\s\p{{L}}\p{{N}}]+|{_SPACES}"
_ANY_BUT = r"[^\r\n\p{L}\p{N}]"
_MARKS = r" ?[^\s\p{L}\p{N}]+"
_NUMBER, _UP_TO_3 = r"[\p{N}]", r"[\p{N}]{1,3}"


def _words(digits: str, marks: str = rf"{_MARKS}[\r\n]*", lines: str = _LINES) -> str:
    return rf"{_SUFFIX}|{_ANY_BUT}?[\p{{L}}]+|{digits}|{marks}|{lines}"


def _cased(upper: str, lower: str, suffix: str, digits: str) -> str:
    words = rf"{_ANY_BUT}?{upper}*{lower}+{suffix}|{_ANY_BUT}?{upper}+{lower}*{suffix}"
    return rf"{words}|{digits}|{_MARKS}[\r\n/]*|{_LINES}"


_LLAMA3, _QWEN2 = _words(_UP_TO_3), _words(_NUMBER)
_MAYBE_SUFFIX = f"(?:{_SUFFIX})?"
_QWEN35 = rf"{_SUFFIX}|{_ANY_BUT}?[\p{{L}}\p{{M}}]+|{_NUMBER}| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{_LINES}"
_CASCADE = "|".join(rf"\s{{{1 << power}}}(?!\S)" for power in range(9, 1, -1)) + r"|\s{1,2}(?!\S)|\s"
_CASED_LETTERS = (
    "A-Za-z"
    "\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af\u0370-\u0373\u0376"
    "\u0377\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5\u03f7-\u0481\u048a-\u052f"
    "\u0531-\u0556\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd\u1c90-\u1cba\u1cbd-\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77"
    "\u1d79-\u1d9a\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b\u1f5d\u1f5f-\u1f7d"
    "\u1f80-\u1fb4\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb\u1fe0-\u1fec\u1ff2-\u1ff4"
    "\u1ff6-\u1ffc\u2102\u2107\u210a-\u2113\u2115\u2119-\u211d\u2124\u2126\u2128\u212a-\u212d\u212f-\u2134\u2139"
    "\u213c-\u213f\u2145-\u2149\u214e\u2183\u2184\u2c00-\u2c7b\u2c7e-\u2ce4\u2ceb-\u2cee\u2cf2\u2cf3\ua640-\ua66d"
    "\ua680-\ua69b\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf\ufb00-\ufb06\ufb13-\ufb17\uff21-\uff3a"
    "\uff41-\uff5a\U00010400-\U0001044f\U000104b0-\U000104d3\U000104d8-\U000104fb\U00010c80-\U00010cb2"
    "\U00010cc0-\U00010cf2\U000118a0-\U000118df\U0001e900-\U0001e943"
)
# The ranges ࠀ-一, 一-龥 and 가-퟿ without the white space in them, which the engine replaces before it matches.
_EAST = "[\u0800-\u167f\u1681-\u1fff\u200b-\u2027\u202a-\u202e\u2030-\u205e\u2060-\u2fff\u3001-\u9fa5\uac00-\ud7ff]+"
_HAN_AND_KANA = "[\u4e00-\u9fa5\u3040-\u30ff]+"
_YOUTU = (
    "[\uac00-\ud7a3\u3131-\u318e]+|[\uff01\u2026\u201c\u201d\u2018\u2019\u2014\uff1a\uff1b\uff0c\u3001-\u303f\ufe30-\ufe4f]+"
    f"|[\u3105-\u312f]+|{_HAN_AND_KANA}"
)
_DEEPSEEK3 = (
    _UP_TO_3,
    _HAN_AND_KANA,
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
    rf"| ?[\p{{P}}\p{{S}}]+[\r\n]*|{_LINES}",
)
_STOPS = r" ?[^(\s|.,!?…。，、।۔،)]+"
# Unassigned characters included.
_HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002a6df\U0002a700-\U0002ebef\U0002f800-\U0002fa1f"
_BUT_HAN = rf"(?:(?![{_HAN}])[\p{{L}}])+"
_KIMI = rf"[{_HAN}]+|(?:(?![{_HAN}]){_ANY_BUT})?{_BUT_HAN}{_MAYBE_SUFFIX}|{_UP_TO_3}|{_MARKS}[\r\n]*|{_LINES}"

# Places where a piece begins whatever surrounds them, for the splits that have one. At a line end and a character that
# is not white space: gpt-2 begins a piece with that line end, llama-bpe keeps line ends together.
_BEFORE_LINE_END, _AFTER_LINE_END = r"(?=\n\S)", r"(?<=\n)(?=\S)"

_LINE_RUNS = r"[^\n]+|\n+"
_OWN_CODE = frozenset([_GPT2, _LLAMA3, _QWEN2, _QWEN35, _KIMI, _LINE_RUNS])
"""Expressions for which the engine has code of its own; all others go through std::regex."""


@dataclass(frozen=True)
class PreTokenizer:
    """One way to split.

    Attributes:
        passes: the regular expressions.
        cut: matches, with zero length, where a piece begins in any context; "" if no such expression is known.
        ignores_merges: a piece that is a token as a whole is that token, whatever the merges would make of it.
        adds_begin: a text begins with a token of its own unless the file says otherwise.
        spans_words: a piece may hold any number of words.
    """

    passes: tuple[str, ...]
    cut: str = ""
    ignores_merges: bool = False
    adds_begin: bool = False
    spans_words: bool = False

    @property
    def recurses(self) -> bool:
        """The engine's stack grows with the length of a match: see rendering/runs.py."""
        return any(one not in _OWN_CODE and ("+" in one or "*" in one) for one in self.passes)


_GPT2_SPLIT = PreTokenizer((_GPT2,), _BEFORE_LINE_END)
_DIGITS = PreTokenizer((_NUMBER, _GPT2), r"(?=\n[!-/:-~])")  # not before a digit of any script
_LLAMA3_SPLIT = PreTokenizer((_LLAMA3,), _AFTER_LINE_END)
_LLAMA_BPE = PreTokenizer((_LLAMA3,), _AFTER_LINE_END, ignores_merges=True, adds_begin=True)
_QWEN2_SPLIT = PreTokenizer((_QWEN2,), _AFTER_LINE_END)
_AFTER_LINE_END_BUT_SLASH = r"(?<=\n)(?=[^\s/])"
_GPT4O = PreTokenizer((_cased(r"[\p{Upper}]", r"[\p{Lower}]", _MAYBE_SUFFIX, _UP_TO_3),), _AFTER_LINE_END_BUT_SLASH)
_DEEPSEEK3_SPLIT = PreTokenizer(_DEEPSEEK3, _AFTER_LINE_END)
_BAILING = PreTokenizer((_words(_NUMBER, lines=rf"\s*[\r\n]|{_SPACES}"),))

PRE_TOKENIZERS: Final[Mapping[str, PreTokenizer]] = {
    "gpt-2": _GPT2_SPLIT,
    "smollm": _DIGITS,
    "llama-bpe": _LLAMA_BPE,
    "dbrx": _LLAMA3_SPLIT,
    "glm4": PreTokenizer((_LLAMA3,), _AFTER_LINE_END, ignores_merges=True),
    "qwen2": _QWEN2_SPLIT,
    "qwen35": PreTokenizer((_QWEN35,), _AFTER_LINE_END),
    "gpt-4o": _GPT4O,
    "tekken": PreTokenizer(
        (_cased(r"[\p{Upper}]", r"[\p{Lower}]", "", _NUMBER),), _AFTER_LINE_END_BUT_SLASH,
        ignores_merges=True, adds_begin=True,
    ),
    "deepseek-v3": _DEEPSEEK3_SPLIT,
    "deepseek-llm": PreTokenizer(
        (r"[\r\n]", rf"\s?[{_CASED_LETTERS}]+", r"\s?[!-/:-~！-／：-～‘-‟、-。]+", r"(?<!\s)\s+(?![\s\S])", _EAST,
         r"[\p{N}]+")
    ),
    "deepseek-coder": PreTokenizer((r"[\r\n]", r"\s?[\p{L}]+", r"\s?[\p{P}]+", _EAST, _NUMBER)),
    "falcon": PreTokenizer((r"[\p{P}$+<=>^~|`]+", _GPT2, r"[0-9][0-9][0-9]")),
    "default": PreTokenizer((r"[\p{P}$+<=>^~|]+", _GPT2, r"[\p{N}]+", r"[0-9][0-9][0-9]")),
    "bloom": PreTokenizer((_STOPS,)),
    "viking": PreTokenizer((_STOPS, _NUMBER)),
    "jais-2": PreTokenizer((_words(_UP_TO_3, lines=rf"\s*[\r\n]+|{_CASCADE}"),)),
    "bailingmoe": _BAILING,
    "seed-coder": PreTokenizer((_words(_NUMBER, marks=r" ?[^\s\p{L}\p{N}\r\n]+"),)),
    "exaone-moe": PreTokenizer(
        (
            rf"{_SUFFIX}|{_ANY_BUT}?(?:[\p{{L}}][\p{{M}}]*(?: [\p{{L}}][\p{{M}}]*)*)+|{_NUMBER}|{_MARKS}[\r\n/]?"
            rf"|\s*[\r\n]|{_SPACES}",
        ),
        spans_words=True,
    ),
    "granite-embed-multi-97m": PreTokenizer(
        (_cased(r"[\p{Upper}\p{M}]", r"[\p{Lower}\p{M}]", _MAYBE_SUFFIX, _UP_TO_3),), _AFTER_LINE_END_BUT_SLASH,
        ignores_merges=True,
    ),
    "youtu": PreTokenizer(
        (_YOUTU, rf"{_ANY_BUT}?[\p{{L}}\p{{M}}]+{_MAYBE_SUFFIX}|{_NUMBER}|{_MARKS}[\r\n/]*|{_LINES}"),
        ignores_merges=True,
    ),
    "laguna": PreTokenizer((_LINE_RUNS, _QWEN2)),
    "minicpm5": PreTokenizer((_UP_TO_3, _words(r"[\p{N}]+")), _AFTER_LINE_END, ignores_merges=True),
    "chameleon": PreTokenizer(
        ("<sentinel:[0-9]+>", "IMGIMG[A-I]{1,4}Z", r"[\t\n]|    |  ", _NUMBER, r"[\p{P}!-/:-@\[-`{-~]", _GPT2),
        adds_begin=True,
    ),
    "kimi-k2": PreTokenizer((_KIMI,), _AFTER_LINE_END),
}  # fmt: skip
"""By the name under which each is known here."""

OTHER_NAMES: Final[Mapping[str, str]] = {
    **dict.fromkeys(
        ["mpt", "olmo", "jais", "trillion", "granite-docling", "phi-2", "jina-es", "jina-de", "gigachat", "a.x-4.0",
         "mellum", "modern-bert", "exaone4", "jina-v1-en", "roberta-bpe"],
        "gpt-2",
    ),
    **dict.fromkeys(
        ["starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b", "mellum2"], "smollm"
    ),
    **dict.fromkeys(
        ["llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "jina-v5-nano"], "llama-bpe"
    ),
    **dict.fromkeys(["smaug-bpe", "chatglm-bpe"], "dbrx"),
    **dict.fromkeys(
        ["deepseek-r1-qwen", "kormo", "f2llmv2", "megrez", "stablelm2", "hunyuan", "solar-open", "grok-2"], "qwen2"
    ),
    **dict.fromkeys(["llama4", "kanana2", "talkie", "minimax-m2"], "gpt-4o"),
    **dict.fromkeys(["hunyuan-dense", "joyai-llm"], "deepseek-v3"),
    **dict.fromkeys(["poro-chat", "gpt3-finnish"], "bloom"),
    **dict.fromkeys(["bailingmoe2", "llada-moe"], "bailingmoe"),
    "glm5": "glm4",
}  # fmt: skip
"""Other names of GGUF files → the name under which the same split is known here."""

REFUSED: Final[Mapping[str, str]] = {
    **dict.fromkeys(["afmoe", "tiny_aya", "cohere2moe", "superbpe"], "groups digits from the end of a number"),
    **dict.fromkeys(
        ["gemma4", "granite-embed-multi-311m", "sarvam-moe", "whitespace"], "merges characters instead of bytes"
    ),
    **dict.fromkeys(["jina-v2-de", "jina-v2-es", "jina-v2-code"], "belongs to encoders"),
}  # fmt: skip
"""Names that the engine knows but that are not built here, with the reason."""
