"""Data-parallel training: several processes, each with an engine for its device, take one step together.

Every process has the whole adapter and computes some of the rows of each step. Losses and gradients are sums, so the
sums of all processes are those of the step. At all times, the gradient of the step so far is the sum of the gradients
of the processes; `clip` makes it the same on all of them, after which each takes the same optimizer step.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from journeyman.errors import WorkerDied
from journeyman.models.sizes import Sizes
from journeyman.training.batches import Pack
from journeyman.training.division import divide_packs, divide_rows, laid_out
from journeyman.training.engine import Heard, KeyedPack, LossSum, TrainingEngine
from journeyman.training.ranks import Ranks

_STEPS_BETWEEN_CHECKS = 16
_CHECKSUM = 1 << 48


class ReplicaEngine(TrainingEngine, Protocol):
    """An engine for one device that can be one of several."""

    begun: bool
    """Whether the step so far has a gradient; otherwise `gradient` is zero."""

    @property
    def gradient(self) -> Tensor:
        """The gradient of the step so far, one flat float32 tensor on the device, of which changes count."""

    @property
    def parameters(self) -> Tensor:
        """The adapter, one flat float32 tensor on the device."""


class _Outcome(enum.IntEnum):
    DONE = 0
    STOPPED = 1
    OUT_OF_MEMORY = 2
    FAILED = 3


class DataParallelEngine:
    """An engine.TrainingEngine of which every process has one; all processes make the same calls.

    The numbers differ from those of one process only by the order of float32 sums. So the number of processes is not
    part of the identity: a checkpoint resumes with any other number.

    Args:
        whole_packs: divide steps into packs, not into rows. Dropout depends on a row's place in its pack, so with
            dropout this is needed if the number of processes is to change nothing.
        lockstep: the engines need each other while they compute (models.gpu.sharded): each of them is called even if
            it has no rows, and an error in one is the end of all.
        notes: where the engine of this process puts lines of text for the user.
        say: called with those lines and, on rank 0, with one for each process that has some.

    Attributes:
        agreed: whether, after an error, all processes know of it and can go on.
    """

    def __init__(
        self,
        local: ReplicaEngine,
        ranks: Ranks,
        *,
        whole_packs: bool = False,
        lockstep: bool = False,
        notes: list[str] | None = None,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._local, self._ranks = local, ranks
        self._notes, self._say = [] if notes is None else notes, say
        self._whole_packs, self.lockstep = whole_packs, lockstep
        self.agreed = False
        self._identity = local.identity()  # where layers are shared, no process can ask for one alone
        self._steps = 0
        self._check()

    @property
    def sizes(self) -> Sizes:
        return self._local.sizes

    def identity(self) -> str:
        return self._identity

    def accumulate(self, packs: Sequence[KeyedPack], divisor: float, heard: Heard) -> LossSum:
        local, mine = self._local, self._mine(packs)
        before = local.gradient.clone() if local.begun else None
        try:
            return self._together(
                [one.pack for one in packs], [one.pack for one in mine], heard,
                lambda listener: local.accumulate(mine, divisor, listener),
            )  # fmt: skip
        except BaseException:
            local.gradient.zero_() if before is None else local.gradient.copy_(before)
            local.begun = before is not None
            raise

    def clip(self, most: float) -> float:
        self._ranks.sum_(self._local.gradient)
        self._local.begun = True
        return self._local.clip(most)

    def step(self, learning_rate: float) -> None:
        self._local.step(learning_rate)
        self._steps += 1
        if self._steps % _STEPS_BETWEEN_CHECKS == 0:
            self._check()

    def evaluate(self, packs: Sequence[Pack], heard: Heard) -> LossSum:
        shares, local = divide_rows(packs, self._ranks.count), self._local
        mine = [laid_out(packs, rows) for rows in shares[self._ranks.rank]]

        def one_by_one(listener: Heard) -> LossSum:
            """With memory for one pack; all processes go through the layers equally often."""
            made, done = LossSum(0.0, 0.0), 0
            for number in range(max(map(len, shares))):
                part = mine[number : number + 1]
                made += local.evaluate(part, partial(_after, done, listener))
                done += sum(one.row_tokens for one in part)
            return made

        compute = one_by_one if self.lockstep else partial(local.evaluate, mine)
        return self._together(packs, mine, heard, compute)

    def adapter(self) -> dict[str, Tensor]:
        return self._local.adapter()

    def state(self) -> dict[str, Tensor]:
        """On rank 0, that of all processes."""
        self.gather_gradient()
        return self._local.state()

    def gather_gradient(self) -> None:
        """Moves the gradient of the step so far to rank 0."""
        if any(begun for (begun,) in self._ranks.exchange([self._local.begun])):
            self._ranks.sum_on_first_(self._local.gradient)
            self._local.begun = True

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        first = self._ranks.rank == 0
        self._local.load_state(
            {name: value for name, value in tensors.items() if first or not name.startswith("gradient/")}
        )
        self._check()

    def memory_bytes(self) -> int:
        return self._local.memory_bytes()

    def close(self) -> None:
        self._local.close()

    def _mine(self, packs: Sequence[KeyedPack]) -> list[KeyedPack]:
        """What this process computes of some packs."""
        rank, count = self._ranks.rank, self._ranks.count
        if count == 1:
            return list(packs)
        if self._whole_packs:
            return [packs[number] for number in divide_packs([one.pack for one in packs], count)[rank]]
        plain = [one.pack for one in packs]
        return [
            KeyedPack(laid_out(plain, rows), f"{packs[0].key}/{rank}/{number}")
            for number, rows in enumerate(divide_rows(plain, count)[rank])
        ]

    def _together(
        self, packs: Sequence[Pack], mine: Sequence[Pack], heard: Heard, compute: Callable[[Heard], LossSum]
    ) -> LossSum:
        """The sum of what all processes compute; raises on all of them if one of them could not or should not."""
        self.agreed = False
        listener, error, made = _Listener(heard, packs, mine), None, LossSum(0.0, 0.0)
        try:
            if mine or self.lockstep:
                made = compute(listener)
        except Exception as found:
            if self.lockstep:
                raise
            error = found
        listener.finish()
        outcome = _Outcome.STOPPED if listener.raised is not None else _Outcome.DONE
        if error is not None:
            outcome = _Outcome.OUT_OF_MEMORY if isinstance(error, torch.OutOfMemoryError) else _Outcome.FAILED
        all_made = self._ranks.exchange([made.loss, made.labels, outcome, len(self._notes)])
        self.agreed = True
        self._tell([int(one[3]) for one in all_made])
        if raised := error or listener.raised:
            raise raised
        for rank, (_, _, other, _) in enumerate(all_made):
            if other == _Outcome.OUT_OF_MEMORY:
                raise torch.OutOfMemoryError(f"the device of rank {rank} has too little memory")
            if other != _Outcome.DONE:
                raise OtherStopped(rank)
        return LossSum(sum(one[0] for one in all_made), sum(one[1] for one in all_made))

    def _tell(self, notes: Sequence[int]) -> None:
        """Passes on what the engines said; what those of other processes said is not known, only how often."""
        for rank, count in enumerate(notes):
            if rank == self._ranks.rank:
                for line in self._notes:
                    self._say(line)
            elif count:
                self._say(f"out of memory on the device of rank {rank}: from here on, it computes with less")
        self._notes.clear()

    def _check(self) -> None:
        """Raises if the processes have different adapters or engines with different identities."""
        bits = self._local.parameters.view(torch.int32).sum(dtype=torch.int64).item()
        kind = int.from_bytes(hashlib.blake2b(self._identity.encode(), digest_size=6).digest())
        found = self._ranks.exchange([int(bits) % _CHECKSUM, kind])
        different = [rank for rank, one in enumerate(found) if one != found[0]]
        if different:
            raise WorkerDied(
                f"the devices of ranks {different} do not have the same adapter and number format as that of rank 0",
                "Use devices of one kind with the same versions of torch and driver; the last checkpoint is kept",
            )


def _after(done: float, heard: Heard, tokens: float) -> None:
    heard(done + tokens)


class OtherStopped(Exception):
    """Another process could not, or should not, finish what all were doing."""

    def __init__(self, rank: int) -> None:
        self.rank = rank
        super().__init__(f"rank {rank} stopped")


class _Listener:
    """Reports the progress of this process as that of all.

    What `heard` raises is kept until all processes are done, because they can only stop together.
    """

    def __init__(self, heard: Heard, packs: Sequence[Pack], mine: Sequence[Pack]) -> None:
        self._heard, self._total = heard, sum(one.row_tokens for one in packs)
        self._scale = self._total / max(1, sum(one.row_tokens for one in mine))
        self.raised: BaseException | None = None

    def __call__(self, tokens: float) -> None:
        if self.raised is None:
            try:
                self._heard(min(tokens * self._scale, self._total))
            except BaseException as error:
                self.raised = error

    def finish(self) -> None:
        self(self._total)
