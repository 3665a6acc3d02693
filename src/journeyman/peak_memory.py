"""The most memory that a process has had resident, as the kernel counts it for its program; Linux only."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

_RESETS_THE_PEAK = "5"
"""What /proc/PID/clear_refs takes: see proc_pid_clear_refs(5)."""


def peak_resident_bytes(pid: int | None = None) -> int | None:
    """The peak since the program began, or since forget_peak; None: the system does not report it.

    It is VmHWM and not ru_maxrss, which also counts what the process was before it called exec: a child that is
    started with vfork begins with its parent's peak.

    Args:
        pid: None: of this process.
    """
    try:
        status = Path(f"/proc/{os.getpid() if pid is None else pid}/status").read_text()
    except OSError:
        return None
    match = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(match[1]) * 1024 if match else None


def forget_peak() -> None:
    """Lets the peak of this process begin again with what is resident now, where the system allows it."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text(_RESETS_THE_PEAK)
