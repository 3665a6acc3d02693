"""Training engines of several loops that compute on one frozen base together: the gradients of all in one pass.

Each loop has a thread, an adapter, an optimizer and a schedule of its own, and sees a `TrainingEngine` like any other.
The passes are gathered: a loop that asks for gradients waits until all others of its `Group` ask too, validate or are
gone, and then a pass computes the packs of all of them (training.joint_packs). So what a loop does between two passes
should be short. What one loop gets depends on the others only in the rounding of the frozen products, whose
matrices have more rows; an error of one loop, a stop or a loss that is not a number does not reach the others.

All computing is done by one thread, one task at a time: threads that compute at the same time would compete for the
processor's cores, and each would have its own threads of OpenMP and its own freed memory.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from dataclasses import dataclass, field
from typing import TypeVar

from journeyman.config import TrainConfig
from journeyman.models.decoder import Decoder
from journeyman.training.batches import Pack
from journeyman.training.cpu import CpuEngine
from journeyman.training.engine import Heard, LossSum
from journeyman.training.gradients import AdaptedPack, keep, recompute
from journeyman.training.joint_packs import JointPack, joint

T = TypeVar("T")
_LOOK_EVERY_S = 1.0


class Group:
    """Loops that compute together.

    Args:
        recompute: see CpuEngine.
        most_tokens: that are computed at once; a single pack may have more.
        seats: how many loops are awaited from the beginning. A loop enters with its number when it has an engine, and
            leaves when the engine is closed; it may enter again.
    """

    def __init__(self, decoder: Decoder, *, recompute: bool, most_tokens: int, seats: int) -> None:
        self.decoder, self.recompute = decoder, recompute
        self._most_tokens = most_tokens
        self._taken = set(range(seats))
        self._waiting: dict[int, _Request] = {}
        self._lock = threading.Lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="joint")

    def enter(self, seat: int) -> None:
        with self._lock:
            self._taken.add(seat)

    def leave(self, seat: int) -> None:
        """The others wait for this loop no longer."""
        with self._lock:
            self._taken.discard(seat)
            self._start_if_complete()

    def close(self) -> None:
        self._thread.shutdown()

    def run(self, task: Callable[[], T]) -> T:
        """The result of something that one loop alone computes."""
        return self._thread.submit(task).result()

    def gradients(self, seat: int, parts: Sequence[AdaptedPack], divisor: float, heard: Heard) -> float:
        """Adds the gradients of the packs' loss, divided by `divisor`; returns that loss.

        Raises what `heard` raises, and what the pass raises. The gradients may have changed then.
        """
        request = _Request(parts, divisor, heard)
        with self._lock:
            assert seat in self._taken and seat not in self._waiting
            self._waiting[seat] = request
            self._start_if_complete()
        while True:
            try:
                return request.result.result(_LOOK_EVERY_S)
            except NotYet:
                if request.result.done():  # it was the loop's own error, or the pass ended just now
                    return request.result.result()
            self._listen(seat, request)

    def _listen(self, seat: int, request: _Request) -> None:
        """Lets the loop stop while it waits for the others."""
        if self._waiting.get(seat) is not request:
            return  # the pass itself asks now
        try:
            request.heard(0.0)
        except BaseException:
            with self._lock:
                if self._waiting.get(seat) is request:
                    del self._waiting[seat]
                    raise

    def _start_if_complete(self) -> None:
        """Starts a pass if all loops that are here wait for one; called with the lock."""
        if self._waiting and self._waiting.keys() >= self._taken:
            requests = [self._waiting[seat] for seat in sorted(self._waiting)]
            self._waiting = {}
            self._thread.submit(self._pass, requests)

    def _pass(self, requests: Sequence[_Request]) -> None:
        try:
            losses = self._losses(requests)
        except BaseException as error:
            for request in requests:
                request.result.set_exception(request.error or error)
            return
        for request, loss in zip(requests, losses, strict=True):
            if request.error is not None:
                request.result.set_exception(request.error)
            else:
                request.result.set_result(loss)

    def _losses(self, requests: Sequence[_Request]) -> list[float]:
        rounds = _rounds([request.parts for request in requests], self._most_tokens)
        packs = [joint([part for _, part in one], [requests[of].divisor for of, _ in one]) for one in rounds]
        total = sum(one.pack.row_tokens for one in packs)

        def heard(tokens: float) -> None:
            for request in requests:
                request.hear(tokens / total)
            if all(request.error is not None for request in requests):
                raise _NobodyLeft

        (recompute if self.recompute else keep)(self.decoder, packs, 1.0, heard)
        return _by_owner(packs, rounds, len(requests))


class _NobodyLeft(Exception):
    """All loops of a pass were stopped."""


@dataclass
class _Request:
    """The packs for which a loop wants gradients.

    Attributes:
        error: raised by `heard`. The pass goes on for the others, and the loop gets it at the end.
    """

    parts: Sequence[AdaptedPack]
    divisor: float
    heard: Heard
    error: BaseException | None = None
    result: Future[float] = field(default_factory=Future)

    def hear(self, share: float) -> None:
        if self.error is None:
            try:
                self.heard(share * sum(part.pack.row_tokens for part in self.parts))
            except BaseException as error:
                self.error = error


_Round = list[tuple[int, AdaptedPack]]
"""Packs that are computed at once, each with the number of its owner."""


def _rounds(parts: Sequence[Sequence[AdaptedPack]], most_tokens: int) -> list[_Round]:
    """The packs of all owners: in each round the next one of every owner, as far as they fit."""
    left = [list(of_one) for of_one in parts]
    made: list[_Round] = []
    while any(left):
        one: _Round = []
        room = most_tokens
        for owner, queue in enumerate(left):
            if queue and (not one or len(queue[0].pack.ids_T) <= room):
                room -= len(queue[0].pack.ids_T)
                one.append((owner, queue.pop(0)))
        made.append(one)
    return made


def _by_owner(packs: Iterable[JointPack], rounds: Iterable[_Round], owners: int) -> list[float]:
    """The loss of each owner, summed in double precision."""
    losses = [0.0] * owners
    for pack, one in zip(packs, rounds, strict=True):
        for (owner, _), loss in zip(one, pack.losses, strict=True):
            losses[owner] += loss.item()
    return losses


class JointEngine(CpuEngine):
    """The engine of one loop of a group: its gradients are computed together with those of the others.

    Args:
        seat: the loop's number in the group.
    """

    def __init__(self, group: Group, seat: int, config: TrainConfig) -> None:
        super().__init__(group.decoder, config, recompute=group.recompute)
        self._group, self._seat = group, seat
        group.enter(seat)

    def gradients(self, parts: Sequence[AdaptedPack], divisor: float, heard: Heard) -> float:
        return self._group.gradients(self._seat, parts, divisor, heard)

    def clip(self, most: float) -> float:
        return self._group.run(lambda: super(JointEngine, self).clip(most))

    def step(self, learning_rate: float) -> None:
        self._group.run(lambda: super(JointEngine, self).step(learning_rate))

    def evaluate(self, packs: Sequence[Pack], heard: Heard) -> LossSum:
        return self._group.run(lambda: super(JointEngine, self).evaluate(packs, heard))

    def close(self) -> None:
        self._group.leave(self._seat)
