"""Byte-level BPE, for GGUF's tokenizer kind `gpt2`."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import chain

from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from tokenizers.pre_tokenizers import ByteLevel

from journeyman.models.pre_tokenizers import PreTokenizer
from journeyman.rendering.unicode_categories import members

_MOST_PIECES = 500_000


def _byte_alphabet() -> list[str]:
    """The character that stands for each byte in the tokens."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = iter(range(0x100, 0x200))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


_ALPHABET = _byte_alphabet()
BYTE_OF = {char: byte for byte, char in enumerate(_ALPHABET)}
"""The byte for which each character stands in a token."""


class ByteBpe:
    """Tokenizes texts that contain no special token.

    Texts are counted piece by piece, without encoding, because pieces repeat. ASCII text is split by Python's `re`;
    other text is cut where a piece begins in any context, and what is not ASCII even then is encoded.

    Args:
        tokens: the text of each id, every text once.
        merges: pairs of tokens separated by a space, in the order in which they apply.

    Raises:
        ValueError: a token that merges cannot make holds a byte without a token.
        Exception: the library's own errors, which have no type.
    """

    def __init__(self, tokens: Sequence[str], merges: Sequence[str], split: PreTokenizer) -> None:
        ids = {token: number for number, token in enumerate(tokens)}
        # Bytes without a token are lost, and what is on both sides of them never merges: the library would merge it.
        missing = "".join(char for char in _ALPHABET if char not in ids)
        if split.ignores_merges and (lost := [token for token in tokens if not set(missing).isdisjoint(token)]):
            raise ValueError(f"{len(lost)} tokens have bytes that are no tokens, such as {lost[0]!r}")
        model = models.BPE(vocab=ids, merges=_pairs(merges), ignore_merges=split.ignores_merges)
        self._tokenizer = Tokenizer(model)
        passes = splitters(split.passes)
        passes.append(ByteLevel(add_prefix_space=False, use_regex=False))
        if missing:
            passes.append(pre_tokenizers.Split(Regex(f"[{re.escape(missing)}]"), "removed"))
        self._tokenizer.pre_tokenizer = pre_tokenizers.Sequence(passes)
        self._passes = [_cutting(_written(one, ascii_only=True)) for one in split.passes]
        self._cut = re.compile(split.cut) if split.cut else None
        self._lengths = _Lengths(self._tokenizer)

    def encode(self, text: str, continues: bool = False) -> list[int]:
        """The ids of a text."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def count(self, text: str, continues: bool = False) -> int:
        """`len(encode(text))`, several times faster."""
        if text.isascii():
            return sum(map(self._lengths.__getitem__, self._pieces(text)))
        parts = [part for part in self._cut.split(text) if part] if self._cut else [text]
        if len(parts) == 1:
            return len(self.encode(text))
        return sum(map(self.count, parts))

    def _pieces(self, text: str) -> list[str]:
        pieces = [text]
        for cut in self._passes:
            pieces = list(chain.from_iterable(map(cut, pieces)))
        return pieces


def _cutting(expression: str) -> Callable[[str], list[str]]:
    """A function that cuts ASCII text into the expression's matches and what lies between them."""
    matches = re.compile(expression, re.ASCII)
    if all(matches.fullmatch(chr(code)) for code in range(128)):  # nothing lies between them
        return matches.findall
    kept = re.compile(f"({expression})", re.ASCII)
    return lambda text: [piece for piece in kept.split(text) if piece]


def splitters(passes: Sequence[str]) -> list[pre_tokenizers.PreTokenizer]:
    """The passes of a PreTokenizer in the library's form."""
    return [pre_tokenizers.Split(Regex(_written(one)), "isolated") for one in passes]


def _pairs(merges: Sequence[str]) -> list[tuple[str, str]]:
    pairs = [(left, right) for left, _, right in (merge.partition(" ") for merge in merges)]
    return list(dict.fromkeys(pairs))  # of equal ones, the engine applies the first


def _written(expression: str, ascii_only: bool = False) -> str:
    """The expression with the categories' characters."""

    def characters(found: re.Match[str]) -> str:
        return members(found[1], ascii_only) or "\u0300"  # brackets must not be empty; this one is not ASCII

    return re.sub(r"\\p\{(\w+)\}", characters, expression)


class _Lengths(dict[str, int]):
    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__()
        self._tokenizer = tokenizer

    def __missing__(self, piece: str) -> int:
        if len(self) >= _MOST_PIECES:
            self.clear()
        self[piece] = length = len(self._tokenizer.encode(piece, add_special_tokens=False).ids)
        return length
