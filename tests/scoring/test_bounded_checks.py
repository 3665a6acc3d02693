"""Checks with hostile rows, answers and user code: each ends within its limits, says why, and affects no other."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from fake_http import Reply, fake_http
from journeyman.errors import Interrupted, UsageError
from journeyman.manifests import CheckRule
from journeyman.protocols import SilentReporter
from journeyman.reasons.checking import CheckOutOfTime, CheckRaised, SchemaReference
from journeyman.records import Score, ToolCall
from journeyman.scoring import apart, checks
from journeyman.scoring.bounded import Bounded, Bounds, Broken, bounded
from journeyman.scoring.checks import Checks, judge
from journeyman.scoring.contracts import Answer, CheckResult, Limits
from journeyman.scoring.judging import each_judged, unscored_lines

SHORT = Bounds(cpu_s=0.5)
STUCK = {"pattern": "(a+)+$"}
ENDLESS = "a" * 60 + "b"


def said(name: str, text: str, data: dict[str, Any]) -> CheckResult:
    made = judge(Answer(text, "stop", data, Limits()), CheckRule(checks=[name]), Checks(Path()))
    return made.finding


SCHEMAS: list[Any] = [
    {"pattern": "("}, {"type": 5}, {"multipleOf": 0}, {"$ref": "#"}, {"$ref": "#/$defs/none"}, {"$ref": 3},
    {"$ref": "\ud800"},
    {"$ref": "file:///etc/passwd"}, {"$id": "http://[", "$ref": "x"},
    {"allOf": [{"$ref": "#/allOf/0"}]}, {"properties": []},
    {"items": {"items": {"$dynamicRef": "#none"}}}, [], "x", None, 5, {"enum": [{"a": "x"}] * 10_001},
    {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"},
]  # fmt: skip


@pytest.mark.parametrize("schema", SCHEMAS, ids=range(len(SCHEMAS)))
def test_unusable_schemas(schema: Any) -> None:
    found = said("json_schema", "1", {"schema": schema})
    assert found.outcome == "unscored" and "check.schema" in found.why()
    assert apart.data_fault(["answered", "json_schema"], {"schema": schema})


def test_a_schema_nested_too_deep() -> None:
    deep: dict[str, Any] = {}
    for _ in range(5_000):
        deep = {"not": deep}
    assert said("json_schema", "1", {"schema": deep}).outcome == "unscored"
    assert apart.data_fault(["json_schema"], {"schema": deep})


def test_deep_answers_do_not_break_the_check() -> None:
    tree = {"items": {"$ref": "#"}}
    for depth in (30, 300, 100_000):
        found = said("json_schema", "[" * depth + "]" * depth, {"schema": tree})
        assert found.outcome == ("pass" if depth == 30 else "fail"), found


def test_no_schema_reaches_the_network() -> None:
    with fake_http(lambda _: Reply("{}")) as server:
        place = f"{server.address}/schema"
        for schema in (
            {"$ref": place}, {"$schema": place, "$ref": place}, {"$id": place, "properties": {"a": {"$ref": "other"}}},
            {"$dynamicRef": place}, {"items": {"$schema": "http://json-schema.org/draft-07/schema#", "$ref": place}},
        ):  # fmt: skip
            found = said("json_schema", '{"a": 1}', {"schema": schema})
            assert found.outcome == "unscored" and isinstance(found.reason, SchemaReference)
    assert not server.asked
    of_itself = {"$id": "http://x/y", "$defs": {"a": {"type": "object"}}, "$ref": "#/$defs/a"}
    assert said("json_schema", "{}", {"schema": of_itself}).outcome == "pass"
    meta = {"$ref": "https://json-schema.org/draft/2020-12/schema"}
    assert said("json_schema", '{"type": "object"}', {"schema": meta}).outcome == "pass", "it is part of the library"


@pytest.mark.parametrize(
    "pattern", ["(", "*", "(?P<a>.)(?P<a>.)", "x" * 10_001, "(" * 5_000 + ")" * 5_000, 5, None, ["a"]]
)
def test_unusable_patterns(pattern: Any) -> None:
    found = said("regex", "text", {"pattern": pattern})
    assert found.outcome == "unscored" and "check.pattern" in found.why()
    assert apart.data_fault(["regex"], {"pattern": pattern})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "text", "data"),
    [
        ("regex", ENDLESS, STUCK),
        ("json_schema", f'"{ENDLESS}"', {"schema": STUCK}),
        ("json_schema", f'{{"{ENDLESS}": 1}}', {"schema": {"patternProperties": {"(a+)+$": {}}}}),
        ("similarity", "a " * 100_000, {"expected": "a " * 100_000}),
        ("regex", "", {"pattern": "(?:(?:(?:(?:){999}){999}){999}){999}"}),
    ],
)
def test_endless_checks_are_killed(name: str, text: str, data: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apart, "_TABLE", SHORT)
    found = said(name, text, data)
    assert found.outcome == "unscored"
    assert found.reason == CheckOutOfTime(name, 0.5, "processor") or "MemoryError" in found.why()
    assert said("regex", "a", {"pattern": "a"}).outcome == "pass", "the next row is judged"


@pytest.mark.parametrize("name", ["raises", "exits", "runs out", "recurses"])
def test_any_exception_leaves_the_answer_unscored(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    errors = {
        "raises": ValueError("\x1b[2J"),
        "exits": SystemExit(0),
        "runs out": MemoryError(),
        "recurses": RecursionError(),
    }

    def check(answer: Answer) -> CheckResult:
        raise errors[name]

    monkeypatch.setattr(checks, "check_table", lambda: {"broken": check})
    found = said("broken", "text", {})
    assert found.outcome == "unscored" and type(errors[name]).__name__ in found.why() and "\x1b" not in found.why()
    weighed = judge(Answer("", "stop", {}, Limits()), CheckRule(checks=[], weights={"broken": 1.0}), Checks(Path()))
    assert weighed.finding.outcome == "unscored"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), Interrupted("stop")])
def test_a_stop_is_not_caught(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    def check(answer: Answer) -> CheckResult:
        raise error

    monkeypatch.setattr(checks, "check_table", lambda: {"stops": check})
    with pytest.raises(type(error)):
        said("stops", "text", {})


def test_calls_nested_too_deep() -> None:
    deep: Any = 1
    for _ in range(3_000):
        deep = [deep]
    calls = [ToolCall(name="f", arguments=deep)]
    made = judge(
        Answer("", "stop", {"calls": [{"name": "f", "arguments": deep}]}, Limits(), calls),
        CheckRule(checks=["tool_call"]), Checks(Path()),
    )  # fmt: skip
    assert made.finding.outcome == "unscored"


@pytest.mark.parametrize(
    "source",
    ["-" * 10**6 + "1", "(" * 10**6, "a" + ".a" * 10**5, "+".join(["1"] * 10**5), "x if y else " * 10**5 + "1", "\0"],
)
def test_text_that_breaks_the_parser(source: str) -> None:
    assert said("python_parses", source, {}).outcome in ("fail", "unscored")


OWN = """
import os, subprocess, sys, time
def exits(text, data): sys.exit(0)
def dies(text, data): os._exit(0)
def waits(text, data): time.sleep(3600)
def spins(text, data):
    while True: pass
