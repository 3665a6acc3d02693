"""Passes the events of a run to the files that other processes read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from journeyman.errors import Interrupted
from journeyman.events import Events, RunEnded
from journeyman.supervision.heartbeat import Heartbeat
from journeyman.supervision.log import LogFile


class SupervisedEvents(Events):
    """A reporter for run_pipeline that passes events to the heartbeat and the log, then to other subscribers.

    Args:
        folder: the run's folder.
        command: what the user types to resume.
    """

    def __init__(self, folder: Path, command: str) -> None:
        self.heartbeat = Heartbeat(folder, command)
        super().__init__(self.heartbeat, LogFile(folder))

    @contextmanager
    def until_the_end(self) -> Iterator[None]:
        """Reports RunEnded when the block ends, however it ends."""
        try:
            yield
        except (Interrupted, KeyboardInterrupt) as stop:
            self.tell(RunEnded("stopped", str(stop) or "at once"))
            raise
        except BaseException as error:
            self.tell(RunEnded("failed", f"{type(error).__name__}: {error}"))
            raise
        else:
            self.tell(RunEnded("ended"))
