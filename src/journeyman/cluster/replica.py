"""One replica of the serving engine: an actor on a node, whose child process is the engine.

The engine ends with its actor, because it exits when its input closes (see inference.engine).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from journeyman.cluster.nodes import Software, refuse_other_software, software_here
from journeyman.cluster.shipping import Shipment
from journeyman.engine_identity import EngineIdentity
from journeyman.errors import EngineError, Interrupted
from journeyman.inference.llama import LlamaEngine
from journeyman.protocols import EngineSettings, Question
from journeyman.records import Message, Prediction

_ENDS_S = 2.0


@dataclass(frozen=True)
class Shipped:
    """An engine's settings, with its files on their way to the nodes, and the software of the driver."""

    settings: EngineSettings
    base: Shipment
    adapters: Mapping[str, Shipment]
    software: Software

    def here(self) -> EngineSettings:
        """The settings on a node that the files have reached."""
        adapters = {name: one.path() for name, one in self.adapters.items()}
        return replace(self.settings, base=self.base.path(), adapters=adapters)


class EngineDied(EngineError):
    """The engine's process ended while it was asked; its replica is of no use any more."""


@dataclass(frozen=True)
class Started:
    """What a replica says about its engine once that is loaded.

    Attributes:
        files: SHA-256 of each file that it has loaded, in the order of the settings.
        load_s, warm_up_s: see EvaluatedEngine.
    """

    identity: EngineIdentity
    files: tuple[str, ...]
    load_s: float
    warm_up_s: float


class Replica:
    """In the cluster. Its methods are called from several threads at once."""

    def __init__(self) -> None:
        self._engine: LlamaEngine | None = None
        self._heard: dict[int, int] = {}
        self._cancelled: set[int] = set()

    def hello(self) -> None:
        """Answers once the process has started."""

    def start(self, shipped: Shipped, name: str) -> Started:
        """Loads the engine.

        Args:
            name: of this node.

        Raises:
            UsageError: this node joined after the others were checked, and has other software.
            InputError: a file has not been sent to this node.
            EngineError: it does not start.
        """
        refuse_other_software(name, software_here(), shipped.software)
        engine = self._engine = LlamaEngine(shipped.here())
        return Started(engine.engine_identity, tuple(engine.files.values()), engine.load_s, engine.warm_up_s)

    def answer(self, number: int, question: Question) -> tuple[Prediction, int | None]:
        """An answer, and the engine's peak memory in bytes. `number` names the question in the other methods.

        Raises:
            EngineDied: the engine's process ended.
            EngineError: the engine refused the question.
            Interrupted: it was canceled.
        """

        def heard(tokens: int) -> None:
            self._heard[number] = tokens
            if number in self._cancelled:
                raise Interrupted("stopped during an answer")

        try:
            with self._asked() as engine:
                return engine.generate(question, heard), engine.peak_memory_bytes()
        finally:
            self._heard.pop(number, None)
            self._cancelled.discard(number)

    def progress(self) -> dict[int, int]:
        """Number of a question that is being answered → pieces of its answer so far."""
        return self._heard.copy()

    def cancel(self, number: int) -> None:
        """Ends an answer at its next piece."""
        self._cancelled.add(number)

    def prompt_ids(self, messages: Sequence[Message], tools: Sequence[dict[str, Any]]) -> list[int]:
        """See EvaluatedEngine.prompt_ids; raises as `answer` does."""
        with self._asked() as engine:
            return engine.prompt_ids(messages, tools)

    @contextmanager
    def _asked(self) -> Iterator[LlamaEngine]:
        """The engine, for a call whose errors say whether it has died."""
        assert self._engine is not None
        try:
            yield self._engine
        except EngineError as error:
            deadline = time.monotonic() + _ENDS_S
            while self._engine.alive and time.monotonic() < deadline:
                time.sleep(0.05)  # its connections close before its process has ended
            if self._engine.alive:
                raise
            raise EngineDied(error.what, error.remedy) from error
