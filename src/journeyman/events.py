"""What happens in a run, as typed events, and the one place that hands them to whoever listens.

Stages tell of their work through ports.Reporter, of which `Events` is the real one. Listeners are plain functions: the
terminal (cli/progress.py), the log file and the heartbeat (supervision/), a page that shows a run. A listener hears
every event in the order in which it was told, in the thread that told it, so it must be quick; what it cannot do (a
full disk, a closed terminal) it keeps to itself, for work does not end because nobody can watch it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from journeyman.reasons.base import Reason


@dataclass(frozen=True)
class StageStarted:
    """A stage is about to work; a stage that is fresh already never starts."""

    stage: str
    action: Literal["made", "resumed"]


@dataclass(frozen=True)
class StageFinished:
    """A stage is up to date.

    Attributes:
        seconds: of work now; 0 where it was fresh.
    """

    stage: str
    action: Literal["fresh", "made", "resumed"]
    seconds: float


@dataclass(frozen=True)
class WorkBegan:
    """A piece of work of `total` units starts, within a stage; the one before is over."""

    task: str
    total: float
    unit: str


@dataclass(frozen=True)
class Advanced:
    """`done` units of the work at hand are finished: of its total, not since the last event."""

    done: float
    note: str = ""


@dataclass(frozen=True)
class Said:
    """One line for the user that stays."""

    text: str


@dataclass(frozen=True)
class Warned:
    """Something that the user should know before going on."""

    reason: Reason


@dataclass(frozen=True)
class RunEnded:
    """The last event.

    Attributes:
        words: why, where it stopped or failed.
    """

    state: Literal["ended", "stopped", "failed"]
    words: str = ""


Event = StageStarted | StageFinished | WorkBegan | Advanced | Said | Warned | RunEnded
Listener = Callable[[Event], None]


class Events:
    """A ports.Reporter that hands what it is told to its listeners, in the order in which they subscribed.

    Attributes:
        stop_requested: set it, from a signal handler or another thread, to ask the work to save its state and end.
    """

    def __init__(self, *listeners: Listener) -> None:
        self._listeners = list(listeners)
        self.stop_requested = False

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Returns what ends the subscription. What was told before is not told again."""
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
