"""Verifies the loss mask of every row before the first step."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

from journeyman.errors import InputError
from journeyman.records import Example
from journeyman.rendering.renderer import Rendered

Part = Literal["prompt", "trained", "terminator"]


def parts(rendered: Rendered) -> list[Part]:
    """The kind of each token: prompt (no loss), trained, or the trained terminator."""
    trained = len(rendered.ids) - rendered.prompt_tokens - rendered.ends
    prompt: list[Part] = ["prompt"] * rendered.prompt_tokens
    answer: list[Part] = ["trained"] * trained
    end: list[Part] = ["terminator"] * rendered.ends
    return prompt + answer + end


def check_mask(row: Example, rendered: Rendered, end_ids: Collection[int]) -> None:
    """Checks that no prompt token is trained, that the terminator of a complete answer is, and some of the answer too.

    Args:
        end_ids: tokens that end an answer; one with tool calls may end with another one than a plain answer.

    Raises:
        InputError: names the row and the problem.
    """
    problem = None
    if rendered.prompt_tokens != row.prompt_tokens:
        problem = f"the prompt has {rendered.prompt_tokens} tokens, curate counted {row.prompt_tokens}"
    elif rendered.trained_tokens != row.answer_tokens:
        problem = f"{rendered.trained_tokens} tokens are trained, curate counted {row.answer_tokens}"
    elif rendered.prompt_tokens == 0:
        problem = "there is no prompt"
    elif rendered.trained_tokens <= rendered.ends:
        problem = "no token of the answer is trained"
    elif rendered.ends and rendered.ids[-1] not in end_ids:
        problem = f"it ends with token {rendered.ids[-1]}, not with a terminator ({', '.join(map(str, end_ids))})"
    elif not set(end_ids).isdisjoint(rendered.ids[rendered.prompt_tokens : len(rendered.ids) - rendered.ends]):
        problem = "a terminator is in the middle of the answer"
    elif not 0 < rendered.weight <= 1:
        problem = f"its weight is {rendered.weight}"
    if problem is not None:
        raise InputError(f"row {row.id} ({row.role}): {problem}", "Run: journeyman curate --redo")
