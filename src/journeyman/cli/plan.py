"""`journeyman plan --explain CODE` and `journeyman plan --recipe FILE`."""

from __future__ import annotations

from pathlib import Path

from journeyman.cli.say import result_console, say, say_on
from journeyman.errors import NoGo
from journeyman.lints.explaining import explanation
from journeyman.lints.recipe_file import facts_of_file
from journeyman.lints.table import findings
from journeyman.stages.plan_page import lint_lines, outcome_of


def print_explained(code: str) -> None:
    """Prints what a code means.

    Raises:
        UsageError: there is no such code.
    """
    for line in explanation(code):
        say(line)


def check_recipe(path: Path) -> None:
    """Prints what a file with another trainer's settings comes to, and what is wrong with them.

    Raises:
        UsageError: the file cannot be read, or has unknown keys.
        NoGo: there are errors.
    """
    facts, console = facts_of_file(path), result_console()
    for key, value in facts.figures.items():
        say_on(console, f"{key}: {value:,.6g}" if value < 1e5 else f"{key}: {value:,.0f}")
    found = findings(facts)
    errors, warnings = ([one.reason.record() for one in found if one.is_error is level] for level in (True, False))
    for line in lint_lines(errors, warnings):
        say_on(console, line)
    say_on(console, outcome_of(errors))
    if errors:
        first = errors[0].reason()
        raise NoGo(first, f"{first.what_to_do()}. What it means: journeyman plan --explain {first.code}")
