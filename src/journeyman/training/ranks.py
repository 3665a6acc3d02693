"""The processes that train together, one for each device, and what goes between them.

Each has a rank; rank 0 runs the training loop. Two groups of torch.distributed connect them: one for what is on the
host, and one for tensors on the devices (NCCL between GPUs, otherwise gloo). Both have a time limit. Between two calls,
ranks wait for rank 0 as long as it takes, through the store by which they found each other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import Store
from torch.distributed.distributed_c10d import _get_default_store

LIMIT = timedelta(minutes=30)
"""How long a rank waits for the others in the middle of a computation."""
CHECKPOINT_KEPT = "The last checkpoint is kept: journeyman run goes on from it"
"""The remedy when ranks are lost."""
_TURN = timedelta(seconds=1)
"""How long a thread keeps the store for itself; NCCL's threads use it too."""

_END = "end"

# The name since torch 2.13.
_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor


class LostContact(Exception):
    """Another process of the group ended, or did not answer in time."""


class Ranks:
    """A process's connection to the others. Every method is called by all of them, in the same order.

    The default group of torch.distributed must exist; `connect` makes it, and so does `torchrun`'s or Ray's start-up.

    Args:
        device: of this process.
        limit: how long to wait for the others in the middle of a computation.

    Raises (from all methods):
        LostContact: another process ended, or did not answer in time.
    """

    def __init__(self, device: torch.device, limit: timedelta = LIMIT) -> None:
        self.rank, self.count, self.device = dist.get_rank(), dist.get_world_size(), device
        self._store, self._sent = _get_default_store(), 0
        with _contact():
            self._host = dist.new_group(backend="gloo", timeout=limit)
            if device.type == "cuda":
                torch.cuda.set_device(device)
                self._devices = dist.new_group(backend="nccl", timeout=limit, device_id=device)
            else:
                self._devices = self._host

    def sum_(self, tensor: Tensor) -> None:
        """Replaces a tensor on the device by the sum of all ranks; every rank gets the same bits."""
        with _contact():
            dist.all_reduce(tensor, group=self._devices)

    def sum_on_first_(self, tensor: Tensor) -> None:
        """Replaces a tensor on the device by the sum of all ranks on rank 0, and by zeros elsewhere."""
        with _contact():
            dist.reduce(tensor, 0, group=self._devices)
        if self.rank:
            tensor.zero_()

    def gather_bytes(self, whole: Tensor, mine: Tensor) -> dist.Work:
        """Begins to fill `whole` (uint8, on the device) with what the ranks have, in their order.

        It starts when what the device was given so far is done. `wait()` of the result makes the device wait.
        """
        with _contact():
            work: dist.Work | None = _gather(whole, mine, group=self._devices, async_op=True)
        assert work is not None
        return work

    def exchange(self, numbers: Sequence[float]) -> list[list[float]]:
        """The numbers of each rank, as float64, by rank."""
        mine = torch.tensor(numbers, dtype=torch.float64)
        found = [torch.empty_like(mine) for _ in range(self.count)]
        with _contact():
            dist.all_gather(found, mine, group=self._host)
        return [one.tolist() for one in found]

    def send(self, content: bytes) -> None:
        """Sends bytes from rank 0 to the others, which call `receive`."""
        self._sent += 1
        with _contact():
            self._store.set(_place(self._sent), "")
            broadcast(content, self._host)
            self._store.delete_key(_place(self._sent))  # all have seen it, because they take part in the broadcast

    def send_end(self) -> None:
        """Lets `receive` return None on the other ranks; does not wait for them."""
        with _contact():
            self._store.set(_place(self._sent + 1), _END)

    def receive(self) -> bytes | None:
        """Waits, for any length of time, for what rank 0 sends."""
        self._sent += 1
        wait_for(self._store, _place(self._sent))
        with _contact():
            return None if self._store.get(_place(self._sent)) == _END.encode() else broadcast(None, self._host)

    def abort(self) -> None:
        """Ends what is waiting on this process's GPU for another process; may be called by any thread."""
        if self.device.type == "cuda":
            self._devices.abort()


def _place(number: int) -> str:
    return f"journeyman/sent/{number}"


def wait_for(store: Store, place: str) -> None:
    """Waits, for any length of time, until another process has put something at a place of the store.

    Raises:
        LostContact: the process with the store ended.
    """
    with _contact():
        while True:
            try:
                store.wait([place], _TURN)
                return
            except dist.DistStoreError:  # not yet
                continue


def broadcast(content: bytes | None = None, group: dist.ProcessGroup | None = None) -> bytes:
    """Bytes from rank 0 to all ranks; only rank 0 has `content`.

    Raises:
        LostContact: another process ended.
    """
    size = torch.tensor([len(content or b"")])
    with _contact():
        dist.broadcast(size, 0, group=group)
        blob = torch.frombuffer(bytearray(content or int(size.item())), dtype=torch.uint8)
        dist.broadcast(blob, 0, group=group)
    return blob.numpy().tobytes()


@contextmanager
def _contact() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # torch.distributed's errors have no other common type
        raise LostContact(str(error)) from error
