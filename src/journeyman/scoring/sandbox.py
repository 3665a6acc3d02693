"""Runs model-written Python in a child process with limits on time, memory, output, files and network.

Where the kernel can close off neither network nor files, nothing is run: the check is then "unscored"
with that reason, unless the config allows `evaluate.unsafe_exec`.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_JAIL = Path(__file__).with_name("jail.py")
_NO_SANDBOX = 97
_OUTPUT_BYTES = 4096


@dataclass(frozen=True)
class Limits:
    """What one run may use."""

    wall_s: float = 5.0
    cpu_s: int = 4
    memory_bytes: int = 512 << 20
    unsafe: bool = False


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
    job = json.dumps({"sources": list(sources), "nonce": nonce, "unsafe": limits.unsafe})
    with tempfile.TemporaryDirectory(prefix="journeyman-run-") as scratch:
        code, stdout, stderr = _run_child(scratch, job, limits)
    if code == _NO_SANDBOX:
        return RunResult(None, stderr)
    if code is None:
        return RunResult(False, f"did not end within {limits.wall_s:g} s")
    if stdout.endswith(nonce):
        return RunResult(True, "")
    return RunResult(False, _reason(code, stderr))


def _run_child(scratch: str, job: str, limits: Limits) -> tuple[int | None, str, str]:
    command = [sys.executable, "-I", "-S", "-B", str(_JAIL), scratch, str(limits.memory_bytes), str(limits.cpu_s)]
    out_path, error_path = Path(scratch, "stdout"), Path(scratch, "stderr")
    with out_path.open("wb") as out, error_path.open("wb") as error:
        child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=out, stderr=error, env={}, cwd=scratch, start_new_session=True
        )
        try:
            child.communicate(job.encode(), timeout=limits.wall_s)
            code: int | None = child.returncode
        except subprocess.TimeoutExpired:
            code = None
        finally:
            _kill_group(child)
    return code, _tail(out_path), _tail(error_path)


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
    if code < 0:
        return f"killed by signal {-code} (memory, time or output limit)"
    return f"ended early with exit code {code}"
