"""Scores an exchange by the checks of its role, as `evaluate` scores an answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from journeyman.config import Config, DataConfig
from journeyman.manifests import CheckRule
from journeyman.records import Interaction
from journeyman.scoring.checks import Checks, judge
from journeyman.scoring.contracts import Answer, Limits, Outcome
from journeyman.sources.reader import Reader
from journeyman.sources.recorded import VERSION
from journeyman.sources.rows import parse_line

BEFORE = ("answered", "json_schema", "python_parses", "regex", "contains")
"""Checks that need neither a reference nor a program to run, so that an answer can wait for them."""


@dataclass(frozen=True)
class Judged:
    """What the checks say.

    Attributes:
        check: the one that decided.
        why: in a sentence; empty if it passed.
    """

    outcome: Outcome
    check: str = ""
    why: str = ""


UNSCORED = Judged("unscored")


class Judge:
    """The checks of all roles.

    Args:
        folder: of the config file, where the user's own checks are.
    """

    def __init__(self, config: Config, folder: Path) -> None:
        evaluate = config.evaluate
        self._config = config
        self._reader = Reader(DataConfig())
        self._limits = Limits(unsafe=evaluate.unsafe_exec)
        self._checks = Checks(folder, evaluate.judge, evaluate.check_timeout_s)

    def rule(self, role: str) -> CheckRule:
        asked = self._config.role(role)
        return CheckRule(checks=asked.checks, weights=asked.weights, pass_at=asked.pass_at)

    def decides(self, role: str) -> bool:
        """Whether the role has a check that says more than that there is an answer."""
        rule = self.rule(role)
        return bool({*rule.checks, *rule.weights} - {"answered"})

    def interaction(self, row: Mapping[str, Any]) -> Interaction | None:
        """The recorded row as an interaction, whoever answered it; None if it is none."""
        bare = {name: value for name, value in row.items() if name not in ("route", "of", "reference")}
        line = json.dumps({**bare, "role": row.get("role") or "agent"}).encode()
        found = self._reader.records(parse_line(line, 1), "recorded")
        return next((one for one in found if isinstance(one, Interaction)), None)

    def judged(self, row: Mapping[str, Any], reference: Mapping[str, Any] | None = None) -> Judged:
        """Scores the answer of a recorded row.

        Args:
            reference: the same row with the teacher's answer, if that is known.
        """
        asked = self.interaction(row)
        if asked is None:
            return UNSCORED
        teacher = None if reference is None else self.interaction(reference)
        return self._by(asked, teacher, self.rule(str(row.get("role"))))

    def before(self, role: str, request: Any, response: Any, path: str) -> Judged:
        """Applies those of a role's checks that an answer can wait for. With weights, none: single ones may fail."""
        rule = self.rule(role)
        names = [] if rule.weights else [name for name in rule.checks if name in BEFORE]
        row = {
            "recorded": VERSION, "seq": 0, "outcome": "complete", "status": 200, "role": role, "path": path,
            "request": request, "response": response,
        }  # fmt: skip
        asked = self.interaction(row)
        if asked is None or asked.succeeded is False:
            return Judged("fail", "answered", "the student's answer is not one of this API")
        return self._by(asked, None, CheckRule(checks=names or ["answered"]))

    def _by(self, asked: Interaction, teacher: Interaction | None, rule: CheckRule) -> Judged:
        question = "\n\n".join(turn.content for turn in asked.messages if turn.role != "system")
        answer = Answer(
            asked.output or "", asked.finish_reason or "", asked.check, self._limits, asked.output_calls,
            None if teacher is None else teacher.output, [] if teacher is None else teacher.output_calls, question,
        )  # fmt: skip
        made = judge(answer, rule, self._checks)
        return Judged(made.finding.outcome, made.check, "" if made.finding.outcome == "pass" else made.finding.why())


JudgeBefore = Callable[[str, Any, Any, str], Judged]
"""Judge.before."""
