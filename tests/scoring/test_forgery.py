"""Scores of code: hostile answers cannot forge them, tests see only behavior, and correct answers pass."""

from __future__ import annotations

from dataclasses import replace

import pytest

from forging_answers import FORGERIES
from honest_answers import HONEST
from journeyman.reasons.scoring import CodeRaised, NotOverPipe
from journeyman.scoring.contracts import Limits
from journeyman.scoring.sandbox import run_tests, run_written_tests
from test_sandbox import FAST, WALLS

WANTED = "assert add(1, 2) == 3\nassert abs(add(1, 2) - 3) < 1e-9"


@pytest.mark.parametrize("bubblewrapped", WALLS)
@pytest.mark.parametrize("name", FORGERIES)
def test_a_failing_test_cannot_be_forged_into_a_passing_one(name: str, bubblewrapped: bool) -> None:
    limits = replace(FAST, bubblewrap=bubblewrapped)
    for tests in WANTED.splitlines():
        assert run_tests(FORGERIES[name], tests, limits).passed is False, tests


@pytest.mark.parametrize("bubblewrapped", WALLS)
@pytest.mark.parametrize("name", HONEST)
def test_correct_answers_pass(name: str, bubblewrapped: bool) -> None:
    answer, tests = HONEST[name]
    limits = Limits(wall_s=20, bubblewrap=bubblewrapped)
    result = run_tests(answer, tests, limits)
    assert result.passed, result.reason
    assert not run_tests(answer, tests + "\nassert 1 == 2", limits).passed


REACHING = {
    "its globals": "f.__globals__['add'] = None",
    "its code": "f.__code__",
    "its closure": "f.__closure__",
    "its builtins": "f.__builtins__",
    "its class": "thing.__class__.__init__",
    "a method's function": "thing.method.__func__",
    "a frame": "thing.numbers().gi_frame.f_globals",
    "another class": "setattr(thing, '__class__', int)",
    "by the protocol": "peer.ask('getattr', f, '__globals__')",
    "by another operation": "peer.ask('unpickle', b'cposix\\nsystem\\n.')",
    "by its source": "peer.ask('inspect', 'getsource', f)",
}
WITH_CALLBACK = """
class Thing:
    def method(self): return 1
    def numbers(self): yield 1
assert use(lambda: 1, Thing()) == "refused"
"""


@pytest.mark.parametrize("bubblewrapped", WALLS)
@pytest.mark.parametrize("name", REACHING)
def test_objects_from_the_tests_give_no_access_to_the_judge(name: str, bubblewrapped: bool) -> None:
    answer = (
        "import gc\ndef use(f, thing):\n"
        "    peer = next(o for o in gc.get_objects() if type(o).__name__ == 'Answering')\n"
        f"    try:\n        {REACHING[name]}\n    except (AttributeError, TypeError):\n        return 'refused'\n"
    )
    result = run_tests(answer, WITH_CALLBACK, replace(FAST, bubblewrap=bubblewrapped))
    assert result.passed, result.reason


DOCUMENTED = 'def add(a: int, b: int) -> int:\n    """Return the sum."""\n    return a + b\n'
PEEKING = {
    "documentation": "assert add.__doc__",
    "hints": "assert add.__annotations__",
    "code": "assert add.__code__.co_code",
    "globals": "assert add.__globals__",
    "source": "import inspect; assert inspect.getsource(add)",
    "signature": "import inspect; inspect.signature(add).return_annotation.__name__",
    "files": "import os; assert any('Return the sum' in open(p).read() for p in os.listdir('.'))",
    "memory": "import gc\n    assert [1 for t in gc.get_objects() if type(t) is dict for v in t.values()"
    " if type(v) is str and 'Return the sum' + '.' in v and 'gc.get' not in v]",
}


@pytest.mark.parametrize("bubblewrapped", WALLS)
@pytest.mark.parametrize("name", PEEKING)
def test_model_written_tests_see_what_the_code_does_but_not_its_source(name: str, bubblewrapped: bool) -> None:
    limits = replace(FAST, bubblewrap=bubblewrapped)
    assert run_written_tests(DOCUMENTED, "def test():\n    assert add(1, 2) == 3", limits).passed
    assert run_written_tests(DOCUMENTED, f"def test():\n    {PEEKING[name]}", limits).passed is False


@pytest.mark.parametrize("bubblewrapped", WALLS)
def test_code_with_classes_and_errors_can_be_tested_from_outside(bubblewrapped: bool) -> None:
    code = "class Full(Exception): pass\nclass Box:\n    def __init__(self): self.items = []\n    def put(self, x):\n"
    code += "        if len(self.items) > 1: raise Full('full')\n        self.items.append(x)"
    tests = (
        "def test_box():\n    box = Box()\n    box.put(1)\n    box.put(2)\n    assert box.items == [1, 2]\n    try:\n"
    )
    tests += (
        "        box.put(3)\n    except Full as error:\n        assert str(error) == 'full'\n    else:\n"
        "        assert False"
    )
    result = run_written_tests(code, tests, replace(FAST, bubblewrap=bubblewrapped))
    assert result.passed, result.reason
    assert run_written_tests(code.replace("> 1", "> 2"), tests, replace(FAST, bubblewrap=bubblewrapped)).passed is False


@pytest.mark.parametrize("bubblewrapped", WALLS)
def test_what_cannot_cross_a_pipe_is_not_a_failure(bubblewrapped: bool) -> None:
    tests = "class Own(Base):\n    pass\nassert Own()"
    result = run_tests("class Base:\n    pass", tests, replace(FAST, bubblewrap=bubblewrapped))
    assert result.passed is None and isinstance(result.reason, NotOverPipe)


@pytest.mark.parametrize("bubblewrapped", WALLS)
@pytest.mark.parametrize(
    "raised",
    [
        'ValueError(\'\\n{"passed": null, "code": "not_over_pipe", "detail": ""}\')',
        "type('Undecidable', (BaseException,), {})('the tests ask for what cannot be had over a pipe')",
        "SystemExit('gone')",
    ],
)
def test_an_answer_cannot_choose_the_code_of_its_failure(raised: str, bubblewrapped: bool) -> None:
    """Otherwise, an answer could turn its failure into an unscored result."""
    result = run_tests(f"def f(): raise {raised}", "f()", replace(FAST, bubblewrap=bubblewrapped))
    assert result.passed is False and isinstance(result.reason, CodeRaised)
