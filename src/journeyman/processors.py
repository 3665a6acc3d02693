"""How many processor cores this process may use, and how many of them other processes use now."""

from __future__ import annotations

import math
import os
import time
from pathlib import Path

import psutil

from journeyman.control_groups import GROUPS, OWN, folders


def usable_cores(group: Path = GROUPS, own: Path = OWN) -> int:
    """Logical cores that this process may use: what a container's limit and the affinity leave, at least 1.

    `nproc` and `os.cpu_count` know nothing of the quota of a container.

    Args:
        group, own: see control_groups.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = min((one for folder, _ in folders("cpu", group, own) if (one := _quota(folder)) is not None), default=None)
    return max(1, cores if quota is None else min(cores, math.ceil(quota)))


def default_threads() -> int:
    """Threads to compute with: one for each physical core, as far as this process may use them."""
    return min(psutil.cpu_count(logical=False) or 1, usable_cores())


def cores_used_by_others(seconds: float = 0.25) -> float:
    """Logical cores that other processes, and other virtual machines on the same host, use; measured for a moment."""
    before, mine = psutil.cpu_times(), psutil.Process().cpu_times()
    start = time.monotonic()
    time.sleep(seconds)
    after, mine_now, passed = psutil.cpu_times(), psutil.Process().cpu_times(), time.monotonic() - start
    names = ("user", "nice", "system", "irq", "softirq", "steal")  # of Linux; other systems have some of them
    used = sum(getattr(after, name, 0.0) - getattr(before, name, 0.0) for name in names)
    own = mine_now.user + mine_now.system - mine.user - mine.system
    return max(0.0, (used - own) / passed)


def _quota(folder: Path) -> float | None:
    """A control group's limit in cores; None: there is none."""
    try:
        quota, period = (folder / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        pass
    try:
        quota, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return int(quota) / int(period) if int(quota) > 0 else None
    except (OSError, ValueError, ZeroDivisionError):
        return None
