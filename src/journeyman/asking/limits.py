"""The limit of each new answer, and what all of them will cost at most."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from journeyman.asking.choosing import NO_ROOM, Chosen, Wanted
from journeyman.config import AskAgainConfig, ModelPrice
from journeyman.rendering.renderer import Renderer

UNKNOWN_LIMIT = 1024
"""Tokens, for a row whose log names no limit and whose answer was not cut."""
_CUT = ("truncated", "unclosed_reasoning")
_TURN = 4
"""Tokens that templates add to a turn, about."""


@dataclass(frozen=True)
class Cost:
    """What asking will cost at most; estimates with the base's tokenizer.

    Attributes:
        dollars: None: the price is not known.
        seconds: at the pace of the logged answers, None: no durations were logged.
    """

    rows: int
    prompt_tokens: int
    answer_tokens: int
    dollars: float | None
    seconds: float | None


def with_limits(
    chosen: Chosen, config: AskAgainConfig, context: int, renderer: Renderer, last: Mapping[str, int]
) -> list[Wanted]:
    """The rows with the limits of their answers. Those for which no longer answer fits are counted as left out.

    An answer that was cut gets twice the tokens that it had; another one those that the log names. Neither gets more
    than the endpoint accepts, nor more than fits into `context` beside the prompt: a longer answer could not be served.

    Args:
        context: of prompt and answer of the model that is tuned, in tokens.
        last: question → the limit at which it was cut when it was asked before.
    """
    made = []
    for one in chosen.wanted:
        prompt = prompt_tokens(one, renderer)
        before = max(last.get(one.question, 0), one.row.max_tokens or 0)
        cut = one.rule in _CUT or one.question in last
        if cut and not before:
            before = renderer.count(one.row.output or "")
        most = context - prompt
        if config.max_tokens is not None:
            most = min(most, config.max_tokens)
        limit = min(most, 2 * before if cut else before or UNKNOWN_LIMIT)
        if limit < 1 or (cut and limit <= before):
            chosen.left_out[NO_ROOM] += 1
            continue
        made.append(replace(one, limit=limit, prompt_tokens=prompt))
    return made


def prompt_tokens(one: Wanted, renderer: Renderer) -> int:
    """The prompt's length as the base's tokenizer counts it, with a few tokens for each turn."""
    tools = renderer.count(json.dumps(one.row.tools)) if one.row.tools else 0
    calls = sum(
        renderer.count(json.dumps(call.as_openai())) for turn in one.row.messages for call in turn.tool_calls
    )  # fmt: skip
    return tools + calls + sum(renderer.count(turn.content) + _TURN for turn in one.row.messages)


def cost_of(wanted: Sequence[Wanted], price: ModelPrice | None, parallel: int) -> Cost:
    """An upper bound of the tokens, and the time if the teacher is as fast as the logs say."""
    prompt, answer = sum(one.prompt_tokens for one in wanted), sum(one.limit for one in wanted)
    dollars = None if price is None else (prompt * price.prompt + answer * price.answer) / 1e6
    timed = [one.row.duration_ms for one in wanted if one.row.duration_ms and one.rule != "failed"]
    seconds = None
    if timed:  # a cut answer may take as long again
        seconds = 2 * sum(timed) / len(timed) * len(wanted) / 1000 / parallel
    return Cost(len(wanted), prompt, answer, dollars, seconds)
