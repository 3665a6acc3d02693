"""Inspect AI scorers as checks: `inspect:includes`, or a user's own as `inspect:file.py:function`.

The scorer is created without arguments; wrap one that needs arguments in a function. Its target is the row's `expected`
(one text or several), else the teacher's answer. Its value must reach the row's `least_score`, by default 1, which is
Inspect's CORRECT. Requires the package inspect-ai (https://inspect.aisi.org.uk).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from journeyman.errors import UsageError
from journeyman.reasons.checking import DataOfOtherType, NothingExpected, Scored
from journeyman.scoring.contracts import Answer, Check, CheckResult
from journeyman.scoring.own_function import load_function

PREFIX = "inspect:"


@cache
def load_scorer(name: str, folder: Path) -> Check:
    """Loads the check `name` in this process.

    Raises:
        UsageError: inspect-ai is not installed or has no such scorer, or the file has no such function.
    """
    try:
        import inspect_ai.scorer as scorers
    except ImportError as error:
        raise UsageError(f"check {name!r} needs the package inspect-ai", "Run: pip install inspect-ai") from error
    asked = name.removeprefix(PREFIX)
    make = load_function(asked, folder, name) if ":" in asked else getattr(scorers, asked, None)
    if not callable(make):
        raise UsageError(f"check {name!r}: Inspect AI has no scorer {asked!r}", "For example: inspect:includes")
    try:
        score = make()
    except TypeError as error:
        raise UsageError(
            f"check {name!r} cannot be created without arguments: {error}",
            "Wrap it in a function of your own: inspect:file.py:function",
        ) from error
    to_number = scorers.value_to_float()

    def check(answer: Answer) -> CheckResult:
        least = answer.data.get("least_score", 1.0)
        if isinstance(least, bool) or not isinstance(least, int | float):
            return CheckResult("unscored", DataOfOtherType("least_score", "a number"))
        targets = _targets(answer)
        if not targets:
            return CheckResult("unscored", NothingExpected())
        given = asyncio.run(_score(score, answer, targets))
        reached = to_number(given.value)
        scored = Scored(name, repr(given.value), f"{least:g}", str(given.explanation or ""))
        return CheckResult("pass" if reached >= least else "fail", scored)

    return check


def _targets(answer: Answer) -> list[str]:
    expected = answer.data.get("expected")
    if isinstance(expected, list) and all(isinstance(one, str) for one in expected):
        return expected
    return [text] if (text := answer.expected_text()) else []


async def _score(score: Callable[..., Any], answer: Answer, targets: list[str]) -> Any:
    from inspect_ai.model import ChatMessageUser, ModelName, ModelOutput
    from inspect_ai.scorer import Target
    from inspect_ai.solver import TaskState

    output, target = ModelOutput.from_content("answer", answer.text), Target(targets)
    state = TaskState(
        model=ModelName("journeyman/answer"), sample_id="row", epoch=1, input=answer.task, target=target, output=output,
        messages=[ChatMessageUser(content=answer.task), output.message], metadata=dict(answer.data), completed=True,
    )  # fmt: skip
    return await score(state, target)
