"""What a check is, what it gets and what it returns. Every other module of this package builds on this one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from journeyman.foreign import plain
from journeyman.reasons import Reason
from journeyman.records import ToolCall

Outcome = Literal["pass", "fail", "unscored"]
_MOST_TEXT = 500


@dataclass(frozen=True)
class Limits:
    """What one run of model-written code may use; processor time and memory for each of the sandbox's two processes.

    Attributes:
        wall_s: from the moment at which foreign code may begin; starting has a limit of its own.
        unsafe: run even where no walls can be had.
        bubblewrap: let it build the walls where it works.
    """

    wall_s: float = 5.0
    cpu_s: int = 4
    memory_bytes: int = 512 << 20
    unsafe: bool = False
    bubblewrap: bool = True


@dataclass(frozen=True)
class RunResult:
    """What the sandbox returns. `passed` is None where the code could not be run at all; `reason` is why it is not
    True."""

    passed: bool | None
    reason: Reason | None = None


@dataclass(frozen=True)
class Answer:
    """What is judged.

    Attributes:
        text, finish_reason, calls: what the model said, and why it ended.
        data: the row's `check`.
        task: what was asked, without the system prompt.
        reference, reference_calls: what the teacher answered; None where that is not known.
    """

    text: str
    finish_reason: str
    data: Mapping[str, Any]
    limits: Limits
    calls: Sequence[ToolCall] = ()
    reference: str | None = None
    reference_calls: Sequence[ToolCall] = ()
    task: str = ""

    def expected_text(self) -> str:
        """The row's `expected`, else the teacher's answer, else nothing."""
        expected = self.data.get("expected")
        return expected if isinstance(expected, str) else self.reference or ""


@dataclass(frozen=True)
class CheckResult:
    """The outcome of one check. What the reason holds of answers and rows is as it was: see `safe`."""

    outcome: Outcome
    reason: Reason | None = None

    def safe(self) -> CheckResult:
        """The same, with every text of the reason cut and safe to show."""
        if self.reason is None:
            return self
        texts = {name: plain(text, _MOST_TEXT) for name, text in self.reason.details.items() if isinstance(text, str)}
        return replace(self, reason=replace(self.reason, **texts))

    def told(self) -> str:
        """The reason as a sentence; "" where there is none."""
        return "" if self.reason is None else self.reason.sentence()


Check = Callable[[Answer], CheckResult]


@dataclass(frozen=True)
class Judgement:
    """What a role's checks say together: the check that decides, its finding, and every outcome that was asked for."""

    check: str
    finding: CheckResult
    outcomes: Mapping[str, Outcome]
