"""The types of checks, of their input and of their results. All other modules of this package build on this one."""

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
    """Limits for one run of model-written code. Processor time and memory apply to each of the sandbox's two processes.

    Attributes:
        wall_s: wall time from when foreign code may start; starting the sandbox has its own limit.
        unsafe: run the code even if no sandbox is available.
        bubblewrap: use bubblewrap if it works.
    """

    wall_s: float = 5.0
    cpu_s: int = 4
    memory_bytes: int = 512 << 20
    unsafe: bool = False
    bubblewrap: bool = True


@dataclass(frozen=True)
class RunResult:
    """The result of a run in the sandbox. `passed` is None if the code could not be run at all; `reason` explains any
    value but True."""

    passed: bool | None
    reason: Reason | None = None


@dataclass(frozen=True)
class Answer:
    """An answer to be scored.

    Attributes:
        text, finish_reason, calls: the model's answer and why it ended.
        data: the row's `check`.
        task: the question, without the system prompt.
        reference, reference_calls: the teacher's answer; `reference` is None if it is not known.
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
        """The row's `expected`, else the teacher's answer, else ""."""
        expected = self.data.get("expected")
        return expected if isinstance(expected, str) else self.reference or ""


@dataclass(frozen=True)
class CheckResult:
    """The outcome of one check. The reason may quote answers and rows unchanged: see `safe`."""

    outcome: Outcome
    reason: Reason | None = None

    def safe(self) -> CheckResult:
        """The same result with every text of the reason shortened and made safe to show."""
        if self.reason is None:
            return self
        texts = {name: plain(text, _MOST_TEXT) for name, text in self.reason.details.items() if isinstance(text, str)}
        return replace(self, reason=replace(self.reason, **texts))

    def why(self) -> str:
        """The reason as a sentence; "" if there is none."""
        return "" if self.reason is None else self.reason.sentence()


Check = Callable[[Answer], CheckResult]


@dataclass(frozen=True)
class Judgement:
    """The combined result of a role's checks: the deciding check, its result, and every outcome."""

    check: str
    finding: CheckResult
    outcomes: Mapping[str, Outcome]
