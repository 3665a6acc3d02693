"""Splits special tokens off a text before the rest is tokenized, as the engine does.

Source: llama.cpp, src/llama-vocab.cpp (tokenizer_st_partition). The engine takes all occurrences of the longest special
token first, then those of the next one. A single regular expression, which takes the longest token at the first
place, has the same result unless tokens overlap.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping

from journeyman.rendering.any_of import any_of

_WHITE_SPACE = " \t\n\v\f\r"
_MOST_PARTS = 1 << 24  # characters in all beginnings of all tokens, twice; Gemma's have a million


class SpecialTokens:
    """The special tokens of a base.

    Args:
        ids: text → id.
        strips_left, strips_right: tokens that take the white space on that side of them with them.

    Raises:
        ValueError: two tokens of the same length overlap, so it is undefined which of them the engine takes; or there
            are too many.
    """

    def __init__(
        self,
        ids: Mapping[str, int],
        strips_left: frozenset[str] = frozenset(),
        strips_right: frozenset[str] = frozenset(),
    ) -> None:
        self._ids = ids
        if sum(len(text) ** 2 for text in ids) > _MOST_PARTS:
            raise ValueError(f"{len(ids):,} special tokens with up to {max(map(len, ids)):,} characters")
        self._any = any_of(ids)
        self._strips_left, self._strips_right = strips_left, strips_right
        self._by_length = sorted(ids, key=lambda text: len(text.encode()), reverse=True)
        self._one_by_one = bool(strips_left or strips_right or _overlap(self._by_length))

    def split(self, text: str) -> list[str | int]:
        """The text as parts without special tokens, none of them empty, and the ids of special tokens."""
        if not self._any.search(text):
            return [text] if text else []
        return list(self._in_order_of_length(text) if self._one_by_one else self._in_one_pass(text))

    def ends_with_one(self, text: str) -> bool:
        """Whether a special token is the last part of a text; True if it is empty."""
        parts = self.split(text)
        return not parts or isinstance(parts[-1], int)

    def _in_one_pass(self, text: str) -> Iterator[str | int]:
        at = 0
        for found in self._any.finditer(text):
            if found.start() > at:
                yield text[at : found.start()]
            yield self._ids[found[0]]
            at = found.end()
        if at < len(text):
            yield text[at:]

    def _in_order_of_length(self, text: str) -> list[str | int]:
        parts: list[str | int] = [text]
        for token in self._by_length:
            if token in text:
                parts = [
                    piece
                    for part in parts
                    for piece in ([part] if isinstance(part, int) else self._around(token, part))
                ]
        return parts

    def _around(self, token: str, text: str) -> Iterator[str | int]:
        while (at := text.find(token)) >= 0:
            left = text[:at].rstrip(_WHITE_SPACE) if token in self._strips_left else text[:at]
            if left:
                yield left
            yield self._ids[token]
            text = text[at + len(token) :]
            if token in self._strips_right:
                text = text.lstrip(_WHITE_SPACE)
        if text:
            yield text


def _overlap(by_length: list[str]) -> bool:
    """Whether the end of a token is the beginning of a longer one, so that the order in which they are taken matters.

    Runs of one character don't count: in a run, the longest token is the first one at each place as well.

    Raises:
        ValueError: as SpecialTokens.
    """
    endings = {token[at:] for token in by_length for at in range(1, len(token))}
    beginnings: dict[str, dict[int, list[str]]] = defaultdict(lambda: defaultdict(list))
    for token in by_length:
        for length in range(1, len(token)):
            if token[:length] in endings:
                same_size = beginnings[token[:length]][len(token.encode())]
                if len(same_size) < 2:  # a token and another one are enough
                    same_size.append(token)
    found = False
    for token in by_length:
        size, run = len(token.encode()), len(set(token)) == 1
        for length in range(1, len(token)):
            for other_size, others in beginnings.get(token[-length:], {}).items():
                others = [other for other in others if other != token and not (run and set(other) == set(token))]
                if others and other_size == size:
                    raise ValueError(f"the tokens {token!r} and {others[0]!r} overlap")
                found |= bool(others) and other_size > size
    return found
