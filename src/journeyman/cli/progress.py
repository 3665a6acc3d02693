"""A live progress line on stderr, or plain lines if stderr is not a terminal. Ctrl-C requests a stop."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from types import FrameType

from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from journeyman.cli.say import progress_console, say_on
from journeyman.events import Advanced, Event, Events, Said, Warned, WorkBegan
from journeyman.foreign import plain
from journeyman.supervision.log import LOG
from journeyman.supervision.session import SupervisedEvents

_STOP = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Display:
    """A listener that draws the progress with rich.

    Args:
        silent: print no messages, because stderr is the log, to which another listener writes them.
        left_s: seconds until the task is done; None: not known.
    """

    def __init__(self, *, silent: bool = False, left_s: Callable[[], float | None] = lambda: None) -> None:
        self.console = progress_console()
        self.live = self.console.is_terminal
        self._silent, self._left_s = silent, left_s
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description:<16}", markup=False),
            BarColumn(bar_width=28),
            TextColumn("{task.completed:,.0f}/{task.total:,.0f} {task.fields[unit]}", markup=False),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}", markup=False),
            TextColumn("{task.fields[note]}", markup=False),
            console=self.console,
            transient=True,
        )
        self._task: TaskID | None = None

    def __call__(self, event: Event) -> None:
        match event:
            case WorkBegan(task, total, unit) if self.live:
                if self._task is not None:
                    self._progress.remove_task(self._task)
                self._task = self._progress.add_task(plain(task), total=total, unit=plain(unit), note="", left="")
            case Advanced(done, note) if self._task is not None:
                self._progress.update(self._task, completed=done, note=plain(note), left=_left(self._left_s()))
            case Said(text):
                self._say(text)
            case Warned(reason):
                self._say(f"   warning: {reason.sentence()}")
            case _:
                pass

    def _say(self, text: str) -> None:
        if not self._silent:
            with suppress(OSError):  # a closed terminal
                say_on(self.console, text)

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Shows the progress line while the block runs."""
        if not self.live:
            yield
            return
        self._progress.start()
        try:
            yield
        finally:
            with suppress(OSError):  # a closed terminal must not hide how the work ended
                self._progress.stop()


class PlainProgress:
    """A listener that reports progress at intervals, for logs and for output that is not a terminal.

    Args:
        events: receives the lines; its heartbeat has seen each event before this listener does.
        every_s: the least number of seconds between two lines.
    """

    def __init__(self, events: SupervisedEvents, every_s: float) -> None:
        self._events, self._every_s = events, every_s
        self._last = 0.0

    def __call__(self, event: Event) -> None:
        match event:
            case WorkBegan():
                self._last = time.monotonic()
            case Advanced(done, note) if time.monotonic() - self._last >= self._every_s:
                self._last = time.monotonic()
                now = self._events.heartbeat.progress
                said = " ".join(part for part in (f"{done:,.0f}/{now.total:,.0f}", now.unit, note) if part)
                self._events.say(", ".join(part for part in (f"{now.task}: {said}", _left(now.left_s)) if part))
            case _:
                pass


@contextmanager
def terminal_reporter(folder: Path, command: str) -> Iterator[Events]:
    """A reporter that shows progress and turns SIGINT, SIGTERM and SIGHUP into a request to stop.

    Under nohup, which ignores SIGHUP, closing the terminal does not stop the work.

    Args:
        folder: the run folder, in which other terminals find the progress.
        command: what the user types to resume.
    """
    in_log = _stderr_is(folder / LOG)
    asked = [one for one in _STOP if one != signal.SIGHUP or signal.getsignal(one) is not signal.SIG_IGN]
    events = SupervisedEvents(folder, command)
    display = Display(silent=in_log, left_s=lambda: events.heartbeat.progress.left_s)
    before = {number: signal.signal(number, _stopper(events)) for number in asked}
    events.subscribe(display)
    if not display.live:
        events.subscribe(PlainProgress(events, 60.0 if in_log else 10.0))
    try:
        with events.until_the_end(), display.shown():
            yield events
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        with suppress(OSError):
            if sys.stderr is not None:
                sys.stderr.flush()


def _left(seconds: float | None) -> str:
    return f"about {timedelta(seconds=round(seconds))} left" if seconds else ""


def _stopper(events: Events) -> Callable[[int, FrameType | None], None]:
    def stop(number: int, frame: FrameType | None) -> None:
        if events.stop_requested:
            raise KeyboardInterrupt
        events.stop_requested = True
        events.say("stopping after the current step; press Ctrl-C again to stop at once")

    return stop


def _stderr_is(path: Path) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(sys.stderr.fileno()))
    except (OSError, ValueError, AttributeError):  # closed, or none
        return False
