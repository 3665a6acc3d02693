"""Measures prompts and answers in tokens of the base, and proposes limits."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from journeyman.config import EMBEDDED
from journeyman.errors import InputError
from journeyman.models.opening import base_at_hand, open_base, sizes_of
from journeyman.proposing.checks import answer_text
from journeyman.records import Interaction
from journeyman.rendering.renderer import Renderer

_MOST_COUNTED, _MOST_CHARACTERS = 300, 4_000_000
"""Number of rows, and of characters in them, whose tokens are counted; the rest is estimated from characters."""
_CHARACTERS_PER_TOKEN = 3.5
"""Used if no base is available."""
_ROOM = 1.25
_SPARE_CONTEXT = 32_768
"""Assumed context, in tokens, of a base that is not available."""


@dataclass(frozen=True)
class Length:
    """The length of a row, in tokens."""

    role: str
    prompt: int
    answer: int

    @property
    def total(self) -> int:
        return self.prompt + self.answer


@dataclass(frozen=True)
class Limits:
    """Proposed limits, in tokens.

    Attributes:
        max_length: curate.max_length.
        max_new_tokens, context: those of [evaluate].
        over: number of sampled rows that are longer than max_length.
    """

    max_length: int
    max_new_tokens: int
    context: int
    over: int


@dataclass(frozen=True)
class Lengths:
    """Lengths of the sampled rows.

    Attributes:
        rows: one length per interaction, in order.
        counted: number of rows whose tokens were counted; the others are estimated from characters.
        base: the base's file name; "" if none is available.
        base_context: the base's context, in tokens.
        refused: why the base's chat template refuses rows → number of rows, among those rendered for counting.
    """

    rows: list[Length]
    counted: int
    base: str
    base_context: int
    refused: dict[str, int]

    def limits(self) -> Limits:
        """Limits for 99 % of the rows, with room for longer rows that the sample missed."""
        totals, answers = [one.total for one in self.rows], [one.answer for one in self.rows]
        wanted = max(quantile(totals, 0.99) * _ROOM, 512)
        max_length = 512
        while max_length < wanted:
            max_length *= 2
        max_length = min(max_length, self.base_context)
        new = min(_rounded(quantile(answers, 0.99) * _ROOM, 64), max_length // 2 if max_length >= 1024 else max_length)
        context = min(_rounded(max_length + new, 256), self.base_context)
        return Limits(max_length, new, context, sum(total > max_length for total in totals))


def quantile(values: Sequence[int], share: float) -> int:
    """The smallest value that is at least as large as this share of the values; 0 if there are none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0


def _rounded(value: float, unit: int) -> int:
    return max(1, -(-int(value) // unit)) * unit


def measured(rows: Sequence[Interaction], folder: Path, model: str = EMBEDDED) -> Lengths:
    """Measures lengths in tokens of the base that `model` names; without it, estimates them as characters / 3.5."""
    characters = [(_prompt_characters(one), _answer_characters(one)) for one in rows]
    path = base_at_hand(model, folder)
    renderer, name, context = _renderer(path)
    made = [Length(one.role, _estimate(p), _estimate(a)) for one, (p, a) in zip(rows, characters, strict=True)]
    if renderer is None:
        return Lengths(made, 0, "", context, {})
    exact: dict[int, Length] = {}
    refused: dict[str, int] = {}
    spent, step = 0, max(1, len(rows) // _MOST_COUNTED)
    for place in range(0, len(rows), step):
        spent += sum(characters[place])
        if exact and spent > _MOST_CHARACTERS:
            break
        try:
            exact[place] = _counted(renderer, rows[place])
        except InputError as error:
            why = f"{error.what.replace(str(path), name)}. {error.remedy}"
            refused[why] = refused.get(why, 0) + 1
    prompts = _Ratios((rows[place].role, characters[place][0], one.prompt) for place, one in exact.items())
    answers = _Ratios((rows[place].role, characters[place][1], one.answer) for place, one in exact.items())
    for place, (one, (prompt, answer)) in enumerate(zip(rows, characters, strict=True)):
        known = exact.get(place)
        made[place] = known or Length(one.role, prompts.tokens(one.role, prompt), answers.tokens(one.role, answer))
    return Lengths(made, len(exact), name, context, refused)


class _Ratios:
    """Tokens per character of the counted rows, by role."""

    def __init__(self, counted: Iterable[tuple[str, int, int]]) -> None:
        self._characters: Counter[str] = Counter()
        self._tokens: Counter[str] = Counter()
        for role, characters, tokens in counted:
            self._characters[role] += characters
            self._tokens[role] += tokens

    def tokens(self, role: str, characters: int) -> int:
        """Estimated tokens of a text of the role."""
        if not self._characters[role]:
            return _estimate(characters)
        return round(characters * self._tokens[role] / self._characters[role])


def _renderer(path: Path | None) -> tuple[Renderer | None, str, int]:
    if path is None:
        return None, "", _SPARE_CONTEXT
    try:
        base = open_base(path)
        return Renderer(base), path.name, sizes_of(base).context
    except InputError:  # reported by the stage that needs the base
        return None, "", _SPARE_CONTEXT


def _counted(renderer: Renderer, one: Interaction) -> Length:
    answer = renderer.answer_text(one.messages, answer_text(one), one.output_calls, one.tools)
    return Length(one.role, renderer.prompt_tokens(one.messages, one.tools), renderer.count(answer) + 1)


def _estimate(characters: int) -> int:
    return round(characters / _CHARACTERS_PER_TOKEN)


def _prompt_characters(one: Interaction) -> int:
    calls = sum(len(str(call.arguments)) for turn in one.messages for call in turn.tool_calls)
    return sum(len(turn.content) for turn in one.messages) + calls + (len(json.dumps(one.tools)) if one.tools else 0)


def _answer_characters(one: Interaction) -> int:
    return len(answer_text(one)) + sum(len(call.name) + len(str(call.arguments)) for call in one.output_calls)
