"""What the inner layers need of the outer ones, as protocols."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from journeyman.events import Event
from journeyman.records import Message, Prediction


class Reporter(Protocol):
    """Hears of work and its progress; see events.Events. Every method may be called often.

    `begin`, `advance` and `say` are short forms of `tell`.
    """

    def tell(self, event: Event) -> None:
        """Something happened."""

    def begin(self, task: str, total: float, unit: str) -> None:
        """A new piece of work of `total` units starts."""

    def advance(self, done: float, note: str = "") -> None:
        """`done` units (of the total, not since the last call) are finished."""

    def say(self, text: str) -> None:
        """One line that stays."""

    @property
    def stop_requested(self) -> bool:
        """True once the person asked to stop; long work then saves its state and raises Interrupted."""


@dataclass(frozen=True)
class Question:
    """A row put to an arm.

    Attributes:
        adapter: which of the generator's adapters answers, 'all' or a role; None: the base alone.
        max_tokens: the answer's limit.
        load: how many requests are answered at a time while this one is.
    """

    row_id: str
    role: str
    arm: str
    messages: Sequence[Message]
    max_tokens: int
    tools: Sequence[dict[str, Any]] = ()
    adapter: str | None = None
    load: int = 1


class Generator(Protocol):
    """Answers questions: an engine with a base model and adapters, or an endpoint elsewhere."""

    def generate(self, question: Question, on_token: Callable[[int], None] | None = None) -> Prediction:
        """One answer; `on_token` hears how many pieces there are so far, and may raise to give it up."""

    def identity(self, question: Question) -> dict[str, Any]:
        """What the answer depends on beside the question: files by their hash, the engine and its settings."""

    def peak_memory_bytes(self) -> int | None:
        """The serving process's highest resident memory so far; None where that cannot be known."""


class SilentReporter:
    """A Reporter that shows nothing: for the library and for tests."""

    stop_requested = False

    def tell(self, event: Event) -> None: ...

    def begin(self, task: str, total: float, unit: str) -> None: ...

    def advance(self, done: float, note: str = "") -> None: ...

    def say(self, text: str) -> None: ...
