"""A user's own checks are looked up by parsing their files; none of that code runs before a stage that scores."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from journeyman.config import JudgeConfig, load_config
from journeyman.errors import UsageError
from journeyman.runs import Run
from journeyman.scoring.check_names import check_name
from test_pipeline import call

NONE = JudgeConfig()
MARKING = """
from pathlib import Path
place = Path(__file__).with_name("executed")
place.write_text(place.read_text() + "x" if place.exists() else "x")
def right(text, data): return True
"""
OWN = "[roles.coder]\nchecks = ['mine.py:right']\n"


@pytest.mark.parametrize(
    "source",
    [
        "def right(text, data): return True",
        "async def right(text, data): return True",
        "class right: ...",
        "right = lambda text, data: True",
        "right: object = print",
        "from elsewhere import wrong as right",
        "import right",
        "from elsewhere import *",
        "globals()['ri' + 'ght'] = print",
        "if True:\n    pass\nelse:\n    def right(text, data): return True",
        "try:\n    import none_such\nexcept ImportError:\n    def right(text, data): return True",
        "match 1:\n    case _:\n        right = print",
        "with open('/dev/null') as right: pass",
        "(wrong, right) = (1, print)",
        "# -*- coding: latin-1 -*-\nright = '\xe9'",
    ],
)
def test_a_name_that_the_file_may_define_is_accepted(source: str, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(source, encoding="latin-1")
    check_name("mine.py:right", tmp_path, NONE)
    assert not list(tmp_path.glob("__pycache__"))


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("", "has no function 'right'"),
        ("def outer():\n    def right(text, data): ...", "has no function 'right'"),
        ("class Some:\n    right = 1", "has no function 'right'"),
        ("print(right)", "has no function 'right'"),
        ("def right(:", "not valid Python"),
        ("\0", "not valid Python"),
        ("x = " + "(" * 5000 + ")" * 5000, "not valid Python"),
    ],
)
def test_a_name_that_the_file_cannot_define_is_refused(source: str, why: str, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(source)
    with pytest.raises(UsageError, match=why) as raised:
        check_name("mine.py:right", tmp_path, NONE)
    assert "mine.py" in raised.value.what


def test_names_of_other_kinds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_name("answered", tmp_path, NONE)
    check_name("judge", tmp_path, JudgeConfig(url="http://127.0.0.1:1/v1", model="m"))
    for name, why in (("judge", "needs a model"), ("anwered", "unknown check"), ("none.py:f", "no file")):
        with pytest.raises(UsageError, match=why):
            check_name(name, tmp_path, NONE)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="needs the package inspect-ai"):
        check_name("inspect:includes", tmp_path, NONE)


def test_nothing_of_a_check_runs_until_a_stage_judges(
    make_run: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_run(toml=OWN)
    (folder / "mine.py").write_text(MARKING)
    executed = folder / "executed"
    assert call("train", "--dir", folder, "--set", "train.epochs=1") == 0
    for command in (("status",), ("show", "plan"), ("show", "curate", "--row", "1")):
        assert call(*command, "--dir", folder) == 0
    assert call("verify", folder) == 0
    Run(folder, load_config(folder / "journeyman.toml"))
    assert not executed.exists()
    assert call("evaluate", "--dir", folder, "--set", "train.epochs=1", "--set", "evaluate.regression_suite=false") == 0
    assert executed.read_text() == "x", "once, in the process that judges"
    executed.unlink()
    call("decide", "--dir", folder, "--set", "train.epochs=1", "--set", "evaluate.regression_suite=false")
    assert (folder / "06-decision" / "manifest.json").is_file()
    assert call("show", "decide", "--dir", folder) == 0
    assert not executed.exists(), "an evaluation that is made is not judged again"


def test_a_check_that_cannot_be_loaded_is_found_before_the_training(
    make_run: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_run(toml=OWN)
    (folder / "mine.py").write_text("import none_such_module\ndef right(text, data): return True\n")
    assert call("run", "--dir", folder) == 2
    assert "none_such_module" in capsys.readouterr().err
    assert not (folder / "01-interactions").exists()
    assert call("plan", "--dir", folder) == 0
    shutil.rmtree(folder)
