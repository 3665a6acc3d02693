"""Shared by tests/test_faults.py and tools/kill_every_stage.py: processes that are disturbed, and what they leave."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import zstandard

SOURCE = Path(__file__).parents[2] / "src"
ENV = {**os.environ, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"}
_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER: orphans become this process's children, where they are seen
_HURRIED = (
    "import journeyman.append_log as outputs; outputs._COMMIT_EVERY_S = 0.0; "
    "import journeyman.stages.ingest as ingest, journeyman.curation.passes as passes; "
    "import journeyman.curation.row_batches as row_batches; "
    "ingest._BATCH_BYTES = row_batches.BATCH_BYTES = 1 << 15; "
    "{workers}from journeyman.cli.app import main; main()"
)
_WORKERS = "ingest._WORTH_WORKERS = passes._WORTH_WORKERS = 0; "
_NEVER_EQUAL = {
    "created", "latency_s", "first_token_s", "speed", "under_load", "load_s", "warm_up_s", "peak_memory_gb", "evidence",
}  # fmt: skip
"""Times, memory, and hashes of what holds them: another run of the same never has the same."""


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "journeyman", *map(str, arguments)]


def hurried(*arguments: object, workers: bool = False) -> list[str]:
    """As `command`, but ingest and curate take small batches and commit after each, some in worker processes."""
    code = _HURRIED.format(workers=_WORKERS if workers else "")
    return [sys.executable, "-c", code, *map(str, arguments)]


def journeyman(*arguments: object, env: Mapping[str, str] = ENV, **more: Any) -> subprocess.CompletedProcess[str]:
    """Runs it to its end."""
    more = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "timeout": 240, **more}
    return subprocess.run(command(*arguments), text=True, env=dict(env), **more)


def start(arguments: list[str], **more: Any) -> subprocess.Popen[str]:
    """Starts it in a session of its own, so that a test's Ctrl-C reaches only it."""
    return subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=ENV, start_new_session=True, **more
    )


def wait_until(condition: Any, child: subprocess.Popen[str] | None = None, timeout_s: float = 120) -> None:
    """Waits for a condition; fails if the child ends before it holds."""
    until = time.monotonic() + timeout_s
    while not condition():
        if child is not None and child.poll() is not None:
            raise AssertionError(f"it ended with {child.returncode}: {child.communicate()[0]}")
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.005)


@contextmanager
def adopting() -> Iterator[None]:
    """Orphans of processes started in the block become children of this process, however deep they were. Those that
    have ended by the end of the block leave no zombies."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_SUBREAPER, 1, 0, 0, 0)
    own = {one.pid for one in psutil.Process().children()}
    try:
        yield
    finally:
        libc.prctl(_SUBREAPER, 0, 0, 0, 0)
        for one in psutil.Process().children():
            if one.pid not in own and one.status() == psutil.STATUS_ZOMBIE:
                with suppress(ChildProcessError):  # its Popen has asked how it ended
                    os.waitpid(one.pid, os.WNOHANG)


def survivors(known: set[int], timeout_s: float = 30) -> list[str]:
    """Processes below this one that are not in `known` and still run after they had time to end."""
    until = time.monotonic() + timeout_s
    while (alive := _alive(known)) and time.monotonic() < until:
        time.sleep(0.05)
    return alive


def below() -> set[int]:
    return {one.pid for one in psutil.Process().children(recursive=True)}


def _alive(known: set[int]) -> list[str]:
    found = []
    for one in psutil.Process().children(recursive=True):
        try:
            if one.pid not in known and one.status() != psutil.STATUS_ZOMBIE:
                found.append(f"{one.pid}: {' '.join(one.cmdline())[:200]}")
        except psutil.NoSuchProcess:
            continue
    return found


@contextmanager
def small_disk(place: Path, size: str) -> Iterator[Path]:
    """A disk of that size in memory; root only."""
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def fill(place: Path, leave: int = 0) -> Path:
    """Fills the disk up to `leave` bytes; returns the file whose removal frees it."""
    ballast = place / "ballast"
    free = os.statvfs(place)
    with ballast.open("wb") as file:
        left = free.f_bavail * free.f_frsize - leave
        try:
            while left > 0:
                left -= os.write(file.fileno(), b"\0" * min(left, 1 << 16))
        except OSError:
            pass
    return ballast


def leftovers(folder: Path) -> list[str]:
    """Files and folders that were started and neither finished nor removed."""
    return [str(one) for one in folder.rglob(".*") if ".tmp" in one.name or one.name.startswith(".staged")]


def comparable(folder: Path) -> dict[str, Any]:
    """Every file of a stage's folder, by name; JSON without what can never be equal (times, memory)."""
    files = [one for one in sorted(folder.rglob("*")) if one.is_file()]
    return {str(one.relative_to(folder)): _content(one) for one in files if not _is_curve(one.relative_to(folder))}


def _is_curve(path: Path) -> bool:
    return path.parts[0] in ("checkpoints", "tensorboard")


def _content(path: Path) -> Any:
    if path.name == "manifest.json":
        manifest = json.loads(path.read_text())
        stamp = manifest["stamp"]
        return _timeless([stamp["stage"], sorted(name for name in stamp["files"]), manifest["result"]])
    if path.suffix == ".zst":  # a commit ends a frame, so frames depend on when commits were made
        with path.open("rb") as file:
            return zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True).read()
    if path.name in ("predictions.jsonl", "timings.jsonl"):
        return [_timeless(json.loads(line)) for line in path.read_text().splitlines()]
    return path.read_bytes()


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(one) for key, one in value.items() if key not in _NEVER_EQUAL}
    return [_timeless(one) for one in value] if isinstance(value, list) else value
