"""Starts a sandbox, reads its reports with limits on bytes and time, and leaves nothing running."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

START_S = 30.0
"""How long building the sandbox may take on a busy machine; the answer's own time starts afterwards."""
_MOST_BYTES = 64 << 10


@dataclass
class Inside:
    """Everything that a sandbox reported.

    Attributes:
        begun: foreign code may have run.
        outcome: what the judge's process reported; None if it reported nothing.
        ends: wait statuses of the processes `judge` and `answer`.
        error: the last line that the sandbox itself wrote.
    """

    begun: bool = False
    outcome: dict[str, Any] | None = None
    ends: dict[str, int] = field(default_factory=dict)
    error: str = ""
    out_of_time: bool = False
    first_process: int | None = None
    child: int = 0

    def take(self, line: str) -> None:
        try:
            said = json.loads(line)
        except ValueError:
            return
        if not isinstance(said, dict):
            return
        if "child-pid" in said and not self.begun:
            self.first_process = _handle_of(said["child-pid"], self.child)
        elif said.get("begun"):
            self.begun = True
        elif "passed" in said and self.outcome is None:
            self.outcome = said
        elif "judge" in said and "answer" in said:
            self.ends = said


def run_inside(command: Sequence[str], job: bytes, wall_s: float) -> Inside:
    """Runs the command, with `job` on its standard input and two handles of the pipe that it reports on.

    `{report}` and `{info}` in the command are replaced by their numbers. There are two because bubblewrap closes the
    one that it has used.
    """
    readable, report = os.pipe()
    info = os.dup(report)
    with os.fdopen(readable, "rb", buffering=0) as reports, tempfile.TemporaryFile() as given:
        given.write(job)
        given.seek(0)
        try:
            child = subprocess.Popen(
                [part.replace("{report}", str(report)).replace("{info}", str(info)) for part in command],
                stdin=given, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env={}, cwd="/",
                start_new_session=True, pass_fds=(report, info),
            )  # fmt: skip
        finally:
            os.close(report)
            os.close(info)
        inside = Inside(child=child.pid)
        assert child.stderr is not None
        try:
            with child.stderr as errors:
                _listen(inside, reports.fileno(), errors.fileno(), wall_s)
        finally:
            _end(child, inside.first_process)
    return inside


def _listen(inside: Inside, reports: int, errors: int, wall_s: float) -> None:
    """Reads until both pipes are closed or time is up. Excess output is read and dropped, so no writer blocks."""
    kept = {reports: bytearray(), errors: bytearray()}
    begun, deadline, taken = False, time.monotonic() + START_S, 0
    with selectors.DefaultSelector() as selector:
        for handle in kept:
            selector.register(handle, selectors.EVENT_READ)
        while selector.get_map():
            ready = selector.select(max(0.0, deadline - time.monotonic()))
            if not ready:
                inside.out_of_time = inside.outcome is None
                break
            for key, _ in ready:
                part = os.read(key.fd, 1 << 16)
                if not part:
                    selector.unregister(key.fd)
                kept[key.fd] += part[: _MOST_BYTES - len(kept[key.fd])]
            lines = _documents(kept[reports])
            for line in lines[taken:]:
                inside.take(line)
            taken = len(lines)
            if inside.begun and not begun:
                begun, deadline = True, time.monotonic() + wall_s
    lines = [line for line in kept[errors].decode("utf-8", "replace").splitlines() if line.strip()]
    inside.error = lines[-1].strip() if lines else ""


def _documents(data: bytearray) -> list[str]:
    """The text of each JSON object; bubblewrap's spans several lines."""
    text = data.decode("utf-8", "replace")
    decoder, found, at = json.JSONDecoder(), [], 0
    while (at := text.find("{", at)) >= 0:
        try:
            _, end = decoder.raw_decode(text, at)
        except ValueError:
            break
        found.append(text[at:end])
        at = end
    return found


def _handle_of(pid: object, parent: int) -> int | None:
    """A handle to the sandbox's first process; when it ends, all the others do."""
    if not isinstance(pid, int) or not hasattr(os, "pidfd_open"):
        return None
    try:
        handle = os.pidfd_open(pid)
        if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1] == str(parent):
            return handle
        os.close(handle)
    except (OSError, IndexError):
        pass
    return None


def _end(child: subprocess.Popen[bytes], first_process: int | None) -> None:
    """Kills the first process inside and waits for the one outside, which waits for it: then none is left."""
    if first_process is not None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(first_process, signal.SIGKILL)
        os.close(first_process)
        try:
            child.wait(timeout=10)
        except subprocess.TimeoutExpired:
            pass
    # If the first process is not known or does not end, the rest dies with the one outside.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
