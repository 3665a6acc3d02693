"""In the cluster: one of the processes that train together, an actor with one GPU or with the processor of its node."""

from __future__ import annotations

import os
import platform
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import psutil
import ray
import torch
from safetensors.torch import save
from torch import Tensor
from torch._C._distributed_c10d import TCPStore

from journeyman.cluster.nodes import Software, refuse_other_software, software_here
from journeyman.cluster.shipping import Shipment
from journeyman.training.calls import Call
from journeyman.training.data_parallel import DataParallelEngine
from journeyman.training.devices import CUDA, chosen_gpu, peak_gpu_bytes
from journeyman.training.engine import LossSum
from journeyman.training.hardware import keep_freed_memory, peak_resident_bytes, use_threads
from journeyman.training.meeting import connect
from journeyman.training.mirror import MakeEngine
from journeyman.training.ranks import LIMIT, LostContact, Ranks
from journeyman.training.replica import Replica

_JOIN = timedelta(minutes=5)
"""How long a worker waits for the others before anything is computed; a firewall shows here."""


_M = TypeVar("_M", bound=Callable[..., Any])


def _aside(method: _M) -> _M:
    """A method that is called while another one is at work."""
    marked: _M = ray.method(concurrency_group="aside")(method)
    return marked


class Stopped(Exception):
    """The driver asked to stop in the middle of a call; the gradients are as before."""


@dataclass(frozen=True)
class Made:
    """What a call returned, on rank 0.

    Attributes:
        result: tensors as safetensors.
        memory: see engine.TrainingEngine.memory_bytes.
        notes: lines for the user, such as that a GPU goes on with less memory.
    """

    result: LossSum | float | bytes | None
    memory: int
    notes: Sequence[str] = ()


class TrainingWorker:
    """A rank. Its methods are called one at a time, except for `tokens_done` and `stop`.

    Args:
        replica: its `base` is that of the driver.
        shipment: the base, which has been delivered.
        most_threads: at most so many.
    """

    def __init__(self, replica: Replica, shipment: Shipment, most_threads: int) -> None:
        self._replica, self._shipment, self._most_threads = replica, shipment, most_threads
        self._make: MakeEngine | None = None
        self._engine: DataParallelEngine | None = None
        self._rank, self._call, self._stopped, self._tokens = 0, 0, 0, 0.0
        self._notes: list[str] = []

    def hello(self, software: Software) -> None:
        """Answers once the process has started.

        Raises:
            UsageError: this node joined after the others were checked, and has other software than the driver.
        """
        refuse_other_software(f"{platform.node()} ({ray.util.get_node_ip_address()})", software_here(), software)

    def open_store(self, count: int) -> tuple[str, int]:
        """On rank 0: makes the place where `count` ranks meet; returns its address and port."""
        self._address = ray.util.get_node_ip_address()
        self._store = TCPStore(self._address, 0, count, is_master=True, wait_for_workers=False, timeout=_JOIN)
        return self._address, self._store.port

    def join(self, address: str, port: int, rank: int, count: int) -> None:
        """Connects this rank with the others, and loads the base.

        Raises:
            LostContact: another rank ended, or cannot be reached.
            InputError: there is no GPU that can train here, or the base cannot be loaded.
        """
        keep_freed_memory()
        threads = use_threads(self._replica.config.threads)
        torch.set_num_threads(min(threads, self._most_threads))
        _use_network_of(ray.util.get_node_ip_address())
        try:
            store = self._store if rank == 0 else TCPStore(
                address, port, count, is_master=False, wait_for_workers=False, timeout=_JOIN
            )  # fmt: skip
        except RuntimeError as error:
            raise LostContact(str(error)) from error
        connect(store, rank, count, one_host=False, limit=_JOIN)
        self._rank = rank
        ranks = Ranks(torch.device("cpu" if self._replica.processor else self._card()), LIMIT)
        self._make = self._replica.model_copy(update={"base": self._shipment.path()}).load(ranks, self._notes.append)

    def engine(self) -> str:
        """Makes an engine, in place of the one before; returns its identity."""
        assert self._make is not None
        self._engine = None  # frees its memory
        self._engine = self._make()
        return self._engine.identity()

    def call(self, number: int, blob: bytes) -> Made | None:
        """Makes a call, as all ranks do.

        Args:
            number: counts the calls.

        Raises:
            Stopped: see `stop`.
            OtherStopped: another rank has stopped, or could not make the call.
            LostContact: another rank ended.
        """
        assert self._engine is not None
        self._call, self._tokens = number, 0.0
        call = Call.decoded(blob)
        if call.name == "state" and self._rank:
            call = Call("gather_gradient")
        made = call.of(self._engine, self._heard)
        notes = tuple(self._notes)
        self._notes.clear()
        if self._rank:
            return None
        return Made(_as_bytes(made) if isinstance(made, dict) else made, self._engine.memory_bytes(), notes)

    @_aside
    def tokens_done(self) -> float:
        """Of the call that is being made."""
        return self._tokens

    @_aside
    def stop(self, number: int) -> None:
        """Stops a call, if it has not ended."""
        self._stopped = number

    def peak(self) -> int:
        """See backends.Backend.peak_memory_bytes."""
        return peak_resident_bytes() if self._replica.processor else peak_gpu_bytes()

    def _heard(self, tokens: float) -> None:
        self._tokens = tokens
        if self._stopped == self._call:
            raise Stopped

    def _card(self) -> str:
        """Ray shows each process its own GPU only."""
        found = chosen_gpu(CUDA, self._replica.config.precision)
        assert found is not None
        return str(found.device)


def _use_network_of(address: str) -> None:
    """Lets torch.distributed use the interface through which Ray reaches this node, unless the user has set another.

    Otherwise it takes what the host's name resolves to, which on many systems is the loopback interface.
    """
    for name, addresses in psutil.net_if_addrs().items():
        if any(one.family in (socket.AF_INET, socket.AF_INET6) and one.address == address for one in addresses):
            os.environ.setdefault("GLOO_SOCKET_IFNAME", name)
            os.environ.setdefault("NCCL_SOCKET_IFNAME", name)


def _as_bytes(tensors: dict[str, Tensor]) -> bytes:
    return save({name: value.clone() for name, value in tensors.items()})
