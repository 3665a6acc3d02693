"""The checks and the sandbox that runs model-written code."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from journeyman.scoring.checks import Answer, check_table, judge
from journeyman.scoring.code_block import python_source
from journeyman.scoring.sandbox import Limits, run_sources

FAST = Limits(wall_s=3.0, cpu_s=1)
RIGHT = "def add(a, b):\n    return a + b"
WRONG = ["def add(a, b):\n    return a - b", "def add(a, b):\n    return 3"]


def outcome(check: str, text: str, finish: str = "stop", **data: Any) -> str:
    return check_table()[check](Answer(text, finish, data, FAST)).outcome


def test_answered() -> None:
    assert outcome("answered", "yes") == "pass"
    assert outcome("answered", " ") == "fail"
    assert outcome("answered", "yes", "length") == "fail"


def test_code_is_found_in_fences_and_outside() -> None:
    assert python_source("Here:\n```python\nx = 1\n```\nand\n```py\ny = 2\n```") == "x = 1\n\ny = 2"
    assert python_source("```\nx = 1\n```") == "x = 1"
    assert python_source("x = 1") == "x = 1"


def test_python_parses() -> None:
    assert outcome("python_parses", "```python\nx = 1\n```") == "pass"
    assert outcome("python_parses", "x = (") == "fail"
    assert outcome("python_parses", "```python\n# nothing\n```") == "fail"


def test_python_tests() -> None:
    assert outcome("python_tests", f"```python\n{RIGHT}\n```", tests="assert add(1, 2) == 3") == "pass"
    assert outcome("python_tests", WRONG[0], tests="assert add(1, 2) == 3") == "fail"
    assert outcome("python_tests", RIGHT) == "unscored"


def test_catches_mutants() -> None:
    good = "def test_a():\n    assert add(1, 2) == 3\ndef test_b():\n    assert add(2, 2) == 4"
    weak = "def test_a():\n    assert add(1, 2) == 3"
    in_class = "class TestAdd:\n    def test_a(self):\n        assert add(2, 2) == 4"
    assert outcome("catches_mutants", good, right=RIGHT, wrong=WRONG) == "pass"
    assert outcome("catches_mutants", in_class, right=RIGHT, wrong=WRONG) == "pass"
    assert outcome("catches_mutants", weak, right=RIGHT, wrong=WRONG) == "fail"
    assert outcome("catches_mutants", "assert add(1, 2) == 3", right=RIGHT, wrong=WRONG) == "fail"
    assert outcome("catches_mutants", good, right=WRONG[0], wrong=WRONG) == "fail"
    assert outcome("catches_mutants", good) == "unscored"


def test_json_schema() -> None:
    schema = {"type": "object", "properties": {"a": {"const": 1}}, "required": ["a"]}
    assert outcome("json_schema", '{"a": 1}', schema=schema) == "pass"
    assert outcome("json_schema", '```json\n{"a": 1}\n```', schema=schema) == "pass"
    assert outcome("json_schema", '{"a": 2}', schema=schema) == "fail"
    assert outcome("json_schema", "no", schema=schema) == "fail"
    assert outcome("json_schema", "[" * 100_000, schema=schema) == "fail"
    assert outcome("json_schema", "{}") == "unscored"


def test_regex() -> None:
    assert outcome("regex", "a\nb", pattern="^b$") == "pass"
    assert outcome("regex", "a", pattern="b") == "fail"
    assert outcome("regex", "a") == "unscored"


def test_judge_names_the_first_check_that_does_not_pass() -> None:
    name, finding = judge(Answer("x = (", "stop", {}, FAST), ["answered", "python_parses", "python_tests"])
    assert (name, finding.outcome) == ("python_parses", "fail")


HOSTILE = {
    "leaves before the tests": "import os; os._exit(0)",
    "says that it passed": "print('passed'); raise SystemExit(0)",
    "reads the home folder": f"open({str(Path.home() / '.bashrc')!r}).read()",
    "reads the system's files": "open('/etc/passwd').read()",
    "lists the root": "import os; os.listdir('/')",
    "writes beside itself": "open('/tmp/journeyman-was-here', 'w').write('x')",
    "connects": "import socket; socket.create_connection(('127.0.0.1', 9), 1)",
    "listens": "import socket; socket.socket().bind(('127.0.0.1', 0))",
    "never ends": "while True: pass",
    "sleeps": "import time; time.sleep(60)",
    "takes all memory": "x = 'a' * 10**10",
    "fills the disk": "open('f', 'w').write('a' * 10**8)",
    "prints for ever": "while True: print('a' * 10**6)",
    "kills its parent": "import os; os.kill(os.getppid(), 9); raise ValueError",
    "looks at the environment": "import os; assert os.environ.get('PATH') or os.environ.get('HOME')",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_code_fails_and_leaves_no_trace(name: str) -> None:
    result = run_sources([("answer", HOSTILE[name]), ("tests", "pass")], FAST)
    assert result.passed is False, name
    assert result.detail
    assert not Path("/tmp/journeyman-was-here").exists()


def test_what_it_forks_dies_with_it(tmp_path: Path) -> None:
    code = "import os, time\nfor _ in range(5):\n    if os.fork() == 0:\n        os.setsid()\n        time.sleep(77)"
    run_sources([("answer", code), ("tests", "pass")], FAST)
    running = [p for p in Path("/proc").iterdir() if p.name.isdigit() and p.name != str(os.getpid())]
    for process in running:
        try:
            assert b"jail.py" not in (process / "cmdline").read_bytes()
        except OSError:
            continue
