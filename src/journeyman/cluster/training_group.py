"""The workers that train together, as the driver sees them: every call goes to all, and a loss is noticed at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from journeyman.cluster.head import Head
from journeyman.cluster.training_worker import Made, Stopped
from journeyman.training.calls import Call
from journeyman.training.data_parallel import OtherStopped
from journeyman.training.engine import Heard, WorkersLost
from journeyman.training.ranks import CHECKPOINT_KEPT, LostContact

_LOOK_EVERY_S = 1.0
_INLINE = 100_000
"""Bytes of a call from which on it goes through the object store, which takes longer."""
_SETTLE_S = 45.0
"""After an error on one worker: how long to wait for the others, or until Ray knows which one is gone."""


@dataclass(frozen=True)
class Worker:
    """An actor of training_worker.TrainingWorker.

    Attributes:
        node: the name of its node.
    """

    actor: Any
    node: str


class Group:
    """Some workers; the number of each is its rank.

    Args:
        say: hears what they want to tell the user.

    Attributes:
        memory: the bytes in use on rank 0 after the last call.

    Raises (from all methods but `close`):
        WorkersLost: one ended, or does not answer to the others. None of them is usable any more.
        WorkerDied: the head of the cluster is lost.
    """

    def __init__(self, workers: Sequence[Worker], head: Head, say: Callable[[str], None]) -> None:
        self.workers, self._head, self._say = list(workers), head, say
        self.memory = 0
        self._calls = 0
        self._closed = False

    @property
    def is_closed(self) -> bool:
        return self._closed

    def connect(self, check: Callable[[], None]) -> None:
        """Lets the workers find each other and load the base.

        Args:
            check: called every second; it may raise to stop.
        """
        count = len(self.workers)
        ((address, port),) = self._answers([self.workers[0].actor.open_store.remote(count)], check)
        self.all("join", check, each=lambda rank: (address, port, rank, count))

    def all(
        self,
        method: str,
        check: Callable[[], None] = lambda: None,
        each: Callable[[int], tuple[Any, ...]] = lambda _: (),
    ) -> list[Any]:
        """What a method returns on each worker.

        Args:
            each: a rank → its arguments.
        """
        asked = [getattr(one.actor, method).remote(*each(rank)) for rank, one in enumerate(self.workers)]
        return self._answers(asked, check)

    def call(self, call: Call, heard: Heard | None = None) -> Any:
        """Makes a call on all workers; returns what it returned on rank 0, of which tensors are safetensors.

        Args:
            heard: see engine.TrainingEngine; called about every second. What it raises is raised here once all workers
                have stopped. If they have finished by then, the call counts.
        """
        self._calls += 1
        number, encoded = self._calls, call.encoded()
        blob = ray.put(encoded) if len(encoded) > _INLINE else encoded
        listening = _Listening(self.workers[0].actor, number, heard)
        try:
            made = self.all("call", listening, each=lambda _: (number, blob))[0]
        except (Stopped, OtherStopped):
            assert listening.raised is not None
            raise listening.raised from None
        assert isinstance(made, Made)
        self.memory = made.memory
        for line in made.notes:
            self._say(line)
        return made.result

    def close(self) -> None:
        """Ends the workers, whatever they are doing; may be called more than once."""
        self._closed = True
        for one in self.workers:
            ray.kill(one.actor)

    def _answers(self, asked: Sequence[Any], check: Callable[[], None]) -> list[Any]:
        answers, errors = {}, {}
        waiting, failed_at = list(asked), None
        while waiting:
            arrived, waiting = ray.wait(waiting, num_returns=len(waiting), timeout=_LOOK_EVERY_S)
            for reference in arrived:
                try:
                    answers[reference] = ray.get(reference)
                except RayTaskError as error:
                    errors[reference] = error.cause
                    failed_at = failed_at or time.monotonic()
                except RayError as error:
                    raise self._lost([asked.index(reference)]) from error
            check()
            self._head.check()
            if failed_at is not None and time.monotonic() - failed_at > _SETTLE_S:
                break
        if errors:
            cause = min(errors.values(), key=_is_effect)
            if not isinstance(cause, LostContact):
                raise cause
            raise self._lost([asked.index(one) for one in waiting], cause) from cause
        return [answers[reference] for reference in asked]

    def _lost(self, ranks: Sequence[int], cause: Exception | None = None) -> WorkersLost:
        self.close()
        if not ranks:
            return WorkersLost(f"the nodes do not reach each other ({cause})", CHECKPOINT_KEPT)
        nodes = ", ".join(dict.fromkeys(self.workers[rank].node for rank in ranks))
        return WorkersLost(f"the training worker on node {nodes} was lost", CHECKPOINT_KEPT)


def _is_effect(error: Exception) -> int:
    """How surely an error of one rank comes from another."""
    return 2 if isinstance(error, (Stopped, OtherStopped)) else int(isinstance(error, LostContact))


class _Listening:
    """Reports the progress of a call, and stops it if that raises.

    Attributes:
        raised: by `heard`.
    """

    def __init__(self, first: Any, number: int, heard: Heard | None) -> None:
        self._first, self._number, self._heard = first, number, heard
        self._asked: Any = None
        self._from = time.monotonic() + _LOOK_EVERY_S
        self.raised: BaseException | None = None

    def __call__(self) -> None:
        """Called often; asks for nothing in a short call, which that would make longer."""
        if self._heard is None or self.raised is not None or time.monotonic() < self._from:
            return
        if self._asked is None:
            self._asked = self._first.tokens_done.remote()
        if not ray.wait([self._asked], timeout=0)[0]:
            return
        try:
            tokens = ray.get(self._asked)
        except RayError:  # the answer to the call itself says why
            return
        self._asked = None
        try:
            self._heard(tokens)
        except BaseException as error:
            self.raised = error
            self._first.stop.remote(self._number)
