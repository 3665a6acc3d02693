"""What the inner layers need of the outer ones, as protocols."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from journeyman.records import Message, Prediction


class Reporter(Protocol):
    """Shows progress to a person. Every method may be called often."""

    def begin(self, task: str, total: float, unit: str) -> None:
        """A new piece of work of `total` units starts."""

    def advance(self, done: float, note: str = "") -> None:
        """`done` units (of the total, not since the last call) are finished."""

    def say(self, text: str) -> None:
        """One line that stays."""

    @property
    def stop_requested(self) -> bool:
        """True once the person asked to stop; long work then saves its state and raises Interrupted."""


class Generator(Protocol):
    """Answers prompts: an inference engine with a base model and an adapter."""

    def prompt_ids(self, messages: Sequence[Message], tools: Sequence[dict[str, Any]] = ()) -> list[int]:
        """The token ids that the engine makes of a conversation."""

    def generate(
        self,
        row_id: str,
        role: str,
        messages: Sequence[Message],
        arm: str,
        on_token: Callable[[int], None] | None = None,
        tools: Sequence[dict[str, Any]] = (),
    ) -> Prediction:
        """One answer of one arm ("base" or "tuned"); `on_token` hears how many tokens there are so far."""

    def peak_memory_bytes(self) -> int | None:
        """The engine process's highest resident memory so far; None where the system does not tell."""


class SilentReporter:
    """A Reporter that shows nothing: for the library and for tests."""

    stop_requested = False

    def begin(self, task: str, total: float, unit: str) -> None: ...

    def advance(self, done: float, note: str = "") -> None: ...

    def say(self, text: str) -> None: ...
