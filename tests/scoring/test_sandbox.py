"""The sandbox: what hostile answers cannot do and cannot leave behind."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from journeyman.manifests import Sandbox
from journeyman.reasons.scoring import CodeExited, CodeKilled, CodeRaised, NoSandbox
from journeyman.scoring import sandbox
from journeyman.scoring.contracts import Limits
from journeyman.scoring.sandbox import CHILD, bubblewrap, run_sources, run_tests, sandbox_of

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
    assert result.reason is not None
    assert not any(mark.exists() for mark in marks)


@pytest.mark.parametrize("bubblewrapped", WALLS)
def test_code_that_could_not_be_run_has_not_failed(bubblewrapped: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sandbox that breaks before foreign code runs says nothing about the answer."""
    monkeypatch.setattr(sandbox, "_JAIL", Path("/nowhere/jail"))
    result = run_sources([("answer", "pass")], replace(FAST, bubblewrap=bubblewrapped))
    assert result.passed is None and isinstance(result.reason, NoSandbox)


def test_the_sandbox_is_described() -> None:
    assert sandbox_of(Limits(bubblewrap=False)) == Sandbox(kind="namespaces", description=CHILD)
    found = bubblewrap()
    assert sandbox_of().kind == ("namespaces" if found is None else "bubblewrap")


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
def test_what_the_code_replaces_does_not_hide_a_failing_test(code: str, bubblewrapped: bool) -> None:
    limits = replace(FAST, bubblewrap=bubblewrapped)
    assert run_tests(code, "assert False", limits).passed is False


@pytest.mark.parametrize("bubblewrapped", WALLS)
def test_output_of_an_honest_answer_is_harmless(bubblewrapped: bool) -> None:
    limits = replace(FAST, bubblewrap=bubblewrapped)
    assert run_tests("print('demo')", "print('ok')", limits).passed
    honest = "import json, re, math, collections, datetime, typing, dataclasses\nopen('f', 'w').write('x')"
    assert run_tests(honest, "assert open('f').read() == 'x'", limits).passed


@pytest.mark.parametrize("bubblewrapped", WALLS)
def test_what_it_forks_dies_with_it(tmp_path: Path, bubblewrapped: bool) -> None:
    code = "import os, time\nfor _ in range(5):\n    if os.fork() == 0:\n        os.setsid()\n        time.sleep(77)"
    run_tests(code, "pass", replace(FAST, bubblewrap=bubblewrapped))
    assert not inside()


LEAKS = {  # each ends without an error if the sandbox works
    "other files": "for p in ABSENT:\n    assert not os.path.lexists(p), p",
    "metadata": (
        "for do in (lambda p: os.chmod(p, 0o777), lambda p: os.utime(p, (1, 1)), lambda p: os.chown(p, 1, 1),\n"
        "           lambda p: os.setxattr(p, 'user.x', b'y'), os.unlink, lambda p: os.rename(p, 'x'),\n"
        "           lambda p: os.link(p, 'x'), lambda p: os.truncate(p, 0)):\n    refused(do, MARK)"
    ),
    "sockets": (
        "import socket\nfor family in range(50):\n    for kind in (1, 2, 3):\n"
        "        refused(socket.socket, family, kind)\n"
        "a, b = socket.socketpair()\na.send(b'x')\nassert b.recv(1) == b'x'"
    ),
    "shared memory": (
        "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\n"
        "assert libc.shmget(4711, 4096, 0o1777) == libc.semget(4711, 1, 0o1777) == libc.msgget(4711, 0o1777) == -1\n"
        "refused(os.memfd_create, 'x')"
    ),
    "processes": (
        "refused(os.fork)\nrefused(os.execv, '/usr/bin/true', ['true'])\nrefused(os.kill, os.getppid(), 0)\n"
        "refused(os.kill, -1, 9)\nrefused(os.pidfd_open, 1)"
    ),
    "all of the scratch": (
        "whole = 0\ntry:\n    for i in range(200):\n        with open(f'f{i}', 'w') as f:\n"
        "            f.write('a' * (1 << 20))\n"
        "        whole += 1 << 20\nexcept OSError:\n    pass\nassert whole <= 32 << 20"
    ),
    "many files": "try:\n    for i in range(4000):\n        os.mkdir(f'd{i}')\nexcept OSError:\n    pass",
    "other folders": "for p in ('/', '/dev', '/usr', '/scratch/..', os.path.dirname(MARK)):\n"
    "    refused(open, p + '/x', 'w')",
    "nested folders": "for _ in range(3000):\n    os.mkdir('d')\n    os.chdir('d')",
    "folders that may not be read": "os.mkdir('d')\nopen('d/f', 'w').close()\nos.chmod('d', 0)",
    "a link and a fifo": "os.symlink('/etc/passwd', 'stdout')\nos.symlink('/dev/zero', 'stderr')\nos.mkfifo('fifo')",
    "being root": "assert not any(os.access(p, os.W_OK) for p in ('/', '/usr', MARK))\n"
    "refused(os.setuid, 0) if os.getuid() else 0",
}  # fmt: skip


