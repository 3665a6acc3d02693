"""An engine with a replica on each node of a Ray cluster. Each question is leased to the replica with the fewest.

Questions and answers travel in calls. A replica that is lost costs the answers that it was writing: their questions go
to another one, and a new replica starts on each node that has none.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from journeyman.cluster.launching import RunningReplica
from journeyman.cluster.nodes import first_line
from journeyman.cluster.replica import EngineDied
from journeyman.cluster.replicas import Replicas
from journeyman.engine_identity import EngineIdentity
from journeyman.errors import EngineError
from journeyman.foreign import plain
from journeyman.inference.llama import identity_of_answer
from journeyman.protocols import EngineSettings, Question, Reporter
from journeyman.records import Message, Prediction

_LOOK_EVERY_S = 0.5
_TRIES = 3
"""A question whose replica is lost is asked again; if that happens this often, the question is the reason."""
_NO_LIMIT = 1 << 30


class RayEngine:
    """An EvaluatedEngine. Use `running_on_ray`, which stops it.

    Attributes:
        replicas: how many nodes can have one now.
    """

    def __init__(self, settings: EngineSettings, replicas: Replicas) -> None:
        self.settings = settings
        self._pool = replicas
        first = replicas.first()
        self.engine_identity: EngineIdentity = first.identity
        self.load_s, self.warm_up_s = first.load_s, first.warm_up_s
        self._numbers = itertools.count()
        self._peak: int | None = None
        self._lock = threading.Lock()

    @property
    def replicas(self) -> int:
        return self._pool.size

    def generate(self, question: Question, on_token: Callable[[int], None] | None = None) -> Prediction:
        """One answer; `on_token` is called every half second.

        Raises:
            EngineError: the engine refused the question, its replicas died again and again, or there is none.
            WorkerDied: the head of the cluster is lost.
        """
        number = next(self._numbers)

        def look(replica: RunningReplica | None) -> None:
            if on_token is None:
                return
            try:
                on_token(replica.heard.get(number, 0) if replica else 0)
            except BaseException:
                if replica:
                    replica.actor.cancel.remote(number)
                raise

        row = f"row {plain(question.row_id, 80)}, arm {plain(question.arm, 80)}"
        answer, peak = self._asked(row, question.load, look, lambda one: one.answer.remote(number, question))
        with self._lock:
            self._peak = max((value for value in (self._peak, peak) if value is not None), default=None)
        return answer  # type: ignore[no-any-return]

    def identity(self, question: Question) -> dict[str, Any]:
        """As that of the engine on one machine, so that answers are kept for both."""
        return identity_of_answer(self.settings, self.engine_identity, question.adapter)

    def peak_memory_bytes(self) -> int | None:
        """The largest of all replicas."""
        return self._peak

    def prompt_ids(self, messages: Sequence[Message], tools: Sequence[dict[str, Any]] = ()) -> list[int]:
        """Token ids of the prompt, from any replica."""
        self._pool.tell()
        made = self._asked("a prompt", _NO_LIMIT, lambda _: None, lambda one: one.prompt_ids.remote(messages, tools))
        return list(made)

    def _asked(
        self, name: str, load: int, look: Callable[[RunningReplica | None], None], call: Callable[[Any], Any]
    ) -> Any:
        """The result of a call to a replica that has fewer than `load`; `look` is called while it is awaited."""
        why = ""
        for _ in range(_TRIES):
            with self._pool.leased(load, lambda: look(None)) as replica:
                reference = call(replica.actor)
                while not ray.wait([reference], timeout=_LOOK_EVERY_S)[0]:
                    self._pool.refuse()
                    look(replica)
                try:
                    return ray.get(reference)
                except RayTaskError as error:
                    if not isinstance(error.cause, EngineDied):
                        raise error.cause from None
                    why = error.cause.what
                except RayError as error:
                    why = first_line(error)
                self._pool.lost(replica)
        raise EngineError(
            f"{name}: {_TRIES} replicas of the engine died while they answered it; the last one: {why}",
            "Give the nodes more memory, or lower evaluate.parallel; then run the same command again: it resumes",
        )


@contextmanager
def running_on_ray(settings: EngineSettings, reporter: Reporter) -> Iterator[RayEngine]:
    """An engine on the cluster that this process is connected to; all replicas end with the context.

    Args:
        reporter: hears what the user should know about nodes, and whether to stop before there is a replica.

    Raises:
        EngineError: no replica starts, or one is another engine than this machine's.
        WorkerDied: the head of the cluster is lost.
        Interrupted: the user asked to stop.
    """
    replicas = Replicas(settings, reporter)
    try:
        yield RayEngine(settings, replicas)
    finally:
        replicas.close()
