"""Builds the tokenizer of a base, with the ids of the engine (llama.cpp), because it serves.

`evaluate` verifies this: it compares the token ids of every prompt with the engine's before it asks for an answer.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

from journeyman.errors import InputError
from journeyman.foreign import plain
from journeyman.models.base import BYTE, CONTROL, UNKNOWN, USER_DEFINED, TokenizerData
from journeyman.models.pre_tokenizers import PRE_TOKENIZERS, REFUSED
from journeyman.rendering.byte_bpe import BYTE_OF, ByteBpe
from journeyman.rendering.sentencepiece_bpe import SPACE, SentencePieceBpe
from journeyman.rendering.specials import SpecialTokens
from journeyman.rendering.token_types import stripping, token_types

_REMEDY = (
    "Use a base whose tokenizer.ggml.model is 'llama', or 'gpt2' with a tokenizer.ggml.pre that docs/bases.md lists"
)
_BYTE_TOKEN = re.compile("<0x[0-9A-Fa-f]{2}>")
_MOST_TOKENS = 1 << 21
_MOST_REPEATED, _LONGEST_REPEATED = 2_048, 4_096


class Pieces(Protocol):
    """Tokenizes text without special tokens; `continues`: no special token and no beginning stands before it."""

    def encode(self, text: str, continues: bool = False) -> list[int]: ...

    def count(self, text: str, continues: bool = False) -> int: ...


class Tokenizer:
    """Text → token ids and back.

    Args:
        pieces: tokenizes what is between special tokens.
        bytes_of: the bytes that an id stands for.
    """

    def __init__(self, pieces: Pieces, specials: SpecialTokens, bytes_of: Callable[[int], bytes]) -> None:
        self._pieces, self.specials, self._bytes_of = pieces, specials, bytes_of
        self._repeated: dict[tuple[str, bool], int] = {}

    def encode(self, text: str, continues: bool = False) -> list[int]:
        """The ids of a text; `continues`: other text, which does not end with a special token, stands before it."""
        ids: list[int] = []
        for part in self.specials.split(text):
            if isinstance(part, int):
                ids.append(part)
                continues = False
            else:
                ids += self._pieces.encode(part, continues)
        return ids

    def count(self, text: str, continues: bool = False) -> int:
        """`len(encode(text, continues))`, several times faster."""
        total = 0
        for part in self.specials.split(text):
            if isinstance(part, int):
                total += 1
                continues = False
            else:
                total += self._pieces.count(part, continues)
        return total

    def count_repeated(self, text: str, continues: bool = False) -> int:
        """`count` for texts that may come again, such as system prompts: the counts of short ones are kept."""
        if len(text) > _LONGEST_REPEATED:
            return self.count(text, continues)
        known = self._repeated.get((text, continues))
        if known is None:
            if len(self._repeated) >= _MOST_REPEATED:
                self._repeated.clear()
            self._repeated[text, continues] = known = self.count(text, continues)
        return known

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, special tokens included; bytes that are not UTF-8 become U+FFFD."""
        return b"".join(map(self._bytes_of, ids)).decode(errors="replace")


def tokenizer_of(data: TokenizerData, where: str) -> Tokenizer:
    """The tokenizer of a base.

    Args:
        where: the file, for error messages.

    Raises:
        InputError: there is none, its kind is not supported, or its data contradict each other.
    """
    if reason := _not_supported(data):
        raise InputError(f"{where}: {reason}", _REMEDY)
    if data.adds_end:
        raise InputError(
            f"{where}: the header says that prompts end with the token that ends an answer",
            "Convert the model again, with tokenizer.ggml.add_eos_token = false",
        )
    try:
        return _build(data)
    except Exception as error:  # the library raises plain Exceptions for an inconsistent vocabulary
        shown = plain(str(error), 200)
        raise InputError(f"{where}: the tokenizer in the header is damaged: {shown}", "Use another file") from error


def _not_supported(data: TokenizerData) -> str | None:
    kind, split = plain(str(data.kind), 40), plain(str(data.split), 40)
    if data.kind == "llama":
        return None
    if data.kind != "gpt2":
        return f"tokenizer kind {kind!r} is not supported"
    if not isinstance(data.split, str):
        return f"pre-tokenizer {split} is not supported"
    if data.split in REFUSED:
        return f"pre-tokenizer {split!r} {REFUSED[data.split]}, which is not supported"
    return None if data.split in PRE_TOKENIZERS else f"pre-tokenizer {split!r} is not supported"


def _build(data: TokenizerData) -> Tokenizer:
    if len(data.tokens or ()) > _MOST_TOKENS:
        raise ValueError(f"{len(data.tokens or ()):,} tokens")
    typed = token_types(data)
    tokens = [token for token, _ in typed]
    ids = {token: number for number, token in enumerate(tokens)}
    if len(ids) < len(tokens):  # llama.cpp fails with an assertion
        raise ValueError(f"{len(tokens) - len(ids)} tokens are duplicates")
    for number in (data.begin_id, data.end_id):
        if isinstance(number, int) and not 0 <= number < len(tokens):
            raise ValueError(f"there is no token {number}")
    if wrong := [token for token, kind in typed if kind == BYTE and not _BYTE_TOKEN.fullmatch(token)]:
        raise ValueError(f"{wrong[0]!r} stands for no byte")
    special = {token: ids[token] for token, kind in typed if kind in (UNKNOWN, CONTROL, USER_DEFINED)}
    specials = SpecialTokens(special, *stripping(data))
    if data.kind == "llama":
        pieces: Pieces = SentencePieceBpe(tokens, _scores(data, len(tokens)), data.adds_space)
        return Tokenizer(pieces, specials, partial(_bytes_of_spm, typed))
    if data.merges is None:
        raise ValueError("the merges are missing")
    pieces = ByteBpe(tokens, data.merges, PRE_TOKENIZERS[data.split])
    return Tokenizer(pieces, specials, partial(_bytes_of_bpe, typed))


def _scores(data: TokenizerData, tokens: int) -> Sequence[float]:
    scores = [0.0] * tokens if data.scores is None else data.scores  # as the engine does
    if len(scores) != tokens or not all(map(math.isfinite, scores)):
        raise ValueError(f"{len(scores)} scores, some of which may not be numbers, for {tokens} tokens")
    return scores


def _bytes_of_spm(typed: Sequence[tuple[str, int]], number: int) -> bytes:
    token, kind = typed[number]
    if kind == BYTE:
        return bytes([int(token[3:5], 16)])
    return (token if kind in (UNKNOWN, CONTROL, USER_DEFINED) else token.replace(SPACE, " ")).encode()


def _bytes_of_bpe(typed: Sequence[tuple[str, int]], number: int) -> bytes:
    token, kind = typed[number]
    if kind in (UNKNOWN, CONTROL, USER_DEFINED):
        return token.encode()
    return b"".join([bytes([BYTE_OF[char]]) if char in BYTE_OF else char.encode() for char in token])