@pytest.mark.parametrize("bubblewrapped", WALLS)
@pytest.mark.parametrize("name", LEAKS)
def test_the_machine_is_out_of_reach(name: str, bubblewrapped: bool) -> None:
    mark = Path(sys.prefix) / "pyvenv.cfg"
    before, shared = mark.stat(), Path("/proc/sysvipc/shm").read_text()
    absent = ["/etc/passwd", "/var", "/proc/1", "/sys", "/tmp", "/run", "/dev/shm", str(Path.home() / ".bashrc")]
    # Python, its packages or this checkout may be below one of these: then the folder exists and contains only that.
    seen = [Path(place).resolve() for place in (sys.prefix, sys.base_prefix, sandbox.__file__)]
    absent = [name for name in absent if not any(place.is_relative_to(name) for place in seen)]
    code = (
        f"import os\nMARK = {str(mark)!r}\nABSENT = {absent!r}\ndef refused(do, *given):\n    try:\n"
        f"        do(*given)\n    except OSError:\n"
        f"        return\n    raise AssertionError(given)\n{LEAKS[name]}\n"
    )
    result = run_tests(code, "pass", replace(FAST, wall_s=10, bubblewrap=bubblewrapped))
    assert result.passed, result.reason
    after = mark.stat()
    assert (after.st_mode, after.st_mtime, after.st_uid) == (before.st_mode, before.st_mtime, before.st_uid)
    assert Path("/proc/sysvipc/shm").read_text() == shared
    assert not inside()


def inside() -> list[str]:
    """Sandbox processes of this checkout that are still running, except those of tests in other workers."""
    others: set[int] = set()
    if "PYTEST_XDIST_WORKER" in os.environ:
        others = {one.pid for one in psutil.Process(os.getppid()).children()} - {os.getpid()}
    found = []
    for process in Path("/proc").iterdir():
        try:
            if not process.name.isdigit() or str(sandbox._JAIL).encode() not in (process / "cmdline").read_bytes():
                continue
            if not others & {one.pid for one in psutil.Process(int(process.name)).parents()}:
                found.append(process.name)
        except (OSError, psutil.Error):
            continue
    return found


@pytest.mark.parametrize("bubblewrapped", WALLS)
def test_what_is_printed_does_not_fill_the_evaluator_and_no_process_outlives_the_time_limit(
    bubblewrapped: bool,
) -> None:
    code = (
        "import os\ndef f():\n    while True:\n"
        "        os.write(1, b'a' * 65536); os.write(2, b'a' * 65536); print('b' * 65536)"
    )
    limits = Limits(wall_s=1, cpu_s=30, bubblewrap=bubblewrapped)
    result = run_tests(code, "f()", limits)
    assert result.passed is False and result.reason is not None and len(result.reason.sentence()) < 400
    assert not inside(), "everything inside has ended when the call comes back"
    sleeping = "import time, threading\nthreading.Thread(target=time.sleep, args=(99,)).start()\ntime.sleep(99)"
    assert run_sources([("answer", sleeping)], limits).passed is False
    assert not inside()


