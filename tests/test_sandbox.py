"""The sandbox: what hostile answers cannot do, cannot forge and cannot leave behind; and that honest ones pass."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from forging_answers import FORGERIES
from honest_answers import HONEST
from journeyman.scoring import sandbox
from journeyman.scoring.sandbox import (
    CHILD,
    Limits,
    bubblewrap,
    run_sources,
    run_tests,
    sandbox_name,
)

FAST = Limits(wall_s=3.0, cpu_s=1)

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
    "forks for ever": "import os\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        pass",
    "looks for the proof": (
        "import os, re, sys\nframe = sys._getframe()\nwhile frame:\n"
        "    for found in re.findall('[0-9a-f]{32}', repr(frame.f_locals)):\n"
        "        os.write(1, found.encode()); os._exit(0)\n"
        "    frame = frame.f_back\nraise SystemExit"
    ),
    "looks at the environment": "import os; assert os.environ.get('PATH') or os.environ.get('HOME')",
    "looks at its parent's environment": "print(open('/proc/%d/environ' % __import__('os').getppid()).read()[0])",
    "kills all that it can": "import os; os.kill(-1, 9); raise ValueError",
    "writes into the system": "open('/usr/bin/journeyman-was-here', 'w').write('x')",
    "writes into Python": "import sys; open(sys.prefix + '/journeyman-was-here', 'w').write('x')",
    "goes out by a link": "import os; os.symlink('/etc', 'out'); open('out/passwd').read()",
    "goes out by another root": "import os; os.chroot('.'); os.listdir('/')",
    "mounts the disk": (
        "import ctypes, os\nif ctypes.CDLL(None).mount(b'/dev/vda', b'.', b'ext4', 0, None):\n    raise SystemExit\n"
    ),
    "sees a network": "import socket; [name for _, name in socket.if_nameindex() if name != 'lo'][0]",
    "talks to a socket of the system": "import socket; socket.socket(1, 1).connect('/run/dbus/system_bus_socket')",
    "works on in the background": (
        "import os, time\nif os.fork() == 0:\n    os.setsid(); time.sleep(1)\n"
        "    open('/tmp/journeyman-was-here', 'w')\nos._exit(0)"
    ),
    "opens what it may not": "[open('f%d' % i, 'w') for i in range(10**4)]",
    "recurses without end": "import sys; sys.setrecursionlimit(10**9)\ndef f(): f()\nf()",
    "ends as if there were no sandbox": "import os, sys; open('stdout', 'w'); os.ftruncate(1, 0); os._exit(97)",
    "ends as if it had passed": "import sys; sys.exit(0)",
    "replaces its tests": "import sys; sys.modules['__main__'].run = None; raise SystemExit",
}
NEEDS_BUBBLEWRAP = pytest.mark.skipif(bubblewrap() is None, reason="bubblewrap is not installed or may not work here")
WALLS = [pytest.param(True, marks=NEEDS_BUBBLEWRAP, id="bubblewrap"), pytest.param(False, id="child")]


@pytest.mark.parametrize("bubblewrapped", WALLS)
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_code_fails_and_leaves_no_trace(name: str, bubblewrapped: bool) -> None:
    marks = [Path(folder) / "journeyman-was-here" for folder in ("/tmp", "/usr/bin", sys.prefix)]
    result = run_tests(HOSTILE[name], "pass", replace(FAST, bubblewrap=bubblewrapped))
    assert result.passed is False, name
    assert result.detail
    assert not any(mark.exists() for mark in marks)


@pytest.mark.parametrize("bubblewrapped", WALLS)
def test_what_could_not_be_run_is_no_failure(bubblewrapped: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sandbox that breaks before foreign code runs says nothing about the answer."""
    monkeypatch.setattr(sandbox, "_JAIL", Path("/nowhere/jail"))
    result = run_sources([("answer", "pass")], replace(FAST, bubblewrap=bubblewrapped))
    assert result.passed is None and result.detail


def test_it_says_what_stands_between() -> None:
    assert sandbox_name(Limits(bubblewrap=False)) == CHILD
    found = bubblewrap()
    assert sandbox_name() == (CHILD if found is None else found.version)


@pytest.mark.parametrize(
    "code",
    [
        "import builtins\nbuiltins.exec = builtins.compile = lambda *a: None",
        "import os\nos.write = lambda *a: None",
        "import sys\nsys.settrace(None); AssertionError = ValueError",
        "import atexit, os\natexit.register(os._exit, 0)",
        "import sys, threading\nsys.excepthook = lambda *a: None",
    ],
)
@pytest.mark.parametrize("bubblewrapped", WALLS)
def test_what_it_puts_in_place_does_not_hide_a_failing_test(code: str, bubblewrapped: bool) -> None:
    limits = replace(FAST, bubblewrap=bubblewrapped)
    assert run_tests(code, "assert False", limits).passed is False


@pytest.mark.parametrize("bubblewrapped", WALLS)
def test_what_an_honest_answer_prints_does_no_harm(bubblewrapped: bool) -> None:
    limits = replace(FAST, bubblewrap=bubblewrapped)
    assert run_tests("print('demo')", "print('ok')", limits).passed
    honest = "import json, re, math, collections, datetime, typing, dataclasses\nopen('f', 'w').write('x')"
    assert run_tests(honest, "assert open('f').read() == 'x'", limits).passed


@pytest.mark.parametrize("bubblewrapped", WALLS)
def test_what_it_forks_dies_with_it(tmp_path: Path, bubblewrapped: bool) -> None:
    code = "import os, time\nfor _ in range(5):\n    if os.fork() == 0:\n        os.setsid()\n        time.sleep(77)"
    run_tests(code, "pass", replace(FAST, bubblewrap=bubblewrapped))
    running = [p for p in Path("/proc").iterdir() if p.name.isdigit() and p.name != str(os.getpid())]
    for process in running:
        try:
            assert b"scoring/jail" not in (process / "cmdline").read_bytes()
        except OSError:
            continue


WANTED = "assert add(1, 2) == 3\nassert abs(add(1, 2) - 3) < 1e-9"


@pytest.mark.parametrize("bubblewrapped", WALLS)
@pytest.mark.parametrize("name", FORGERIES)
def test_a_failing_test_cannot_be_forged_into_a_passing_one(name: str, bubblewrapped: bool) -> None:
    limits = replace(FAST, bubblewrap=bubblewrapped)
    for tests in WANTED.splitlines():
        assert run_tests(FORGERIES[name], tests, limits).passed is False, tests


@pytest.mark.parametrize("bubblewrapped", WALLS)
@pytest.mark.parametrize("name", HONEST)
def test_what_is_right_passes(name: str, bubblewrapped: bool) -> None:
    answer, tests = HONEST[name]
    limits = Limits(wall_s=20, bubblewrap=bubblewrapped)
    result = run_tests(answer, tests, limits)
    assert result.passed, result.detail
    assert not run_tests(answer, tests + "\nassert 1 == 2", limits).passed
