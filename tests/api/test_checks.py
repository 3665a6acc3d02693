"""Checks by decorator: named in configs, run in processes of their own, from files, scripts and notebooks."""

from __future__ import annotations

import functools
import importlib.util
import json as js
import linecache
import os
import re
import subprocess
import sys
import tomllib
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import journeyman
from conftest import log_row, write_run
from journeyman.api import checks as api_checks
from journeyman.errors import UsageError
from journeyman.scoring.apart import own_check
from journeyman.scoring.contracts import Answer, CheckResult, Limits

MakeRun = Callable[..., Path]


@journeyman.check
def of_this_file(answer: str) -> bool:
    """Says whether it greets."""
    return answer.startswith("Dear")


@journeyman.check
def with_data(answer: str, check: dict[str, Any]) -> tuple[bool | None, str]:
    limit = check.get("most")
    return (None, "no limit") if limit is None else (len(answer) <= limit, f"at most {limit}")


@pytest.fixture(autouse=True)
def _forget_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Checks that a test registers are forgotten after it."""
    monkeypatch.setattr(
        api_checks, "_registered", {name: dict(found) for name, found in api_checks._registered.items()}
    )


def judged(name: str, folder: Path, text: str, **data: Any) -> CheckResult:
    """What the check says, asked as an evaluation asks."""
    return own_check(name, folder, 60.0)(Answer(text, "stop", data, Limits()))


def typed_in(source: str, **names: Any) -> dict[str, Any]:
    """The globals of a notebook after a cell was run."""
    file = f"<cell {len(linecache.cache)}>"
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    made: dict[str, Any] = {"__name__": "__main__", "journeyman": journeyman, **names}
    exec(compile(source, file, "exec"), made)
    return made


def imported(path: Path, source: str) -> types.ModuleType:
    path.write_text(source)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def test_a_check_is_called_like_its_function() -> None:
    assert of_this_file("Dear Amy") is True and of_this_file("Hi", {"most": 1}) is False
    assert with_data("abc", {"most": 2}) == (False, "at most 2") and with_data("abc")[0] is None
    assert of_this_file.__doc__ == "Says whether it greets." and of_this_file.__name__ == "of_this_file"


@pytest.mark.parametrize(
    "function",
    [3, len, lambda: True, lambda a, b, c: True, lambda *, answer: True, type("C", (), {})],
)
def test_what_is_no_check_is_refused_at_once(function: Any) -> None:
    with pytest.raises(TypeError):
        journeyman.check(function)


MODULE = """
from my_helper import WORDS

import journeyman

@journeyman.check
def short_one(answer):
    return len(answer.split()) <= WORDS

@journeyman.check
def limited(answer, check):
    limit = check.get("most")
    return None if limit is None else (len(answer) <= limit, f"at most {limit}")
"""


def test_a_check_of_a_file_is_named_by_it_and_runs_elsewhere(make_run: MakeRun, tmp_path: Path) -> None:
    (tmp_path / "my_helper.py").write_text("WORDS = 3\n")
    sys.modules["my_helper"] = types.ModuleType("my_helper")
    sys.modules["my_helper"].WORDS = 3  # type: ignore[attr-defined]
    module = imported(tmp_path / "my_checks.py", MODULE)
    folder = make_run()
    run = journeyman.open(folder, checks={"coder": ["answered", "short_one", module.limited]})
    names = run.config.roles["coder"].checks
    assert names == ["answered", "../my_checks.py:short_one", "../my_checks.py:limited"]
    assert judged(names[1], folder, "a b c").outcome == "pass" and judged(names[1], folder, "a b c d").outcome == "fail"
    found = judged(names[2], folder, "abc", most=2)
    assert found.outcome == "fail" and found.why() == "at most 2"
    assert judged(names[2], folder, "abc").outcome == "unscored"
    assert not (folder / "checks").exists()
    again = journeyman.open(folder, settings={"roles.coder.weights": {"short_one": 2.0, "answered": 1.0}})
    assert again.config.roles["coder"].weights == {"../my_checks.py:short_one": 2.0, "answered": 1.0}


NOTEBOOK = """
@journeyman.check
def terse(answer):
    words = [word for word in answer.split() if re.match(r"\\w", word)]
    return len(words) <= MOST and js.loads("1") == 1 and Limits is not None
