"""One live progress line on stderr; plain lines where stderr is no terminal. Ctrl-C asks work to stop."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from types import FrameType

from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from journeyman.cli.heartbeat import Heartbeat
from journeyman.cli.say import progress_console, say_on
from journeyman.errors import Interrupted
from journeyman.foreign import plain


class TerminalReporter:
    """A ports.Reporter that draws with rich, and tells other terminals through `heartbeat`."""

    def __init__(self, heartbeat: Heartbeat) -> None:
        self.heartbeat = heartbeat
        self.console = progress_console()
        self.live = self.console.is_terminal
        self.stop_requested = False
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description:<16}", markup=False),
            BarColumn(bar_width=28),
            TextColumn("{task.completed:,.0f}/{task.total:,.0f} {task.fields[unit]}", markup=False),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=self.console,
            transient=True,
        )
        self._task: TaskID | None = None
        self._name, self._total, self._unit = "", 0.0, ""
        self._last_plain = 0.0
        self._plain_every_s = 60.0 if heartbeat.stderr_is_log else 10.0

    def begin(self, task: str, total: float, unit: str) -> None:
        self._name, self._total, self._unit = task, total, unit
        self._last_plain = time.monotonic()
        self.heartbeat.begin(task, total, unit)
        if self.live:
            if self._task is not None:
                self._progress.remove_task(self._task)
            self._task = self._progress.add_task(plain(task), total=total, unit=plain(unit), note="")

    def advance(self, done: float, note: str = "") -> None:
        self.heartbeat.advance(done, note)
        if self.live and self._task is not None:
            self._progress.update(self._task, completed=done, note=plain(note))
        elif not self.live and time.monotonic() - self._last_plain >= self._plain_every_s:
            self._last_plain = time.monotonic()
            left = self.heartbeat.progress.left_s
            to_go = f", about {timedelta(seconds=round(left))} left" if left else ""
            self.say(f"{self._name}: {done:,.0f}/{self._total:,.0f} {self._unit} {note}{to_go}")

    def say(self, text: str) -> None:
        self.heartbeat.say(text)
        if not self.heartbeat.stderr_is_log:
            say_on(self.console, text)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self.stop_requested:
            raise KeyboardInterrupt
        self.stop_requested = True
        self.say("stopping after the work at hand; press Ctrl-C again to stop at once")


@contextmanager
def terminal_reporter(folder: Path, command: str) -> Iterator[TerminalReporter]:
    """A reporter whose display is up, with SIGINT and SIGTERM turned into a request to stop.

    Args:
        folder: where other terminals look.
        command: what the person types to go on.
    """
    reporter = TerminalReporter(Heartbeat(folder, command))
    before = {number: signal.signal(number, reporter._interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        if reporter.live:
            with reporter._progress:
                yield reporter
        else:
            yield reporter
        reporter.heartbeat.end("ended")
    except (Interrupted, KeyboardInterrupt) as stop:
        reporter.heartbeat.end("stopped", str(stop) or "at once")
        raise
    except BaseException as error:
        reporter.heartbeat.end("failed", f"{type(error).__name__}: {error}")
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        sys.stderr.flush()
