"""General prompts that are trained beside the rows, with the base's own answers, so that tuning costs less of what the
base can do (self-distillation).

prompts.jsonl: short questions and instructions of many kinds, some with tools. None of them is in the regression suite,
nor similar to a question there: the suite measures what was lost, so it must not be learned.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

from pydantic import Field, ValidationError

from journeyman.errors import InputError
from journeyman.foreign import plain
from journeyman.records import Message, Record

ROLE = "general prompts"
"""What stands for a role where the base answers such a prompt."""
_T = TypeVar("_T")


class GeneralPrompt(Record):
    """A prompt without a role."""

    id: str = ""
    task: str = Field(min_length=1)
    tools: list[dict[str, Any]] = Field(default_factory=list)

    @property
    def messages(self) -> list[Message]:
        return [Message(role="user", content=self.task)]


def shipped_prompts() -> str:
    """The general prompts that come with journeyman, as JSON lines."""
    return files("journeyman.retention").joinpath("prompts.jsonl").read_text(encoding="utf-8")


def read_prompts(path: Path | None) -> list[GeneralPrompt]:
    """The prompts of a file, in its order, each once; None: those that are shipped.

    Args:
        path: a text file with a prompt on each line, or JSON lines with `task` and perhaps `tools`.

    Raises:
        InputError: there is no such file, it is empty, or a line of it is no prompt.
    """
    name = "prompts.jsonl" if path is None else str(path)
    try:
        text = shipped_prompts() if path is None else path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeError) as error:
        raise InputError(f"{name}: {plain(str(error), 200)}", "Correct train.retention.prompts") from error
    lines = [(number, line.strip()) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    once: dict[str, GeneralPrompt] = {}
    for number, line in lines:
        one = _prompt(line, number, name, is_json=name.endswith(".jsonl"))
        once.setdefault(json.dumps([one.task, one.tools], sort_keys=True), one)
    if not once:
        raise InputError(f"{name}: there is no prompt in it", "Correct train.retention.prompts")
    return list(once.values())


def _prompt(line: str, number: int, name: str, *, is_json: bool) -> GeneralPrompt:
    try:
        made = GeneralPrompt.model_validate(json.loads(line)) if is_json else GeneralPrompt(task=line)
    except (ValueError, ValidationError) as error:
        raise InputError(
            f"{name}, line {number}: {plain(line, 80)!r} is no prompt", 'It must be like {"task": "What is a lake?"}'
        ) from error
    return made if made.id else made.model_copy(update={"id": f"line-{number}"})


@dataclass(frozen=True)
class GeneralLoad:
    """What general rows cost, before their answers are known.

    Attributes:
        prompts: that the base answers.
        mean_tokens, longest_tokens: of a row, if its answer is as long as it may be.
    """

    prompts: int = 0
    mean_tokens: float = 0.0
    longest_tokens: int = 0

    def rows(self, train_rows: int, share: float) -> int:
        """How many of them are trained beside so many training rows: none if there are no prompts."""
        return general_rows(train_rows, share) if self.prompts else 0


NO_LOAD = GeneralLoad()
"""Without general rows."""


def general_rows(rows: int, share: float) -> int:
    """How many general rows are trained beside so many training rows."""
    return round(rows * share)


def shuffled(prompts: Sequence[_T], seed: int) -> list[_T]:
    """The order in which prompts are taken, which depends on the seed alone."""
    order = list(prompts)
    random.Random(f"{seed}/general").shuffle(order)
    return order


def repeated(rows: Sequence[_T], count: int) -> list[_T]:
    """The first `count` of the rows; from the start again if there are fewer. None of none."""
    return [rows[number % len(rows)] for number in range(count)] if rows else []
