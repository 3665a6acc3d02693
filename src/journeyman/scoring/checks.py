"""The table of built-in checks: name → function. One check per file; each returns pass, fail or unscored, and why.

A check gets the answer as the engine returned it, and the row's `check` data. It never learns which arm answered.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from journeyman.config import JudgeConfig
from journeyman.errors import Interrupted, UsageError
from journeyman.manifests import CheckRule
from journeyman.reasons.checking import CheckRaised, NoChecks, Weighed
from journeyman.scoring.answered import answered
from journeyman.scoring.apart import own_check, table_check
from journeyman.scoring.catches_mutants import catches_mutants
from journeyman.scoring.contains import contains
from journeyman.scoring.contracts import Answer, Check, CheckResult, Judgement, Outcome
from journeyman.scoring.exact import exact, normalized
from journeyman.scoring.json_schema import json_schema
from journeyman.scoring.judge import judge_check
from journeyman.scoring.patch_applies import patch_applies
from journeyman.scoring.python_parses import python_parses
from journeyman.scoring.python_runs import python_runs
from journeyman.scoring.python_tests import python_tests
from journeyman.scoring.regex import regex
from journeyman.scoring.similarity import similarity
from journeyman.scoring.tool_call import tool_call

JUDGE = "judge"
RUNS_CODE = {"python_runs", "python_tests", "catches_mutants"}
"""Checks that run model-written code."""
_AT_ONCE = {"answered", "exact", "normalized"}
"""Checks whose running time depends only on the answer's length; they need no child process."""


_PLAIN: Mapping[str, Check] = {
    check.__name__: check
    for check in (
        answered, exact, normalized, contains, regex, similarity, json_schema, tool_call, python_parses, python_runs,
        python_tests, catches_mutants, patch_applies,
    )
}  # fmt: skip


def check_table() -> Mapping[str, Check]:
    """All built-in checks by their name in the config file, each with its limits."""
    return {
        name: check if name in _AT_ONCE | RUNS_CODE else table_check(name, check)
        for name, check in plain_checks().items()
    }


def plain_checks() -> Mapping[str, Check]:
    """The plain functions without limits, for the child process that runs them."""
    return _PLAIN


@dataclass(frozen=True)
class Checks:
    """The source of checks: the table, the user's files in the run's folder, and a judge.

    Attributes:
        own_limit_s: the time limit of a user's own check for one answer.
    """

    folder: Path
    judge: JudgeConfig = field(default_factory=JudgeConfig)
    own_limit_s: float = 60.0

    def named(self, name: str) -> Check:
        """A built-in check, `judge`, `file.py:function`, or an Inspect AI scorer as `inspect:NAME`.

        Raises:
            UsageError: there is no check of that name, or no judge is configured.
        """
        if ":" in name:
            return own_check(name, self.folder, self.own_limit_s)
        if name == JUDGE:
            if not self.judge.url or not self.judge.model:
                raise UsageError("the check 'judge' needs a model", "Set evaluate.judge.url and evaluate.judge.model")
            return judge_check(self.judge)
        table = check_table()
        if name not in table:
            raise UsageError(
                f"unknown check {name!r}", f"Use one of: {', '.join(table)}, judge, file.py:function, inspect:SCORER"
            )
        return table[name]

    def load(self, names: Iterable[str]) -> None:
        """Loads checks early, before any work depends on them. This executes the user's files, in a child process.

        Raises:
            UsageError: see `named`.
        """
        for name in sorted(set(names)):
            self.named(name)


def own_files(names: Iterable[str]) -> list[str]:
    """The files next to the config file that contain the user's own checks: `mine.py:f` and `inspect:mine.py:f`."""
    places = (name.removeprefix("inspect:") for name in names)
    return sorted({place.partition(":")[0] for place in places if ":" in place})


def judge(answer: Answer, rule: CheckRule, checks: Checks) -> Judgement:
    """Applies a role's checks.

    Without weights, all checks must pass, in order, and the first one that does not pass decides. Later checks are then
    skipped, unless one of the role's checks is a judge, because its agreement with the others is measured. With
    weights, all checks run, and the share of the weight that passes must reach `pass_at`; if the unscored checks could
    change the outcome, the answer is unscored. A check that raises any exception is unscored.
    """
    if rule.weights:
        return _weighed(answer, rule, checks)
    outcomes: dict[str, Outcome] = {}
    deciding, found = "", CheckResult("unscored", NoChecks())
    for name in rule.checks:
        finding = _asked(name, checks.named(name), answer)
        if not deciding or found.outcome == "pass":
            deciding, found = name, finding
        outcomes[name] = finding.outcome
        if found.outcome != "pass" and JUDGE not in rule.checks:
            break
    return Judgement(deciding, found, outcomes)


def _asked(name: str, check: Check, answer: Answer) -> CheckResult:
    """Runs one check. Whatever it raises, the stage continues; the result is safe to show."""
    try:
        return check(answer).safe()
    except (KeyboardInterrupt, Interrupted):
        raise
    except BaseException as error:
        return CheckResult("unscored", CheckRaised(name, f"{type(error).__name__}: {error}")).safe()


def _weighed(answer: Answer, rule: CheckRule, checks: Checks) -> Judgement:
    found = {name: _asked(name, checks.named(name), answer) for name in rule.weights}
    outcomes = {name: finding.outcome for name, finding in found.items()}
    whole = sum(rule.weights.values())

    def share(*wanted: Outcome) -> float:
        return sum(rule.weights[name] for name, outcome in outcomes.items() if outcome in wanted) / whole

    listed = "; ".join(
        f"{name} {finding.outcome}" + f" ({finding.why()})" * bool(finding.reason) for name, finding in found.items()
    )
    reason = Weighed(share("pass"), rule.pass_at, _cause(found, rule.weights), listed)
    # Sums of shares are compared with a small tolerance: 0.7 + 0.2 + 0.1 is not exactly 1.
    outcome: Outcome = "fail" if share("pass", "unscored") < rule.pass_at - 1e-9 else "unscored"
    if share("pass") >= rule.pass_at - 1e-9:
        outcome = "pass"
    return Judgement("weights", CheckResult(outcome, reason).safe(), outcomes)


def _cause(found: Mapping[str, CheckResult], weights: Mapping[str, float]) -> str:
    """The code of the most important failed check: `answered`, without which nothing can pass, or the heaviest."""
    failed = [(name, one.reason) for name, one in found.items() if one.outcome == "fail" and one.reason is not None]
    first = min(failed, key=lambda pair: (pair[0] != answered.__name__, -weights[pair[0]]), default=None)
    return "" if first is None else first[1].code