"""


def test_a_check_of_a_notebook_is_written_to_the_run(tmp_path: Path, tiny_gguf: Path) -> None:
    logs = tmp_path / "logs.jsonl"
    logs.write_text("".join(js.dumps(log_row(number)) + "\n" for number in range(40)))
    terse = typed_in(NOTEBOOK, re=re, js=js, MOST=2, Limits=Limits)["terse"]
    settings = {"base.model": tiny_gguf, "roles.coder.checks": [terse]}
    run = journeyman.create(tmp_path / "run", logs, settings=settings)
    written = tomllib.loads((run.folder / "journeyman.toml").read_text())
    assert written["roles"]["coder"]["checks"] == ["checks/terse.py:terse"], "the command line finds it as well"
    assert judged("checks/terse.py:terse", run.folder, "a b").outcome == "pass"
    assert judged("checks/terse.py:terse", run.folder, "a b c").outcome == "fail"


def test_a_changed_check_is_the_one_that_runs(make_run: MakeRun) -> None:
    folder, name = make_run(), "checks/changing.py:changing"
    for wanted in ("x", "yy"):
        cell = f"@journeyman.check\ndef changing(answer):\n    return answer == {wanted!r}\n"
        journeyman.open(folder, checks={"coder": [typed_in(cell)["changing"]]})
        assert judged(name, folder, wanted).outcome == "pass" and judged(name, folder, "z").outcome == "fail"


@pytest.mark.parametrize(
    ("cell", "says"),
    [
        ("@journeyman.check\ndef odd(answer):\n    return helper(answer)\n", "uses helper of this session"),
        ("@journeyman.check\ndef odd(answer):\n    return unknown(answer)\n", "unknown, which is not defined"),
        (
            "def make():\n    @journeyman.check\n    def odd(a):\n        return a\n    return odd\nodd = make()\n",
            "inside",
        ),
        ("@journeyman.check\n@wrapper\ndef odd(answer):\n    return True\n", "decorators besides"),
        ("odd = journeyman.check(lambda answer: True)\n", "defined inside something else"),
    ],
)
def test_what_a_file_cannot_define_is_refused(make_run: MakeRun, cell: str, says: str) -> None:
    def wrapper(function: Any) -> Any:
        return functools.wraps(function)(lambda answer: function(answer))

    names: dict[str, Any] = {"wrapper": wrapper}
    exec("def helper(answer): return answer", names)
    names["helper"].__module__ = "__main__"
    odd = typed_in(cell, **names)["odd"]
    folder = make_run()
    with pytest.raises(UsageError, match=says):
        journeyman.open(folder, checks={"coder": [odd]})
    assert not (folder / "checks").exists()


def test_a_source_that_nobody_knows_is_refused(make_run: MakeRun) -> None:
    names: dict[str, Any] = {"__name__": "__main__", "journeyman": journeyman}
    exec(compile("@journeyman.check\ndef lost(answer):\n    return True\n", "<stdin>", "exec"), names)
    with pytest.raises(UsageError, match="its source is not known"):
        journeyman.open(make_run(), checks={"coder": [names["lost"]]})


def test_a_name_that_two_files_define_is_refused(make_run: MakeRun, tmp_path: Path) -> None:
    source = "import journeyman\n@journeyman.check\ndef {}(answer):\n    return True\n"
    for name in ("one_file", "other_file"):
        imported(tmp_path / f"{name}.py", source.format("twice"))
    imported(tmp_path / "third_file.py", source.format("exact"))
    folder = make_run()
    with pytest.raises(UsageError, match="one_file and other_file define it"):
        journeyman.open(folder, checks={"coder": ["twice"]})
    with pytest.raises(UsageError, match="journeyman itself define"):
        journeyman.open(folder, checks={"coder": ["exact"]})
    run = journeyman.open(folder, checks={"coder": [sys.modules["other_file"].twice]})
    assert run.config.roles["coder"].checks == ["../other_file.py:twice"]


SCRIPT = """
import journeyman

@journeyman.check
def scripted(answer):
    return False, "never"

{guard}
run = journeyman.open("run", checks={{"coder": ["scripted"]}})
checks = run._opened()
checks.load_checks()
print(run.config.roles["coder"].checks)
"""


@pytest.mark.parametrize("guarded", [True, False])
def test_a_script_works_if_its_runs_are_guarded(tmp_path: Path, tiny_gguf: Path, guarded: bool) -> None:
    write_run(tmp_path / "run", tiny_gguf, [log_row(number) for number in range(4)])
    lines = SCRIPT.format(guard="").split("\n")
    if guarded:
        at = lines.index('run = journeyman.open("run", checks={"coder": ["scripted"]})')
        lines[at:] = ['if __name__ == "__main__":', *(f"    {line}" for line in lines[at:])]
    (tmp_path / "script.py").write_text("\n".join(lines))
    packages = str(Path(journeyman.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": packages}
    made = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, env=environment)
    if guarded:
        assert made.stdout == "['../script.py:scripted']\n", made.stderr
    else:
        assert made.returncode == 1 and 'under: if __name__ == "__main__":' in made.stderr


def test_a_check_decides_an_evaluation(tmp_path: Path, tiny_gguf: Path) -> None:
    folder = write_run(tmp_path / "run", tiny_gguf, [log_row(number) for number in range(40)])
    cell = '@journeyman.check\ndef never(answer):\n    return False, "it never passes"\n'
    run = journeyman.open(folder, checks={"coder": [typed_in(cell)["never"]]})
    evaluation = run.evaluate()
    told = {(row.outcome, row.why()) for row in evaluation.scores}
    assert told == {("fail", "it never passes")}
    assert {one["reason"] for one in evaluation.scores.records()} == {"text"}
