"""Finds texts that would end the engine's process.

With most pre-tokenizers, the engine splits text with std::regex, which calls itself once for each character of a match:
on a stack of 8 MB, a run of 23,700 letters, line ends or marks crashes it (measured with llama.cpp's wheel for Linux).
It has its own code, without such calls, for the splits of gpt-2, llama-bpe, qwen2 and a few more.
"""

from __future__ import annotations

import re

from tokenizers import pre_tokenizers

from journeyman.models.base import TokenizerData
from journeyman.models.pre_tokenizers import PRE_TOKENIZERS
from journeyman.rendering.byte_bpe import splitters

_MOST_CHARACTERS = 8_000
_MAY_BE_TOO_LONG = re.compile(rf"\S{{{_MOST_CHARACTERS // 2}}}|\s{{{_MOST_CHARACTERS // 2}}}")


class RunLimit:
    """The longest match that the engine may be given."""

    def __init__(self, data: TokenizerData) -> None:
        split = PRE_TOKENIZERS.get(data.split) if data.kind == "gpt2" else None
        passes = splitters(split.passes) if split is not None and split.recurses else []
        self._splits = [pre_tokenizers.Sequence(passes[:end]) for end in range(1, len(passes) + 1)]
        self._spans_words = split is not None and split.spans_words

    def exceeded_by(self, text: str) -> int | None:
        """The length of a match that is too long; None for nearly every text."""
        if not self._splits or len(text) <= _MOST_CHARACTERS:
            return None
        if not self._spans_words and not _MAY_BE_TOO_LONG.search(text):
            return None
        longest = max(len(piece) for split in self._splits for piece, _ in split.pre_tokenize_str(text))
        return longest if longest > _MOST_CHARACTERS else None
