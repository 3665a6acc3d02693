"""SentencePiece BPE as the engine does it, for GGUF's tokenizer kind `llama`.

Characters are merged in pairs. Of all pairs whose text is a token, the one whose token has the highest score is merged
first; of equal scores, the leftmost. A character that is no token becomes its bytes. Source: llama.cpp,
src/llama-vocab.cpp (llm_tokenizer_spm_session).

The `tokenizers` library cannot do this exactly. It ranks pairs, so two ways to split the same token have different
ranks there and equal scores here, and of these the engine merges the leftmost. Written here, it is also faster: text
is cut where no token holds the two characters at the cut, so that no merge crosses it. That is before most spaces,
and words repeat.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from heapq import heapify, heappop, heappush

SPACE = "\u2581"
_MOST_WORDS, _LONGEST_WORD = 500_000, 100


class SentencePieceBpe:
    """Tokenizes texts that contain no special token.

    Args:
        tokens: the text of each id, every text once.
        scores: one for each token.
        adds_space: a space is put before a text that does not continue another one.

    Raises:
        ValueError: a byte has no token.
    """

    def __init__(self, tokens: Sequence[str], scores: Sequence[float], adds_space: bool) -> None:
        self._ids = {token: number for number, token in enumerate(tokens)}
        self._scores = scores
        self._adds_space = adds_space
        missing = [byte for byte in range(256) if f"<0x{byte:02X}>" not in self._ids]
        if missing:
            raise ValueError(f"{len(missing)} bytes have no token, such as <0x{missing[0]:02X}>")
        self._bytes = [self._ids[f"<0x{byte:02X}>"] for byte in range(256)]
        # Characters after which a space does not begin a new word, because a token holds both.
        held = {token[place - 1] for token in tokens for place in _spaces_within(token)} - {SPACE}
        joins = rf"(?:(?<=[{re.escape(''.join(sorted(held)))}]){SPACE}+[^{SPACE}]*)*" if held else ""
        self._words = re.compile(f"{SPACE}*[^{SPACE}]+{joins}|{SPACE}+")
        self._known: dict[str, tuple[int, ...]] = {}

    def encode(self, text: str, continues: bool = False) -> list[int]:
        """The ids of a text; `continues`: more text stands before it."""
        ids: list[int] = []
        for word in self._words_of(text, continues):
            ids += self._known.get(word) or self._new(word)
        return ids

    def count(self, text: str, continues: bool = False) -> int:
        """`len(encode(text, continues))`."""
        known, new = self._known.get, self._new
        return sum([len(known(word) or new(word)) for word in self._words_of(text, continues)])

    def _words_of(self, text: str, continues: bool) -> list[str]:
        if self._adds_space and not continues:
            text = " " + text
        return self._words.findall(text.replace(" ", SPACE))

    def _new(self, word: str) -> tuple[int, ...]:
        ids = tuple(self._merged(word))
        if len(word) <= _LONGEST_WORD:
            if len(self._known) >= _MOST_WORDS:
                self._known.clear()
            self._known[word] = ids
        return ids

    def _merged(self, word: str) -> list[int]:
        size = len(word)
        texts: list[str] = list(word)  # "" for one that was merged into its left neighbour
        before, after = list(range(-1, size - 1)), list(range(1, size + 1))
        ids, scores = self._ids, self._scores
        waiting: list[tuple[float, int, int]] = []  # (-score, place of the left one, characters of both)
        for place in range(size - 1):
            number = ids.get(word[place : place + 2])
            if number is not None:
                waiting.append((-scores[number], place, 2))
        heapify(waiting)
        while waiting:
            _, left, length = heappop(waiting)
            right = after[left]
            if right >= size or not texts[left] or len(texts[left]) + len(texts[right]) != length:
                continue
            texts[left] += texts[right]
            texts[right] = ""
            following = after[left] = after[right]
            if following < size:
                before[following] = left
                number = ids.get(texts[left] + texts[following])
                if number is not None:
                    heappush(waiting, (-scores[number], left, length + len(texts[following])))
            previous = before[left]
            if previous >= 0:
                number = ids.get(texts[previous] + texts[left])
                if number is not None:
                    heappush(waiting, (-scores[number], previous, len(texts[previous]) + length))
        found: list[int] = []
        for text in texts:
            if text:
                number = ids.get(text)
                found += [number] if number is not None else [self._bytes[byte] for byte in text.encode()]
        return found


def _spaces_within(token: str) -> list[int]:
    """The places of spaces in a token, but for its first character."""
    return [place for place in range(1, len(token)) if token[place] == SPACE] if SPACE in token[1:] else []
