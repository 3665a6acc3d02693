"""A reporter that keeps what it is told."""

from __future__ import annotations

from journeyman.protocols import SilentReporter


class Recorder(SilentReporter):
    """Keeps lines, tasks and progress; asks to stop once `stop_after` bytes are reported."""

    def __init__(self, stop_after: float = float("inf")) -> None:
        self.said: list[str] = []
        self.begun: list[tuple[str, float, str]] = []
        self.done: list[float] = []
        self._stop_after = stop_after

    def say(self, text: str) -> None:
        self.said.append(text)

    def begin(self, task: str, total: float, unit: str) -> None:
        self.begun.append((task, total, unit))

    def advance(self, done: float, note: str = "") -> None:
        self.done.append(done)

    @property
    def stop_requested(self) -> bool:  # type: ignore[override]
        return bool(self.done) and self.done[-1] >= self._stop_after
