"""The events of one run, heard by the files that other processes read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from journeyman.errors import Interrupted
from journeyman.events import Events, RunEnded
from journeyman.supervision.heartbeat import Heartbeat
from journeyman.supervision.log import LogFile


class SupervisedEvents(Events):
    """A reporter for run_pipeline whose events reach the heartbeat and the log, then whoever subscribes.

    Args:
        folder: the run's.
        command: what the user types to go on.
    """

    def __init__(self, folder: Path, command: str) -> None:
        self.heartbeat = Heartbeat(folder, command)
        super().__init__(self.heartbeat, LogFile(folder))

    @contextmanager
    def until_the_end(self) -> Iterator[None]:
        """Tells RunEnded when the work within ends, however it does."""
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
