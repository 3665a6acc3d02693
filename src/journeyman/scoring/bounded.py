"""Runs checks in a child process that is killed at its limits. A pattern, a schema or a user's function that never
finishes costs that much time and leaves one answer unscored, nothing more.

A thread is not enough, because Python's `re` holds the interpreter lock while it searches. A linear-time regex engine
is not enough either: schemas, parsers and comparisons are just as vulnerable to hostile data, and such an engine does
not support the lookaheads and backreferences that rows may contain. The child speaks JSON over two pipes. It is started
once and used for all rows; when it has hit a limit, a new one is started.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import IO, Any

START_S = 120.0
"""How long the child may take to start or to load a user's code, on a busy machine."""
_SAFE_ENVIRONMENT = ("PATH", "PYTHONPATH", "LANG", "LC_ALL", "TZ", "VIRTUAL_ENV")
_PACKAGES = str(Path(__file__).parents[2])
_RUN = "import sys; sys.path.append(sys.argv[1]); from journeyman.scoring.bounded_child import main; main()"
"""The package's folder comes last in the path: otherwise its neighbors could shadow the standard library."""
_MOST_REPLY = 1 << 20


@dataclass(frozen=True)
class Bounds:
    """Limits of one request.

    Attributes:
        cpu_s: processor time, which does not depend on how busy the machine is; None: only wall time counts.
        wall_s: wall time.
        memory_bytes: memory of the whole child; None: no limit.
        own: the child runs a user's code, which sees this process's environment, including the keys in it.
    """

    cpu_s: float | None = 5.0
    wall_s: float = 60.0
    memory_bytes: int | None = 1 << 30
    own: bool = False


class Broken(Exception):
    """The child did not reply: it hit a time limit or ended. The message says which.

    Attributes:
        seconds: the time limit that it hit; None if there was another cause.
        clock: the kind of time limit, "processor" or "wall".
    """

    def __init__(self, problem: str, seconds: float | None = None, clock: str = "wall") -> None:
        super().__init__(problem)
        self.seconds, self.clock = seconds, clock


@dataclass
class _Child:
    process: subprocess.Popen[bytes]
    prepared: dict[str, Any] = field(default_factory=dict)


class Bounded:
    """A child process that answers one request at a time; safe to use from several threads."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._child: _Child | None = None
        self._lock = threading.Lock()

    def ask(self, request: Mapping[str, Any]) -> Any:
        """Sends a request and returns the decoded JSON reply.

        Raises:
            Broken: no reply within the limits.
        """
        with self._lock:
            return self._asked(request, self._bounds.wall_s)

    def ask_prepared(self, before: Mapping[str, Any], request: Mapping[str, Any] | None = None) -> Any:
        """Like `ask`, after sending `before` once to each child, outside the time limit. Without a request, returns
        the reply to `before`."""
        with self._lock:
            key, child = json.dumps(before), self._running()
            if key not in child.prepared:
                child.prepared[key] = self._asked(before, max(START_S, self._bounds.wall_s))
            return child.prepared[key] if request is None else self._asked(request, self._bounds.wall_s)

    def close(self) -> None:
        """Kills the child, even while it is working. The next request starts a new one."""
        if (child := self._child) is not None:
            _kill(child.process)
            child.process.wait()

    def _asked(self, request: Mapping[str, Any], wall_s: float) -> Any:
        line = json.dumps({"cpu_s": self._bounds.cpu_s, "wall_s": wall_s, **request}).encode() + b"\n"
        child = self._running()
        try:
            return json.loads(self._exchanged(child.process, line, wall_s))
        except BaseException:
            self._end()
            raise

    def _running(self) -> _Child:
        if self._child is None or self._child.process.poll() is not None:
            self._end()
            self._child = _Child(self._started())
            try:
                self._exchanged(self._child.process, b"", START_S)
            except BaseException:
                self._end()
                raise
        return self._child

    def _started(self) -> subprocess.Popen[bytes]:
        names = os.environ if self._bounds.own else _SAFE_ENVIRONMENT
        return subprocess.Popen(
            [sys.executable, "-P", "-c", _RUN, _PACKAGES, str(self._bounds.memory_bytes or 0)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True,
            env={name: os.environ[name] for name in names if name in os.environ},
        )  # fmt: skip

    def _exchanged(self, process: subprocess.Popen[bytes], line: bytes, limit_s: float) -> bytes:
        """Sends a line and reads one; neither end can block the other."""
        assert process.stdin is not None and process.stdout is not None
        ends, reply, left = time.monotonic() + limit_s, bytearray(), memoryview(line)
        os.set_blocking(process.stdin.fileno(), False)
        while not reply.endswith(b"\n"):
            wants = [process.stdin] if left else []
            readable, writable, _ = select.select([process.stdout], wants, [], max(0.0, ends - time.monotonic()))
            if not readable and not writable:
                raise _late(limit_s)
            if writable:
                try:
                    left = left[os.write(process.stdin.fileno(), left[:65536]) :]
                except BlockingIOError:
                    pass
                except BrokenPipeError:
                    left = left[:0]  # the child has ended; its last output is still read
            if readable:
                part = os.read(process.stdout.fileno(), 65536)
                reply += part
                if not part or len(reply) > _MOST_REPLY:
                    raise self._why(process)
        return bytes(reply)

    def _why(self, process: subprocess.Popen[bytes]) -> Broken:
        try:
            code = process.wait(1.0)
        except subprocess.TimeoutExpired:
            return Broken("its process sent a reply that is too long")
        if code == -signal.SIGPROF:
            limit = self._bounds.cpu_s
            return Broken(f"did not finish within {limit:g} s of processor time", limit, "processor")
        if code == -signal.SIGALRM:
            return _late(self._bounds.wall_s)
        how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
        return Broken(f"its process ended {how}")

    def _end(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            _kill(child.process)
            child.process.wait()
            _close(child.process.stdin)
            _close(child.process.stdout)


def _late(limit_s: float) -> Broken:
    return Broken(f"did not finish within {limit_s:g} s", limit_s)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """With what code of one's own has started; the group outlives its leader."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):  # macOS raises PermissionError for a group that has ended
        pass


def _close(pipe: IO[bytes] | None) -> None:
    try:
        if pipe is not None:
            pipe.close()
    except OSError:
        pass


@cache
def bounded(bounds: Bounds) -> Bounded:
    """The only child with these bounds; it is killed when this process exits."""
    made = Bounded(bounds)
    atexit.register(made.close)
    return made