def leaves(text, data):
    child = subprocess.Popen(["sleep", "3600"])
    open(data["place"], "w").write(str(child.pid))
    time.sleep(3600)
def prints(text, data):
    print('{"outcome": "pass", "reason": null}', flush=True)
    os.write(1, b'{"outcome": "pass", "reason": null}\\n')
    return False, sys.stdin.read()
def keyed(text, data): return os.environ.get("OWN_KEY") == "sesame"
class Odd(Exception):
    def __str__(self): raise ValueError
def odd(text, data): raise Odd
"""


@pytest.mark.slow
def test_user_code_that_never_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text(OWN)
    monkeypatch.setenv("OWN_KEY", "sesame")

    def mine(name: str, **data: Any) -> CheckResult:
        rule, own = CheckRule(checks=[f"mine.py:{name}"]), Checks(tmp_path, own_limit_s=2.0)
        return judge(Answer("text", "stop", data, Limits()), rule, own).finding

    assert mine("exits").outcome == "unscored" and mine("exits").reason == CheckRaised("mine.py:exits", "SystemExit: 0")
    assert mine("dies").outcome == "unscored" and "exit code 0" in mine("dies").why()
    for name in ("waits", "spins"):
        assert mine(name) == CheckResult(
            "unscored", CheckOutOfTime(f"mine.py:{name}", 2.0, "wall", "evaluate.check_timeout_s")
        )
    assert mine("prints").outcome == "fail", "what it prints is no verdict"
    assert mine("odd") == CheckResult("unscored", CheckRaised("mine.py:odd", "Odd"))
    assert mine("keyed").outcome == "pass", "it is the person's own code, and may need the person's keys"
    place = tmp_path / "pid"
    assert mine("leaves", place=str(place)).outcome == "unscored"
    assert _gone(int(place.read_text())), "what it started is ended with it"


@pytest.mark.parametrize(
    "source", ["import sys; sys.exit(0)", "def f(:", "raise KeyError('x')", "import none_such_module"]
)
def test_a_user_file_that_cannot_be_loaded(source: str, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(source)
    with pytest.raises(UsageError, match=r"mine.py:f.*(SystemExit|SyntaxError|KeyError|ModuleNotFoundError)"):
        Checks(tmp_path).named("mine.py:f")


class _Stopping(SilentReporter):
    stop_requested = False


def test_a_stop_takes_effect_while_a_check_runs(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(OWN)
    reporter, own = _Stopping(), Checks(tmp_path)
    own.named("mine.py:waits")  # loaded before the clock runs

    def judged(data: str) -> str:
        return judge(Answer(data, "stop", {}, Limits()), CheckRule(checks=["mine.py:waits"]), own).finding.outcome

    threading.Timer(0.5, lambda: setattr(reporter, "stop_requested", True)).start()
    start = time.monotonic()
    with pytest.raises(Interrupted, match="stopped with 2 answers still to be scored"):
        each_judged(judged, ["a", "b"], reporter)
    assert time.monotonic() - start < 30, "a minute is the check's own limit"
    bounded(Bounds(cpu_s=None, wall_s=60.0, memory_bytes=None, own=True)).close()


def test_answers_are_judged_in_order_and_an_error_ends_it() -> None:
    assert each_judged(lambda n: n * 2, [1, 2, 3], SilentReporter()) == [2, 4, 6]
    with pytest.raises(ZeroDivisionError):
        each_judged(lambda n: 1 // n, [1, 0], SilentReporter())


def test_the_report_of_unscored_answers() -> None:
    made = [
        Score(id=f"r{n}", role="a", arm="base", outcome="unscored" if n else "pass", check="regex", detail="why\x1b")
        for n in range(3)
    ]
    assert unscored_lines(made) == ["2 answers unscored by regex, for example row r1: why\\x1b"]


def _pid_of(child: Bounded) -> int:
    assert child._child is not None
    return child._child.process.pid


def _gone(pid: int, within_s: float = 60.0) -> bool:
    ends = time.monotonic() + within_s
    while time.monotonic() < ends:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_child_has_neither_our_keys_nor_our_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    with (tmp_path / "open").open("w") as held:
        os.set_inheritable(held.fileno(), True)
        child = Bounded(SHORT)
        try:
            child.ask({"do": "fault", "names": [], "data": {}})
            process = Path(f"/proc/{_pid_of(child)}")
            assert b"sk-secret" not in (process / "environ").read_bytes()
            opened = {str(one.readlink()) for one in (process / "fd").iterdir()}
            assert all(name.startswith(("pipe:", "/dev/null")) for name in opened), opened
        finally:
            child._end()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_busy_child_does_not_outlive_its_parent_for_long() -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", "import sys, threading, time\n"
         "from journeyman.scoring.bounded import Bounded, Bounds\n"
         "child = Bounded(Bounds(cpu_s=1.0))\n"
         "child.ask({'do': 'fault', 'names': [], 'data': {}})\n"
         "request = {'do': 'check', 'name': 'regex', 'answer': {'text': 'a' * 60 + 'b', 'finish_reason': 'stop',\n"
         "  'calls': [], 'reference': None, 'reference_calls': [],\n"
         "  'task': '', 'data': {'pattern': '(a+)+$'}, 'limits': {}}}\n"
         "threading.Thread(target=child.ask, args=(request,), daemon=True).start()\n"
         "time.sleep(0.3)\nprint(child._child.process.pid, flush=True)\ntime.sleep(60)"],
        stdout=subprocess.PIPE, text=True, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    assert _gone(pid)


@pytest.mark.slow
def test_a_reply_that_never_ends_or_never_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    child = Bounded(Bounds(cpu_s=None, wall_s=1.0))
    with pytest.raises(Broken, match="did not finish within 1 s"):
        child.ask({"do": "check", "name": "regex", "answer": {"data": STUCK, "text": ENDLESS, "finish_reason": "stop",
                   "calls": [], "reference_calls": [], "reference": None, "task": "", "limits": {}}})  # fmt: skip
    assert child.ask({"do": "nothing"})["raised"].startswith("KeyError")
    child.close()
    assert child.ask({"do": "fault", "names": [], "data": {}}) == {"fault": None}, "it is started again"
    child._end()
