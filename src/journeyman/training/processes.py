"""Starts the processes of ranks 1 and up on this machine, and connects all ranks.

A worker learns from the variables of `torchrun` (RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT) which rank it is and where
rank 0 is; everything else comes from rank 0 when they are connected. All connections stay on the loopback interface.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import IO, NoReturn

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import TCPStore

from journeyman.errors import WorkerDied
from journeyman.foreign import plain
from journeyman.training.ranks import LIMIT, LostContact, Ranks, broadcast
from journeyman.training.worker import PARENT

WORKER = (sys.executable, "-m", "journeyman.training.worker")
LOST_CONTACT = 75
"""The exit code of a worker that is not itself the reason why it ends (EX_TEMPFAIL)."""
_HOST = "127.0.0.1"
_HANDLED_BY_FIRST = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
_LAST_LINES, _LAST_BYTES = 12, 4000
_POLL_S, _SETTLE_S, _GOODBYE_S = 0.1, 0.5, 10.0
_REMEDY = "The last checkpoint is kept: journeyman run goes on from it"


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


class Workers:
    """The worker processes, a mirror.Watch.

    If one ends early, the others are ended too, so that nothing waits for it. They ignore Ctrl-C and the other signals
    with which rank 0 is asked to stop, because it ends them when it has saved its state.

    Args:
        ranks: that of each process, from 1 on.
        command: the program of a worker.
    """

    def __init__(self, ranks: Sequence[int], port: int, command: Sequence[str] = WORKER) -> None:
        self._aborting: Ranks | None = None
        self._stopping = threading.Event()
        self._died = threading.Event()
        self._cause, self._lost = "", False
        self._outputs: dict[int, IO[bytes]] = {}
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        common = {"MASTER_ADDR": _HOST, "MASTER_PORT": str(port), "WORLD_SIZE": str(len(ranks) + 1)}
        common[PARENT] = str(os.getpid())
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED_BY_FIRST)  # a child inherits it
        try:
            for rank in ranks:
                self._outputs[rank] = output = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the process)
                self._processes[rank] = subprocess.Popen(
                    list(command),
                    stdin=subprocess.PIPE,
                    stdout=output,
                    stderr=output,
                    env={**os.environ, **common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        threading.Thread(target=self._watch, name="workers", daemon=True).start()

    def release_when_one_dies(self, ranks: Ranks) -> None:
        """Names the connection that a GPU of this process could wait on forever."""
        self._aborting = ranks

    def check(self) -> None:
        if self._died.is_set():
            raise WorkerDied(self._cause, _REMEDY)

    def lost(self, error: Exception) -> NoReturn:
        self._lost = True
        self._died.wait(10 * _SETTLE_S)
        self.check()
        raise WorkerDied(f"a training worker does not answer: {plain(str(error))[:300]}", _REMEDY) from error

    def stop(self) -> None:
        self._stopping.set()
        until = time.monotonic() + (0 if self._lost or self._died.is_set() else _GOODBYE_S)
        for process in self._processes.values():
            try:
                process.wait(max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdin is not None:
                process.stdin.close()
        for output in self._outputs.values():
            output.close()
        disconnect()

    def _watch(self) -> None:
        while not self._stopping.wait(_POLL_S):
            if any(process.poll() is not None for process in self._processes.values()):
                self._stopping.wait(_SETTLE_S)  # the one that ends first may have ended because of another
                if not self._stopping.is_set():
                    self._cause = self._reason()
                    self._died.set()
                    for process in self._processes.values():
                        process.kill()
                    if self._aborting is not None:
                        self._aborting.abort()
                return

    def _reason(self) -> str:
        ended = {rank: process.poll() for rank, process in self._processes.items()}
        found = sorted((code == LOST_CONTACT, rank, code) for rank, code in ended.items() if code is not None)
        _, rank, code = found[0]
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        said = self._last_lines(rank)
        return f"the training worker of rank {rank} {how}" + (f": {said}" if said else "")

    def _last_lines(self, rank: int) -> str:
        output = self._outputs[rank]
        size = os.fstat(output.fileno()).st_size
        start = max(0, size - _LAST_BYTES)
        lines = os.pread(output.fileno(), _LAST_BYTES, start).decode(errors="replace").splitlines()
        return " | ".join(plain(line) for line in lines[-_LAST_LINES:] if line.strip())


def start_workers(
    devices: Sequence[str], job: str, command: Sequence[str] = WORKER, limit: timedelta = LIMIT
) -> tuple[Ranks, Workers]:
    """Makes this process rank 0 of some devices of this machine, the first of which is its own.

    Raises:
        WorkerDied: a worker did not start.
    """
    listening = socket.create_server((_HOST, 0))
    port = listening.getsockname()[1]
    store = TCPStore(
        _HOST, port, len(devices), is_master=True, wait_for_workers=False, master_listen_fd=listening.detach()
    )
    workers = Workers(range(1, len(devices)), port, command)
    try:
        while not store.check([_here(rank) for rank in range(1, len(devices))]):
            workers.check()
            time.sleep(_POLL_S / 5)
        _connect(store, 0, len(devices))
        assignment = Assignment(list(devices), limit.total_seconds(), job)
        broadcast(json.dumps(asdict(assignment)).encode())
        ranks = Ranks(torch.device(devices[0]), limit)
    except LostContact as error:
        try:
            workers.lost(error)
        finally:
            workers.stop()
    except BaseException:
        workers.stop()
        raise
    workers.release_when_one_dies(ranks)
    return ranks, workers


def join() -> tuple[Ranks, str]:
    """Makes this process the rank that the environment names; returns the job that rank 0 assigns.

    Raises:
        LostContact: rank 0 or another rank ended.
    """
    rank, count = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    store = TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), count, is_master=False)
    store.set(_here(rank), "")
    _connect(store, rank, count)
    assignment = Assignment(**json.loads(broadcast()))
    device = torch.device(assignment.devices[rank])
    return Ranks(device, timedelta(seconds=assignment.limit_s)), assignment.job


def _connect(store: TCPStore, rank: int, count: int) -> None:
    name = "lo0" if sys.platform == "darwin" else "lo"
    for variable in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        os.environ.setdefault(variable, name)
    # A GPU of rank 0 that waits for a dead process is released by Workers, with a reason; NCCL would end the process.
    os.environ.setdefault("TORCH_NCCL_ASYNC_ERROR_HANDLING", "1" if rank else "0")
    try:
        dist.init_process_group("gloo", store=store, rank=rank, world_size=count, timeout=LIMIT)
    except RuntimeError as error:
        raise LostContact(str(error)) from error


def disconnect() -> None:
    """Ends the connections of this process."""
    if dist.is_initialized():
        dist.destroy_process_group()


def _here(rank: int) -> str:
    return f"journeyman/here/{rank}"
