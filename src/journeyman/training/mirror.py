"""Lets all ranks make the calls that the training loop makes on rank 0.

Rank 0 sends each call before it makes it itself; the others `follow`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NoReturn, Protocol

import torch
from torch import Tensor

from journeyman.errors import WorkerDied
from journeyman.models.sizes import Sizes
from journeyman.training.batches import Pack
from journeyman.training.calls import Call
from journeyman.training.data_parallel import DataParallelEngine, OtherStopped
from journeyman.training.engine import Heard, KeyedPack, LossSum, TrainingEngine
from journeyman.training.ranks import CHECKPOINT_KEPT, LostContact, Ranks

MakeEngine = Callable[[], DataParallelEngine]


class Watch(Protocol):
    """Knows whether the other ranks are alive."""

    def check(self) -> None:
        """Raises WorkerDied if a rank has ended."""

    def lost(self, error: Exception) -> NoReturn:
        """Raises WorkerDied after contact was lost, with the reason if it can be found."""

    def stop(self, *, wait: bool) -> None:
        """Ends the other ranks, if this process started them, and the connection to them.

        Args:
            wait: let them end by themselves; they were told to.
        """


class Leader:
    """Rank 0: makes engines that all ranks compute for.

    Args:
        make: makes this rank's engine, untrained; the others are given the same to `follow`.
        watch: finds out why another rank does not answer.
    """

    def __init__(self, ranks: Ranks, make: MakeEngine, watch: Watch) -> None:
        self._ranks, self._make, self._watch = ranks, make, watch
        self._closed, self._apart = False, False

    def engine(self) -> TrainingEngine:
        """A new engine; the one before is no longer usable.

        Raises (also from all its methods):
            WorkerDied: another rank ended, or does not answer.
        """
        with self.together(Call("engine")):
            return _LeadingEngine(self, self._make())

    def close(self) -> None:
        """Ends the other ranks; may be called more than once."""
        if self._closed:
            return
        self._closed = True
        try:
            self._ranks.send_end()
        except LostContact:
            pass
        self._watch.stop(wait=not self._apart)

    @contextmanager
    def together(self, call: Call, *, agreed: Callable[[], bool] = lambda: False) -> Iterator[None]:
        """Sends a call to the other ranks; the block makes it on this one.

        Args:
            agreed: whether, after an error in the block, the ranks are ready for another call.
        """
        if self._apart:
            raise WorkerDied("the training processes cannot go on after an error of rank 0", CHECKPOINT_KEPT)
        try:
            self._ranks.send(call.encoded())
            yield
        except (LostContact, OtherStopped) as error:
            self._apart = True
            self._watch.lost(error)
        except BaseException:
            self._apart = not agreed()
            raise
        finally:
            self._watch.check()  # a GPU that waited for a dead process was released, and what it computed is void


class _LeadingEngine:
    """An engine.TrainingEngine: the one that the training loop has."""

    def __init__(self, leader: Leader, engine: DataParallelEngine) -> None:
        self._leader, self._engine = leader, engine

    @property
    def sizes(self) -> Sizes:
        return self._engine.sizes

    def identity(self) -> str:
        return self._engine.identity()

    def accumulate(self, packs: Sequence[KeyedPack], divisor: float, heard: Heard) -> LossSum:
        with self._leader.together(Call("accumulate", packs, divisor), agreed=self._agreed):
            return self._engine.accumulate(packs, divisor, heard)

    def clip(self, most: float) -> float:
        with self._leader.together(Call("clip", number=most)):
            return self._engine.clip(most)

    def step(self, learning_rate: float) -> None:
        with self._leader.together(Call("step", number=learning_rate)):
            self._engine.step(learning_rate)

    def evaluate(self, packs: Sequence[Pack], heard: Heard) -> LossSum:
        with self._leader.together(Call("evaluate", [KeyedPack(one, "") for one in packs]), agreed=self._agreed):
            return self._engine.evaluate(packs, heard)

    def adapter(self) -> dict[str, Tensor]:
        return self._engine.adapter()

    def state(self) -> dict[str, Tensor]:
        with self._leader.together(Call("gather_gradient")):
            return self._engine.state()

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        with self._leader.together(Call("load_state", tensors=tensors)):
            self._engine.load_state(tensors)

    def memory_bytes(self) -> int:
        return self._engine.memory_bytes()

    def close(self) -> None:
        self._engine.close()

    def _agreed(self) -> bool:
        return self._engine.agreed


def follow(ranks: Ranks, make: MakeEngine) -> None:
    """Makes the calls that rank 0 makes, until it closes.

    Raises:
        LostContact: another rank ended.
    """
    engine: DataParallelEngine | None = None
    while True:
        sent = ranks.receive()
        if sent is None:
            return
        call = Call.decoded(sent)
        if call.name == "engine":
            engine = make()
            continue
        assert engine is not None
        try:
            call.of(engine, _unheard)
        except (OtherStopped, torch.OutOfMemoryError):
            if not engine.agreed:
                raise
            # Rank 0 has raised an error too, and decides what to do.


def _unheard(_: float) -> None: ...
