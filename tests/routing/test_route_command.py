"""`journeyman route`: lists, changes, and refuses what makes no sense."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from journeyman.cli.app import app
from journeyman.errors import UsageError


def route(folder: Path, *arguments: str) -> str:
    made = CliRunner().invoke(app, ["route", *arguments, "--dir", str(folder)])
    if made.exception is not None and not isinstance(made.exception, SystemExit):
        raise made.exception
    return made.output


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "journeyman.toml").write_text('[route]\nstudent = "http://127.0.0.1:8011"\n')
    return tmp_path


def test_routes_are_changed_and_listed(run: Path) -> None:
    assert "the upstream answers every role" in route(run)
    assert route(run, "coder", "canary", "--share", "0.25", "--why", "try") == (
        "coder: canary, 25% of conversations to the student\n"
    )
    route(run, "tester", "shadow")
    listed = route(run)
    assert "coder: canary, 25%" in listed and "tester: shadow" in listed and "try" not in listed
    assert "coder new -> canary 25% of conversations: try" in route(run, "coder")
    found = json.loads(route(run, "--json"))
    assert found["roles"]["coder"]["share"] == 0.25 and len(found["events"]) == 2


def test_what_a_trial_has_shown_is_listed(run: Path) -> None:
    route(run, "coder", "shadow")
    trial = json.loads(route(run, "--json"))["roles"]["coder"]["trial"]
    pairs = {"both": 3, "student_only": 0, "teacher_only": 1, "neither": 0, "unscored": 2, "errors": 0}
    state = {
        "trial": trial,
        "why": "nothing is shown yet",
        "conversations": 4,
        "unscored": 1,
        "ignored": 2,
        "pairs": pairs,
    }
    (run / "routing" / "canaries.json").write_text(json.dumps({"roles": {"coder": state}}))
    listed = route(run)
    assert "nothing is shown yet" in listed and "both passed 3, only the teacher 1" in listed
    assert "4 conversations, 1 of which nothing says" in listed and "2 exchanges of ids" in listed
    route(run, "coder", "teacher")
    assert "nothing is shown yet" not in route(run)


@pytest.mark.parametrize(
    "arguments",
    [
        ("coder", "lamp"), ("coder", "canary", "--share", "1"), ("coder", "canary", "--share", "0"),
        ("coder", "shadow", "--share", "0.5"), ("nobody",),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(run: Path, arguments: tuple[str, ...]) -> None:
    with pytest.raises(UsageError):
        route(run, *arguments)


def test_without_a_student_only_the_teacher_can_answer(tmp_path: Path) -> None:
    (tmp_path / "journeyman.toml").write_text("")
    with pytest.raises(UsageError, match=r"route\.student is not set"):
        route(tmp_path, "coder", "shadow")
    assert route(tmp_path, "coder", "teacher") == "coder: teacher\n"
