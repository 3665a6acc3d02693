"""What a regular expression in a schema costs the engine, which follows all of its ways through a text at once.

The engine turns `a{0,n}` into n optional rules, within each other if repetitions are, and lists after every character
each place of the pattern at which the text may be. So two figures count, both with all repetitions written out: how
many places there are, and at how many of them one text may be at the same time. That is one, as long as the next
character says which way the text goes: `([a-z]{1,9}-){1,9}`. If it may stay in a part or leave it, `(a{1,9}){1,9}`, it
may be at every place, and each token of the vocabulary is followed along each way on from there. With SmolLM2's 49,152
tokens, an answer of 64 took 1.4 s without a pattern, 1.3 s with 8 optional characters in a row, 1.9 s with 12, 4.4 s
with 16, and more than 20 s with 32.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache, reduce

_BRACES = re.compile(r"\{([^}]*)\}")
_NUMBER = re.compile(r"\s*\+?(\d+)", re.ASCII)
_CLASS = re.compile(r"\[\^?(?:\\.|[^\]\\])*\]?", re.DOTALL)
_GROUP = re.compile(r"\((?:\?(?:[:=!]|<[=!]|P?<\w*>))?")
_ESCAPED = re.compile(r"\\(?:x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|.|$)", re.DOTALL)
_RANGE = re.compile(
    r"(\\(?:x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|.|$)|.)"
    r"(?:-(\\(?:x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|.|$)|[^\]]))?",
    re.DOTALL,
)
_SPECIAL = frozenset("|()[]{}^$*+?")
"""Where the engine ends a literal; a dot ends one too, but may stand behind its last character."""
_CONTROL = {"n": "\n", "r": "\r", "t": "\t"}
_LAST = 0x10FFFF
_MOST = 1 << 40
_RANGES = 100
"""More ranges than these count as any character."""

_Characters = frozenset[tuple[int, int]]
"""Code points as ranges, ends included."""
_ANY: _Characters = frozenset({(0, _LAST)})
_NONE: _Characters = frozenset()


@dataclass(frozen=True)
class PatternCost:
    """Upper bounds for a part of a pattern.

    Attributes:
        places: characters and classes, with all repetitions written out.
        at_once: at how many of them one text may be at the same time.
        begin: the characters with which its texts begin.
        more: those with which a text that is complete may go on.
        empty: whether it matches the empty text.
        length: of all of its texts; None if they differ in length.
        backward: whether a repetition in it has a higher least number than its most, which the engine never finishes.
    """

    places: int = 0
    at_once: int = 0
    begin: _Characters = _NONE
    more: _Characters = _NONE
    empty: bool = True
    length: int | None = 0
    backward: bool = False

    @property
    def sure(self) -> bool:
        """Whether at most one of its places is its end at a time, and the text is at no other one then."""
        return self.at_once <= 1 or self.length is not None

    def then(self, other: PatternCost) -> PatternCost:
        leaves = _joined(self.more, self.begin) if self.empty else self.more
        if not self.sure or _overlap(leaves, other.begin):  # the other part may begin at several characters of a text
            at_once = self.at_once + min(other.places, max(self.places, 1) * other.at_once)
        else:
            at_once = max(self.at_once, other.at_once)
        begin = _joined(self.begin, other.begin) if self.empty else self.begin
        more = _joined(other.more, _joined(other.begin, self.more)) if other.empty else other.more
        length = None if self.length is None or other.length is None else self.length + other.length
        empty, backward = self.empty and other.empty, self.backward or other.backward
        return PatternCost(self.places + other.places, at_once, begin, more, empty, length, backward)

    def either(self, other: PatternCost) -> PatternCost:
        alike = _overlap(self.begin, other.begin)
        at_once = self.at_once + other.at_once if alike else max(self.at_once, other.at_once)
        begin, more = _joined(self.begin, other.begin), _joined(self.more, other.more)
        length = self.length if self.length == other.length else None
        empty, backward = self.empty or other.empty, self.backward or other.backward
        return PatternCost(self.places + other.places, at_once, begin, more, empty, length, backward)

    def repeated(self, least: int, most: int | None) -> PatternCost:
        """`most` None: without end, which is one rule that refers to itself."""
        backward = self.backward or (most is not None and least > most)
        if most == 0:
            return PatternCost(backward=backward)
        copies = min(max(least + 1 if most is None else most, 1), _MOST)
        again = copies > 1 or most is None
        places = self.places * copies
        loose = again and (self.empty or not self.sure or _overlap(self.more, self.begin))
        more = _joined(self.more, self.begin) if again and most != least else self.more
        length = self.length * least if self.length is not None and least == most else None
        return PatternCost(
            places, places if loose else self.at_once, self.begin, more, self.empty or least == 0, length, backward
        )


@lru_cache(maxsize=256)
def cost_of(pattern: str) -> PatternCost:
    """What a pattern costs; what the engine does not know (assertions, back references) counts as if it did."""
    # Of each group that is open: the parts before its last `|`, and those after it.
    open_: list[tuple[PatternCost | None, list[PatternCost]]] = [(None, [])]
    at, literal = 0, False
    while at < len(pattern):
        before, parts = open_[-1]
        character, length = pattern[at], 1
        if character == "(":
            open_.append((None, []))
            length = len(_matched(_GROUP, pattern, at))
        elif character == ")" and len(open_) > 1:
            open_.pop()
            open_[-1][1].append(_group(before, parts))
        elif character == "|":
            open_[-1] = (_group(before, parts), [])
        elif character in "*+?{" and parts and (counts := _counts(pattern, at)):
            least, most, length = counts
            parts[-1] = parts[-1].repeated(least, most)
        elif character not in "^$":
            text = _matched({"[": _CLASS, "\\": _ESCAPED}.get(character, _RANGE), pattern, at)
            text = text if character in "[\\" else character
            length = len(text)
            part = PatternCost(1, 1, _characters(text), _NONE, empty=False, length=1)
            if literal and _continues(pattern, at):
                part = parts.pop().then(part)
            parts.append(part)
        literal = character not in "[." and character not in _SPECIAL
        at += length
    while len(open_) > 1:
        before, parts = open_.pop()
        open_[-1][1].append(_group(before, parts))
    return _group(*open_[0])


def _continues(pattern: str, at: int) -> bool:
    """Whether a character belongs to the literal before it, so that a repetition that follows repeats all of it.

    The engine looks at what follows a plain character, but not at what follows an escape: `ab{2}` is abb, and `a\\.{2}`
    is a.a.
    """
    if (character := pattern[at]) == "\\":
        return True
    return character != "." and character not in _SPECIAL and pattern[at + 1 : at + 2] not in _SPECIAL


def _group(before: PatternCost | None, parts: list[PatternCost]) -> PatternCost:
    last = reduce(PatternCost.then, parts, PatternCost())
    return last if before is None else before.either(last)


def _counts(pattern: str, at: int) -> tuple[int, int | None, int] | None:
    """The least and the most times of a repetition, and its length in the pattern; None for a brace that is none."""
    if (character := pattern[at]) != "{":
        return int(character == "+"), 1 if character == "?" else None, 1
    found = _BRACES.match(pattern, at)
    if found is None:
        return None
    texts = found[1].split(",")
    numbers = [int(number[1][:12]) if (number := _NUMBER.match(text)) else None for text in texts]
    if len(texts) > 2 or any(text and number is None for text, number in zip(texts, numbers, strict=True)):
        return None
    return numbers[0] or 0, numbers[-1], len(found[0])


def _matched(expression: re.Pattern[str], pattern: str, at: int) -> str:
    found = expression.match(pattern, at)
    assert found is not None
    return found[0]


def _characters(text: str) -> _Characters:
    """The characters that an atom matches."""
    if text == "." or not text.startswith("["):
        point = None if text == "." else _point(text)
        return _ANY if point is None else frozenset({(point, point)})
    negated = text.startswith("[^")
    ranges = []
    for low, high in _RANGE.findall(text[2 if negated else 1 :].removesuffix("]")):
        first, last = _point(low), _point(high or low)
        if first is None or last is None:
            return _ANY
        ranges.append((first, last))
    return frozenset(_others(sorted(ranges)) if negated else ranges)


def _point(text: str) -> int | None:
    """The code point of a character or an escape; None for a class such as `\\w`."""
    if not text.startswith("\\") or len(text) == 1:
        return ord(text)
    kind = text[1]
    if kind in "xuU" and len(text) > 2:
        return int(text[2:], 16)
    return None if kind.isalnum() and kind not in _CONTROL else ord(_CONTROL.get(kind, kind))


def _others(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    found, free = [], 0
    for first, last in ranges:
        if free < first:
            found.append((free, first - 1))
        free = max(free, last + 1)
    return [*found, (free, _LAST)] if free <= _LAST else found


def _joined(one: _Characters, other: _Characters) -> _Characters:
    both = one | other
    return both if len(both) <= _RANGES else _ANY


def _overlap(one: _Characters, other: _Characters) -> bool:
    return any(first <= end and begin <= last for first, last in one for begin, end in other)
