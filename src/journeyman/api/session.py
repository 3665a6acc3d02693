"""Work that a program starts: its events, and Ctrl-C as a request to save the state and end."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from journeyman.events import Events, Listener
from journeyman.supervision.session import SupervisedEvents

_STOP = (signal.SIGINT, signal.SIGTERM)
"""SIGTERM is what `journeyman stop` sends: it ends the work, not the program that does it."""


@contextmanager
def session(folder: Path, command: str, listener: Listener | None) -> Iterator[Events]:
    """A reporter for the pipeline. In the main thread, a first Ctrl-C asks the work to end and a second raises.

    Args:
        command: what a user types to resume.
        listener: hears every event, in the thread that does the work; what it raises ends the work.
    """
    events = SupervisedEvents(folder, command)
    if listener is not None:
        events.subscribe(listener)

    def stop(number: int, frame: FrameType | None) -> None:
        if events.stop_requested:
            raise KeyboardInterrupt
        events.stop_requested = True

    main = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, stop) for number in _STOP} if main else {}
    try:
        with events.until_the_end():
            yield events
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
