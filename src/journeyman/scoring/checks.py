"""The table of checks: name → function. One check per file; each says pass, fail or unscored, and why.

A check sees the answer as it came from the engine and the row's `check` data. It never sees the arm.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from journeyman.config import JudgeConfig
from journeyman.errors import Interrupted, UsageError
from journeyman.foreign import plain
from journeyman.manifests import CheckRule
from journeyman.records import ToolCall
from journeyman.scoring.sandbox import Limits

Outcome = Literal["pass", "fail", "unscored"]
JUDGE = "judge"
RUNS_CODE = {"python_runs", "python_tests", "catches_mutants"}
"""Checks that run model-written code."""
_MOST_DETAIL = 500
_AT_ONCE = {"answered", "exact", "normalized"}
"""Checks whose time grows with the answer's length alone; they need no process of their own."""


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
class Finding:
    """The outcome of one check."""

    outcome: Outcome
    detail: str = ""


Check = Callable[[Answer], Finding]


def check_table() -> Mapping[str, Check]:
    """All checks by the name that journeyman.toml uses, each with its limits."""
    from journeyman.scoring.apart import table_check

    return {
        name: check if name in _AT_ONCE | RUNS_CODE else table_check(name, check)
        for name, check in plain_checks().items()
    }


def plain_checks() -> Mapping[str, Check]:
    """The functions themselves, without limits: for the process that runs them apart."""
    from journeyman.scoring.answered import answered
    from journeyman.scoring.catches_mutants import catches_mutants
    from journeyman.scoring.contains import contains
    from journeyman.scoring.exact import exact, normalized
    from journeyman.scoring.json_schema import json_schema
    from journeyman.scoring.patch_applies import patch_applies
    from journeyman.scoring.python_parses import python_parses
    from journeyman.scoring.python_runs import python_runs
    from journeyman.scoring.python_tests import python_tests
    from journeyman.scoring.regex import regex
    from journeyman.scoring.similarity import similarity
    from journeyman.scoring.tool_call import tool_call

    checks = (
        answered, exact, normalized, contains, regex, similarity, json_schema, tool_call, python_parses, python_runs,
        python_tests, catches_mutants, patch_applies,
    )  # fmt: skip
    return {check.__name__: check for check in checks}


@dataclass(frozen=True)
class Checks:
    """Where checks come from: the table, the person's files in the run's folder, and a judge.

    Attributes:
        own_limit_s: what a check of the person's own may take for one answer.
    """

    folder: Path
    judge: JudgeConfig = field(default_factory=JudgeConfig)
    own_limit_s: float = 60.0

    def named(self, name: str) -> Check:
        """A check of the table, `judge`, `file.py:function`, or a scorer of Inspect AI as `inspect:NAME`.

        Raises:
            UsageError: there is none of that name, or no judge is set.
        """
        from journeyman.scoring.apart import own_check
        from journeyman.scoring.judge import judge_check

        if ":" in name:
            return own_check(name, self.folder, self.own_limit_s)
        if name == JUDGE:
            if not self.judge.url or not self.judge.model:
                raise UsageError("the check 'judge' needs a model to ask", "Set evaluate.judge.url and .model")
            return judge_check(self.judge)
        table = check_table()
        if name not in table:
            raise UsageError(
                f"unknown check {name!r}", f"One of: {', '.join(table)}, judge; or file.py:function, inspect:SCORER"
            )
        return table[name]

    def load(self, names: Iterable[str]) -> None:
        """Loads checks before anything is spent on their behalf: this executes the user's files, in a child process.

        Raises:
            UsageError: as named does.
        """
        for name in sorted(set(names)):
            self.named(name)


def own_files(names: Iterable[str]) -> list[str]:
    """The files, beside the toml, that hold checks of the person's own: `mine.py:f` and `inspect:mine.py:f`."""
    places = (name.removeprefix("inspect:") for name in names)
    return sorted({place.partition(":")[0] for place in places if ":" in place})


@dataclass(frozen=True)
class Judgement:
    """What a role's checks say together: the check that decides, its finding, and every outcome that was asked for."""

    check: str
    finding: Finding
    outcomes: Mapping[str, Outcome]


def judge(answer: Answer, rule: CheckRule, checks: Checks) -> Judgement:
    """Applies a role's checks.

    Without weights all must pass, in order, and the first that does not decides; those after it are not asked, unless
    there is a judge among them, whose agreement with the others is to be known. With weights all are asked, and the
    share of the weight that passes must reach `pass_at`; what is unscored leaves it open where it could tip the scale.
    A check that raises is unscored, whatever it raises.
    """
    if rule.weights:
        return _weighed(answer, rule, checks)
    outcomes: dict[str, Outcome] = {}
    deciding, found = "", Finding("unscored", "the role has no checks")
    for name in rule.checks:
        finding = _asked(name, checks.named(name), answer)
        if not deciding or found.outcome == "pass":
            deciding, found = name, finding
        outcomes[name] = finding.outcome
        if found.outcome != "pass" and JUDGE not in rule.checks:
            break
    return Judgement(deciding, found, outcomes)


def _asked(name: str, check: Check, answer: Answer) -> Finding:
    """The last net: no row, answer or check ends a stage. What it says is safe to show."""
    try:
        finding = check(answer)
    except (KeyboardInterrupt, Interrupted):
        raise
    except BaseException as error:
        return Finding("unscored", plain(f"{name} raised {type(error).__name__}: {error}", _MOST_DETAIL))
    return Finding(finding.outcome, plain(finding.detail, _MOST_DETAIL))


def _weighed(answer: Answer, rule: CheckRule, checks: Checks) -> Judgement:
    found = {name: _asked(name, checks.named(name), answer) for name in rule.weights}
    outcomes = {name: finding.outcome for name, finding in found.items()}
    whole = sum(rule.weights.values())

    def share(*wanted: Outcome) -> float:
        return sum(rule.weights[name] for name, outcome in outcomes.items() if outcome in wanted) / whole

    told = "; ".join(
        f"{name} {finding.outcome}" + f" ({finding.detail})" * bool(finding.detail) for name, finding in found.items()
    )
    detail = f"{share('pass'):.0%} of the weight, asked ≥ {rule.pass_at:.0%}: {told}"[:_MOST_DETAIL]
    # Sums of shares are compared with a grain of tolerance: 0.7 + 0.2 + 0.1 is not quite 1.
    outcome: Outcome = "fail" if share("pass", "unscored") < rule.pass_at - 1e-9 else "unscored"
    if share("pass") >= rule.pass_at - 1e-9:
        outcome = "pass"
    return Judgement("weights", Finding(outcome, detail), outcomes)
