"""What happens in a run, as typed events, and the dispatcher that passes them to listeners.

Stages report through protocols.Reporter, which `Events` implements. Listeners are plain functions: the terminal
(cli/progress.py), the log file and the heartbeat (supervision/), a page that shows a run. A listener receives every
event in order, in the thread that reported it, so it must be quick. It must handle its own errors (a full disk, a
closed terminal): work does not end because nobody can watch it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from journeyman.reasons.base import Reason


@dataclass(frozen=True)
class StageStarted:
    """A stage starts to work; not sent for a fresh stage."""

    stage: str
    action: Literal["made", "resumed"]


@dataclass(frozen=True)
class StageFinished:
    """A stage is up to date.

    Attributes:
        seconds: how long it worked; 0 if it was fresh.
    """

    stage: str
    action: Literal["fresh", "made", "resumed"]
    seconds: float


@dataclass(frozen=True)
class Expected:
    """How many seconds the next task of this name will take, as the plan predicts."""

    task: str
    seconds: float


@dataclass(frozen=True)
class WorkBegan:
    """A task of `total` units starts within a stage; the previous task is over."""

    task: str
    total: float
    unit: str


@dataclass(frozen=True)
class Advanced:
    """`done` units of the current task are finished, counted from its start, not since the last event."""

    done: float
    note: str = ""


@dataclass(frozen=True)
class Said:
    """A line for the user that remains visible."""

    text: str


@dataclass(frozen=True)
class Warned:
    """Something that the user should know before continuing."""

    reason: Reason


@dataclass(frozen=True)
class RunEnded:
    """The last event.

    Attributes:
        words: why it stopped or failed.
    """

    state: Literal["ended", "stopped", "failed"]
    words: str = ""


Event = StageStarted | StageFinished | Expected | WorkBegan | Advanced | Said | Warned | RunEnded
Listener = Callable[[Event], None]


class Events:
    """A protocols.Reporter that passes events to its listeners, in the order in which they subscribed.

    Attributes:
        stop_requested: set this, from a signal handler or another thread, to make the work save its state and end.
    """

    def __init__(self, *listeners: Listener) -> None:
        self._listeners = list(listeners)
        self.stop_requested = False

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Adds a listener, which receives later events only; returns a function that removes it."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def tell(self, event: Event) -> None:
        for listener in tuple(self._listeners):
            listener(event)

    def begin(self, task: str, total: float, unit: str) -> None:
        self.tell(WorkBegan(task, total, unit))

    def advance(self, done: float, note: str = "") -> None:
        self.tell(Advanced(done, note))

    def say(self, text: str) -> None:
        self.tell(Said(text))
