"""What the inner layers need of the outer ones, as protocols."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from journeyman.engine_identity import EngineIdentity
from journeyman.events import Event
from journeyman.records import EVERY_ROLE, Message, Prediction


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


@dataclass(frozen=True)
class EngineSettings:
    """What a serving engine is started with and asks with.

    Attributes:
        adapters: 'all' or role → file. A role without one, where there is none for all, is answered by the base.
        context: tokens of prompt and answer that it holds for each of the `parallel` requests.
        threads: None: all physical cores.
    """

    base: Path
    adapters: Mapping[str, Path]
    context: int
    threads: int | None
    temperature: float
    parallel: int = 1

    def adapter_of(self, role: str) -> str | None:
        """The name of the adapter that answers for a role."""
        return role if role in self.adapters else EVERY_ROLE if EVERY_ROLE in self.adapters else None

    def lora(self, adapter: str | None) -> list[dict[str, float]]:
        """The scale of each adapter for an answer, as the engine's requests take it."""
        return [{"id": number, "scale": float(name == adapter)} for number, name in enumerate(self.adapters)]


class ServedEngine(Protocol):
    """What the server needs of an engine that runs: where it listens, whether it lives, and how to end it."""

    @property
    def settings(self) -> EngineSettings: ...

    @property
    def engine_identity(self) -> EngineIdentity:
        """Which engine this is, as the running process reports it."""

    @property
    def address(self) -> str:
        """The base URL of its OpenAI-compatible HTTP, without /v1."""

    @property
    def headers(self) -> Mapping[str, str]:
        """What each request must carry."""

    @property
    def alive(self) -> bool:
        """Whether its process runs."""

    def how_it_ended(self) -> str:
        """For a user: exit code or signal, and the last line that it said."""

    def kill(self) -> None:
        """Ends it at once, without waiting; every request that it has at hand fails."""

    def stop(self) -> None:
        """Ends it and waits until it is gone. Calling it again does no harm."""


class ServingEngine(Generator, ServedEngine, Protocol):
    """A running engine with a base and its adapters: what an evaluation asks, and what serving serves."""

    @property
    def load_s(self) -> float:
        """Seconds that loading took."""

    @property
    def warm_up_s(self) -> float:
        """Seconds of the first request after loading."""

    def prompt_ids(self, messages: Sequence[Message], tools: Sequence[dict[str, Any]] = ()) -> list[int]:
        """Token ids of the prompt, through the engine's own template and tokenizer."""

    def next_tokens(self, ids: Sequence[int], count: int) -> dict[int, float]:
        """Log probabilities of the `count` likeliest tokens after `ids`; all adapters act."""


class SilentReporter:
    """A Reporter that shows nothing: for the library and for tests."""

    stop_requested = False

    def tell(self, event: Event) -> None: ...

    def begin(self, task: str, total: float, unit: str) -> None: ...

    def advance(self, done: float, note: str = "") -> None: ...

    def say(self, text: str) -> None: ...
