"""Counts tokens without encoding: several times faster, with the same result.

Byte-level BPE works on one piece of the pre-tokenizer's split at a time, so the count of a text is the sum over its
pieces, and pieces repeat. ASCII text is split by Python's `re` with the pre-tokenizer's expression reduced to ASCII;
other text is cut where a piece must begin and then encoded. Training renders every row with the tokenizer itself and
refuses a count that differs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from tokenizers import Tokenizer

_S = r"[\t\n\x0b\x0c\r ]"
_NOT_S = r"[^\t\n\x0b\x0c\r ]"
_SUFFIXES = r"'s|'t|'re|'ve|'m|'ll|'d"
_OTHER = r"[^\t\n\x0b\x0c\r A-Za-z0-9]"
_LLAMA3 = (
    rf"(?i:{_SUFFIXES})|[^\r\nA-Za-z0-9]?[A-Za-z]+|[0-9]{{1,3}}| ?{_OTHER}+[\r\n]*|{_S}*[\r\n]+"
    rf"|{_S}+(?!{_NOT_S})|{_S}+"
)
_ASCII_SPLITS: Mapping[str, re.Pattern[str]] = {
    "gpt-2": re.compile(rf"{_SUFFIXES}| ?[A-Za-z]+| ?[0-9]+| ?{_OTHER}+|{_S}+(?!{_NOT_S})|{_S}+"),
    # Digits are split off first, so white space before a digit is at the end of its part.
    "smollm": re.compile(rf"{_SUFFIXES}| ?[A-Za-z]+|[0-9]| ?{_OTHER}+|{_S}+(?![^\t\n\x0b\x0c\r 0-9])|{_S}+"),
    "llama-bpe": re.compile(_LLAMA3),
    "qwen2": re.compile(_LLAMA3.replace("{1,3}", "")),
}
# Where a new piece is certain to begin in any context. gpt-2 makes the line end before a line's first word a separate
# piece; llama-bpe keeps consecutive line ends together.
_SAFE_CUTS: Mapping[str, re.Pattern[str]] = {
    "gpt-2": re.compile(r"(?=\n\S)"),
    "smollm": re.compile(r"(?=\n[!-/:-~])"),  # not before a digit of any script
    "llama-bpe": re.compile(r"(?<=\n)(?=\S)"),
    "qwen2": re.compile(r"(?<=\n)(?=\S)"),
}
_MOST_PIECES = 500_000
_MOST_REPEATED, _LONGEST_REPEATED = 2_048, 4_096


class TokenCounter:
    """Counts the tokens of texts for one tokenizer.

    Args:
        tokenizer: the tokenizer itself.
        name: its pre-tokenizer's name in the GGUF header; with an unknown one, texts are encoded to count.
        special: texts of the control tokens, which are split off before anything else.
    """

    def __init__(self, tokenizer: Tokenizer, name: str, special: list[str]) -> None:
        self._tokenizer = tokenizer
        self._pieces = _ASCII_SPLITS.get(name)
        self._cuts = _SAFE_CUTS.get(name)
        self._special = (
            re.compile("|".join(map(re.escape, sorted(special, key=len, reverse=True)))) if special else None
        )
        self._lengths = _Lengths(tokenizer)
        self._repeated: dict[str, int] = {}

    def count(self, text: str) -> int:
        """The number of ids that `tokenizer.encode(text, add_special_tokens=False)` gives."""
        if self._pieces is None:
            return len(self._tokenizer.encode(text, add_special_tokens=False).ids)
        if self._special is None or not self._special.search(text):
            return self._count(text)
        parts = self._special.split(text)
        return len(parts) - 1 + sum([self.count_repeated(part) for part in parts if part])

    def count_repeated(self, text: str) -> int:
        """`count` for texts that may come again, such as system prompts: the counts of short ones are kept."""
        if len(text) > _LONGEST_REPEATED:
            return self.count(text)
        known = self._repeated.get(text)
        if known is None:
            if len(self._repeated) >= _MOST_REPEATED:
                self._repeated.clear()
            self._repeated[text] = known = self.count(text)
        return known

    def _count(self, text: str) -> int:
        assert self._pieces is not None and self._cuts is not None
        if text.isascii():
            return sum(map(self._lengths.__getitem__, self._pieces.findall(text)))
        parts = [part for part in self._cuts.split(text) if part]
        if len(parts) == 1:
            return len(self._tokenizer.encode(text, add_special_tokens=False).ids)
        return sum(map(self._count, parts))


class _Lengths(dict[str, int]):
    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__()
        self._tokenizer = tokenizer

    def __missing__(self, piece: str) -> int:
        if len(self) >= _MOST_PIECES:
            self.clear()
        self[piece] = length = len(self._tokenizer.encode(piece, add_special_tokens=False).ids)
        return length
