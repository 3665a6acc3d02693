"""What a task took."""

from __future__ import annotations

import time
from collections.abc import Callable

from journeyman.events import Event, WorkBegan
from journeyman.protocols import Reporter

Clock = Callable[[], float]


class Watch:
    """A Reporter that passes everything on and notes when a task began.

    Args:
        progressed: called as often as the work reports progress.

    Attributes:
        began: when the task of that name began; None: not yet.
    """

    def __init__(
        self, reporter: Reporter, task: str, clock: Clock = time.monotonic, progressed: Callable[[], None] | None = None
    ) -> None:
        self._reporter, self._task, self._clock, self._progressed = reporter, task, clock, progressed
        self.began: float | None = None

    @property
    def stop_requested(self) -> bool:
        return self._reporter.stop_requested

    def tell(self, event: Event) -> None:
        if isinstance(event, WorkBegan):
            self._note(event.task)
        self._heard()
        self._reporter.tell(event)

    def begin(self, task: str, total: float, unit: str) -> None:
        self._note(task)
        self._reporter.begin(task, total, unit)

    def advance(self, done: float, note: str = "") -> None:
        self._heard()
        self._reporter.advance(done, note)

    def say(self, text: str) -> None:
        self._reporter.say(text)

    def _heard(self) -> None:
        if self._progressed is not None:
            self._progressed()

    def _note(self, task: str) -> None:
        if task == self._task and self.began is None:
            self.began = self._clock()
