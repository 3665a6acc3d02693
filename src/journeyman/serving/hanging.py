"""When an engine hangs: it has requests, or answers nothing at all, and gets no further.

What counts is progress, not silence. A long prompt on a slow processor may take minutes until its first token, but it
uses processor time, and each batch of its tokens is a step that the engine reports.
"""

from __future__ import annotations

from journeyman.protocols import Pulse

_LEAST_SHARE = 0.01
"""Of one core; less is no computing. A look at the engine costs a tenth of it."""


class HangDetector:
    """Follows one engine.

    Args:
        idle_s: how long it may have work without computing.
        busy_s: how long it may compute without getting further.
        now: monotonic time in seconds, as in `hangs`.
    """

    def __init__(self, idle_s: float, busy_s: float, now: float) -> None:
        self._idle_s, self._busy_s = idle_s, busy_s
        self._looked = self._moved = self._computed = now
        self._cpu_s, self._steps = 0.0, -1

    def hangs(self, pulse: Pulse, now: float) -> bool:
        """Whether it hangs, to be asked every few seconds with its current pulse."""
        if pulse.cpu_s - self._cpu_s > _LEAST_SHARE * (now - self._looked):
            self._computed = now
        if pulse.requests == 0 or (pulse.steps is not None and pulse.steps != self._steps):
            self._moved = now
        self._looked, self._cpu_s = now, pulse.cpu_s
        self._steps = self._steps if pulse.steps is None else pulse.steps
        return now - max(self._moved, self._computed) > self._idle_s or now - self._moved > self._busy_s
