"""Whether other work takes the processors while something is measured."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from journeyman.processors import cores_used_by_others, usable_cores

_PRESSURE = Path("/proc/pressure/cpu")
_OWN = 0.2


@dataclass(frozen=True)
class Contention:
    """What was seen.

    Attributes:
        others: share of the cores that other processes used just before.
        waiting: share of the time in which some task waited for a core (pressure stall information of Linux, "some");
            None: the system does not say.
        stolen: share of processor time that the host gave to other virtual machines; None: the system does not say.
    """

    others: float
    waiting: float | None
    stolen: float | None

    @property
    def share(self) -> float:
        """How far times may be off because of it: the largest of them, at most 1.

        A computation on all cores lets tasks of the system wait now and then, which is not counted.
        """
        return min(1.0, max(self.others, (self.waiting or 0.0) - _OWN, self.stolen or 0.0))


class ContentionWatch:
    """Watches from when it is made, which takes a quarter of a second, until `seen` is called.

    Args:
        pressure: the file with the pressure on processors.
    """

    def __init__(self, pressure: Path = _PRESSURE) -> None:
        self._pressure = pressure
        self._others = cores_used_by_others()
        self._start, self._times, self._stalled = time.monotonic(), psutil.cpu_times(), self._stalled_us()

    def seen(self) -> Contention:
        passed, now, stalled = time.monotonic() - self._start, psutil.cpu_times(), self._stalled_us()
        waiting = stolen = None
        if stalled is not None and self._stalled is not None and passed > 0:
            waiting = min(1.0, (stalled - self._stalled) / 1e6 / passed)
        every = sum(now) - sum(self._times)
        if hasattr(now, "steal") and every > 0:
            stolen = max(0.0, now.steal - self._times.steal) / every
        return Contention(min(1.0, self._others / usable_cores()), waiting, stolen)

    def _stalled_us(self) -> int | None:
        """Microseconds since the system started in which some task waited."""
        try:
            some = next(line for line in self._pressure.read_text().splitlines() if line.startswith("some "))
            return int(some.rpartition("total=")[2])
        except (OSError, ValueError, StopIteration):
            return None
