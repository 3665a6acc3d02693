"""How the processes that train together find each other: by the variables of `torchrun`, at a store on one of them.

RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT say which rank a process is and where the store is. Everything else comes
from rank 0 when they are connected. On one host, all connections stay on its loopback interface.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import PrefixStore, Store, TCPStore

from journeyman.training.ranks import LIMIT, LostContact, Ranks, broadcast, wait_for

_FIRST, _OFF = "first", "off"
_POLL_S = 0.02


@dataclass(frozen=True)
class Assignment:
    """What rank 0 tells the others once they are connected.

    Attributes:
        devices: of each rank, such as "cuda:1".
        limit_s: see ranks.LIMIT.
        job: says what engine to make, in the form that the worker's program understands.
    """

    devices: list[str]
    limit_s: float
    job: str


def started_by_torchrun() -> bool:
    """Whether this process is rank 0 of several that `torchrun` started."""
    return os.environ.get("RANK") == "0" and "MASTER_ADDR" in os.environ and int(os.environ["WORLD_SIZE"]) > 1


def store_of_environment() -> Store:
    """The store that the environment names; this process has it if it is rank 0 and `torchrun` itself has none."""
    first = os.environ["RANK"] == "0" and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    return TCPStore(address, port, int(os.environ["WORLD_SIZE"]), is_master=first, wait_for_workers=False)


def lead(store: Store, assignment: Assignment, check: Callable[[], None]) -> Ranks:
    """Connects rank 0 with the others.

    Args:
        check: raises if they will not come; called while waiting for them.

    Raises:
        LostContact: another rank ended.
    """
    store, count = _of_this_attempt(store), len(assignment.devices)
    store.set(_FIRST, "")
    while not store.check([_here(rank) for rank in range(1, count)]):
        check()
        time.sleep(_POLL_S)
    connect(store, 0, count, one_host=_on_one_host(count))
    broadcast(json.dumps(asdict(assignment)).encode())
    return Ranks(torch.device(assignment.devices[0]), timedelta(seconds=assignment.limit_s))


def call_off() -> None:
    """Lets the ranks that still wait for rank 0 end; for the case that `torchrun` started them and there is no job."""
    store = _of_this_attempt(store_of_environment())
    if not store.check([_FIRST]):
        store.set(_FIRST, _OFF)


def join() -> tuple[Ranks, str] | None:
    """Connects this process, a rank from 1 on, with rank 0, and returns the job that this assigns.

    It waits for rank 0 for as long as it takes. None: rank 0 has no job.

    Raises:
        LostContact: rank 0 or another rank ended.
    """
    rank, store = int(os.environ["RANK"]), _of_this_attempt(store_of_environment())
    store.set(_here(rank), "")
    wait_for(store, _FIRST)
    if store.get(_FIRST) == _OFF.encode():
        return None
    count = int(os.environ["WORLD_SIZE"])
    connect(store, rank, count, one_host=_on_one_host(count))
    assignment = Assignment(**json.loads(broadcast()))
    return Ranks(torch.device(assignment.devices[rank]), timedelta(seconds=assignment.limit_s)), assignment.job


def disconnect() -> None:
    """Ends the connections of this process."""
    if dist.is_initialized():
        dist.destroy_process_group()


def _on_one_host(count: int) -> bool:
    return int(os.environ.get("LOCAL_WORLD_SIZE", count)) == count


def connect(store: Store, rank: int, count: int, *, one_host: bool, limit: timedelta = LIMIT) -> None:
    """Makes the group of torch.distributed that ranks.Ranks is made of.

    Args:
        one_host: all ranks are on this host, and use its loopback interface only.
        limit: how long to wait for the others.

    Raises:
        LostContact: another rank ended, or did not come in time.
    """
    if one_host:
        for variable in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
            os.environ.setdefault(variable, "lo0" if sys.platform == "darwin" else "lo")
    # A GPU of rank 0 that waits for a dead process is released by Workers, with a reason; NCCL would end the process.
    os.environ.setdefault("TORCH_NCCL_ASYNC_ERROR_HANDLING", "1" if rank else "0")
    try:
        dist.init_process_group("gloo", store=store, rank=rank, world_size=count, timeout=limit)
    except RuntimeError as error:
        raise LostContact(str(error)) from error


def _of_this_attempt(store: Store) -> Store:
    """The store, without what is left from processes that `torchrun` has started before."""
    return PrefixStore(f"journeyman/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)


def _here(rank: int) -> str:
    return f"here/{rank}"