@pytest.mark.parametrize("bubblewrapped", WALLS)
def test_the_inside_ends_with_an_evaluator_that_is_killed(bubblewrapped: bool) -> None:
    code = (
        "from journeyman.scoring.sandbox import *\n"
        f"run_sources([('a', 'import time; time.sleep(300)')], Limits(wall_s=300, bubblewrap={bubblewrapped}))"
    )
    evaluator = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": "src"})
    wait_until(lambda: len(inside()) >= 3)
    evaluator.kill()
    evaluator.wait()
    wait_until(lambda: not inside())


def wait_until(holds: Callable[[], bool]) -> None:
    for _ in range(300):
        if holds():
            return
        time.sleep(0.1)
    raise AssertionError("it did not come about")


@pytest.mark.parametrize("bubblewrapped", WALLS)
def test_code_that_ends_early_says_how(bubblewrapped: bool) -> None:
    limits = replace(FAST, bubblewrap=bubblewrapped)
    assert run_sources([("answer", "import atexit\natexit.register(print, 'bye')\nprint('hi')")], limits).passed
    assert run_sources([("a", "x = 1"), ("b", "assert x == 1")], limits).passed
    assert run_sources([("answer", "import os; os._exit(3)")], limits).reason == CodeExited(3)
    assert run_tests("import os\ndef f(): os.kill(os.getpid(), 11)", "f()", limits).reason == CodeKilled(11)
    assert run_tests("x = 1 / 0", "pass", limits).reason == CodeRaised("ZeroDivisionError: division by zero")
    colored = run_tests("def f(): raise ValueError('a\\n\\x1b[31mred')", "f()", limits)
    assert colored.reason == CodeRaised("ValueError: \\x1b[31mred")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_root_becomes_another_user_where_the_walls_are_its_own() -> None:
    tests = "assert who() == (65534, 65534, 65534)"
    answer = "import os\ndef who(): return os.getuid(), os.geteuid(), os.getgid()"
    result = run_tests(answer, tests, replace(FAST, bubblewrap=False))
    assert result.passed, result.reason


@pytest.mark.parametrize("bubblewrapped", WALLS)
def test_the_number_of_files_is_limited(bubblewrapped: bool) -> None:
    code = "import os\nfor i in range(10**7):\n    os.mkdir(f'd{i}')"
    assert run_sources([("answer", code)], Limits(wall_s=20, cpu_s=20, bubblewrap=bubblewrapped)).passed is False


def test_without_a_sandbox_code_runs_only_if_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "_SCRATCH", "/usr/no-such-folder")  # cannot be made: /usr is read-only inside
    refused = run_tests("x = 1", "assert x == 1", Limits(bubblewrap=False))
    assert refused.passed is None and isinstance(refused.reason, NoSandbox)
    described = Sandbox(kind="unavailable", description=refused.reason.sentence())
    assert sandbox_of(Limits(bubblewrap=False)) == described
    unsafe = Limits(bubblewrap=False, unsafe=True)
    assert run_tests("x = 1", "assert x == 1", unsafe).passed and sandbox_of(unsafe).kind == "none"
    assert run_tests("x = 1", "assert x == 2", unsafe).passed is False


@pytest.mark.skipif(
    os.geteuid() != 0 or not Path("/usr/bin/python3").exists(), reason="needs root and a Python in /usr"
)
def test_it_works_for_a_user_without_root() -> None:
    packages = sysconfig.get_paths()["purelib"]
    code = (
        f"import sys; sys.path.insert(0, 'src'); sys.path.append({packages!r})\n"
        "from journeyman.scoring.sandbox import *\n"
        "for tests in ('assert f() == 65534', 'assert f() == 0'):\n"
        "    print(run_tests('import os\\ndef f(): return os.getuid()', tests, Limits(bubblewrap=False)).passed)"
    )
    version = subprocess.run(
        ["/usr/bin/python3", "-c", "import sys; print(*sys.version_info[:2])"], text=True, capture_output=True
    )
    if version.stdout.split() != [str(part) for part in sys.version_info[:2]]:
        pytest.skip("another Python, which cannot use the packages of this one")
    done = subprocess.run(
        ["/usr/bin/python3", "-B", "-c", code], user=65534, group=65534, extra_groups=[], text=True, capture_output=True
    )
    if "Permission" in done.stderr:
        pytest.skip("this checkout may not be read by others")
    assert done.stdout.split() == ["True", "False"], done.stderr
