"""Protocols: what the inner layers need from the outer ones."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from journeyman.engine_identity import EngineIdentity
from journeyman.events import Event
from journeyman.records import EVERY_ROLE, Message, Prediction


class Reporter(Protocol):
    """Receives work and its progress; see events.Events. Every method may be called often.

    `begin`, `advance` and `say` are shorthand for `tell`.
    """

    def tell(self, event: Event) -> None:
        """Reports an event."""

    def begin(self, task: str, total: float, unit: str) -> None:
        """Starts a new task of `total` units."""

    def advance(self, done: float, note: str = "") -> None:
        """Reports that `done` units are finished, in total and not since the last call."""

    def say(self, text: str) -> None:
        """Shows a permanent line."""

    @property
    def stop_requested(self) -> bool:
        """True once the user has asked to stop; long-running work then saves its state and raises Interrupted."""


@dataclass(frozen=True)
class Question:
    """A row as a question for an arm.

    Attributes:
        adapter: the generator's adapter that answers, 'all' or a role; None: the base alone.
        max_tokens: limit of the answer's length.
        load: number of requests that are answered concurrently.
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
    """Answers questions: an engine with a base model and adapters, or a remote endpoint.

    Attributes:
        replicas: how many machines answer, each as many questions at a time as `Question.load` says.
    """

    @property
    def replicas(self) -> int: ...

    def generate(self, question: Question, on_token: Callable[[int], None] | None = None) -> Prediction:
        """One answer; `on_token` is called with the number of pieces so far, and may raise to cancel."""

    def identity(self, question: Question) -> dict[str, Any]:
        """Everything else that the answer depends on: files by their hashes, the engine and its settings."""

    def peak_memory_bytes(self) -> int | None:
        """The serving process's highest resident memory so far; None if it cannot be known."""


def adapter_of(role: str, adapters: Collection[str]) -> str | None:
    """The name of the adapter that answers for a role: its own, or the one that all roles share; None: the base."""
    return role if role in adapters else EVERY_ROLE if EVERY_ROLE in adapters else None


@dataclass(frozen=True)
class EngineSettings:
    """The settings with which a serving engine is started and used.

    Attributes:
        adapters: 'all' or role → file. A role without an adapter is answered by the base, if there is none for 'all'.
        context: tokens of prompt and answer for each of the `parallel` requests.
        threads: None: all physical cores.
        chat_template: in Jinja; None: the base's own.
        template_variables: the values of the template's variables, which are the same for every request.
        llama_server: the user's own llama-server, which is started; None: the engine in the wheel.
    """

    base: Path
    adapters: Mapping[str, Path]
    context: int
    threads: int | None
    temperature: float
    parallel: int = 1
    chat_template: str | None = None
    template_variables: Mapping[str, Any] = field(default_factory=dict)
    llama_server: Path | None = None

    def adapter_of(self, role: str) -> str | None:
        """The name of the adapter that answers for a role; None: the base."""
        return adapter_of(role, self.adapters)

    def lora(self, adapter: str | None) -> list[dict[str, float]]:
        """The scale of each adapter for an answer, in the form of the engine's requests."""
        return [{"id": number, "scale": float(name == adapter)} for number, name in enumerate(self.adapters)]


@dataclass(frozen=True)
class Pulse:
    """What an engine is doing.

    Attributes:
        requests: that it has; None: it did not answer the question.
        steps: a number that changes with every step of its computation; None likewise.
        cpu_s: processor time that it has used.
    """

    requests: int | None
    steps: int | None
    cpu_s: float


class EvaluatedEngine(Generator, Protocol):
    """A running engine with a base and its adapters as an evaluation uses it: one process, or replicas on a cluster."""

    @property
    def settings(self) -> EngineSettings: ...

    @property
    def engine_identity(self) -> EngineIdentity:
        """The engine's identity, as reported by the running process."""

    @property
    def load_s(self) -> float:
        """Loading time in seconds."""

    @property
    def warm_up_s(self) -> float:
        """Duration of the first request after loading, in seconds."""

    def prompt_ids(self, messages: Sequence[Message], tools: Sequence[dict[str, Any]] = ()) -> list[int]:
        """Token ids of the prompt, through the engine's own template and tokenizer."""


class ServedEngine(Protocol):
    """A running engine as the server uses it: its address, whether it is alive, and how to end it."""

    @property
    def settings(self) -> EngineSettings: ...

    @property
    def engine_identity(self) -> EngineIdentity:
        """The engine's identity, as reported by the running process."""

    @property
    def address(self) -> str:
        """The base URL of its OpenAI-compatible API, without /v1."""

    @property
    def headers(self) -> Mapping[str, str]:
        """Headers that every request needs."""

    @property
    def files(self) -> Mapping[Path, str]:
        """The files that it has loaded → SHA-256; none if it runs elsewhere."""

    def pulse(self) -> Pulse | None:
        """What it is doing, asked within seconds, from any thread; None if that cannot be known."""

    def selection(self, role: str) -> dict[str, Any]:
        """The fields of a request that choose what answers for a role: its adapter, or the base."""

    @property
    def alive(self) -> bool:
        """Whether it is running."""

    def how_it_ended(self) -> str:
        """For the user: exit code or signal, and the last line of its output."""

    def kill(self) -> None:
        """Kills it without waiting; its current requests fail."""

    def stop(self) -> None:
        """Ends it and waits until it has exited. May be called more than once."""


class ServingEngine(EvaluatedEngine, ServedEngine, Protocol):
    """A running engine with a base and its adapters, for evaluation and for serving."""

    def prompt_text(self, messages: Sequence[Mapping[str, Any]]) -> str:
        """The text that its chat template makes of a conversation."""

    def greedy(self, ids: Sequence[int], count: int, *, adapted: bool = True) -> list[int]:
        """Up to `count` tokens after `ids`, each the likeliest one, with all adapters active, or with none."""

    def next_tokens(self, ids: Sequence[int], count: int, *, adapted: bool = True) -> dict[int, float]:
        """Log probabilities of the `count` likeliest tokens after `ids`, with all adapters active, or with none.

        Empty if the likeliest is a part of a character, which llama.cpp does not send.
        """


class SilentReporter:
    """A Reporter that shows nothing, for use as a library and for tests."""

    stop_requested = False

    def tell(self, event: Event) -> None: ...

    def begin(self, task: str, total: float, unit: str) -> None: ...

    def advance(self, done: float, note: str = "") -> None: ...

    def say(self, text: str) -> None: ...
