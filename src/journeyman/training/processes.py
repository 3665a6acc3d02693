"""Starts the processes of ranks 1 and up on this machine, and notices when one of them ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import IO, NoReturn

from torch._C._distributed_c10d import TCPStore

from journeyman.errors import UsageError, WorkerDied
from journeyman.foreign import plain
from journeyman.processors import usable_cores
from journeyman.training.meeting import Assignment, disconnect, lead, started_by_torchrun, store_of_environment
from journeyman.training.mirror import Watch
from journeyman.training.ranks import CHECKPOINT_KEPT, LIMIT, LostContact, Ranks
from journeyman.training.worker import LOST_CONTACT, PARENT

WORKER = (sys.executable, "-m", "journeyman.training.worker")
_HOST = "127.0.0.1"
_HANDLED_BY_FIRST = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
_LAST_LINES, _LAST_BYTES = 12, 4000
_POLL_S, _SETTLE_S, _GOODBYE_S = 0.1, 0.5, 10.0


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
        self._cause = ""
        self._outputs: dict[int, IO[bytes]] = {}
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        count = len(ranks) + 1
        common = {"MASTER_ADDR": _HOST, "MASTER_PORT": str(port), "WORLD_SIZE": str(count), PARENT: str(os.getpid())}
        threads = {"OMP_NUM_THREADS": str(max(1, usable_cores() // count))}
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED_BY_FIRST)  # a child inherits it
        try:
            for rank in ranks:
                self._outputs[rank] = output = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the process)
                self._processes[rank] = subprocess.Popen(
                    list(command),
                    stdin=subprocess.PIPE,
                    stdout=output,
                    stderr=output,
                    env={**threads, **os.environ, **common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        threading.Thread(target=self._watch, name="workers", daemon=True).start()

    def release_when_one_dies(self, ranks: Ranks) -> None:
        """Names the connection that a GPU of this process could wait on forever."""
        self._aborting = ranks

    def check(self) -> None:
        if self._died.is_set():
            raise WorkerDied(self._cause, CHECKPOINT_KEPT)

    def lost(self, error: Exception) -> NoReturn:
        self._died.wait(10 * _SETTLE_S)
        self.check()
        raise WorkerDied(_no_answer(error), CHECKPOINT_KEPT) from error

    def stop(self, *, wait: bool) -> None:
        self._stopping.set()
        until = time.monotonic() + (_GOODBYE_S if wait and not self._died.is_set() else 0)
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


class OtherProcesses:
    """A mirror.Watch for processes that something else started, and watches.

    Args:
        disconnect: ends the connections to them.
    """

    def __init__(self, disconnect: Callable[[], None] = lambda: None) -> None:
        self._disconnect = disconnect

    def check(self) -> None: ...

    def lost(self, error: Exception) -> NoReturn:
        raise WorkerDied(_no_answer(error), CHECKPOINT_KEPT) from error

    def stop(self, *, wait: bool) -> None:
        self._disconnect()


def start_workers(
    devices: Sequence[str], job: str, command: Sequence[str] = WORKER, limit: timedelta = LIMIT
) -> tuple[Ranks, Watch]:
    """Makes this process rank 0 of some devices of this machine, the first of which is its own.

    Starts the others, except if `torchrun` has started this process and the others.

    Raises:
        WorkerDied: a worker did not start.
        UsageError: `torchrun` has started another number of processes.
    """
    assignment, watch = Assignment(list(devices), limit.total_seconds(), job), OtherProcesses(disconnect)
    if started_by_torchrun():
        if (count := int(os.environ["WORLD_SIZE"])) != len(devices):
            raise UsageError(
                f"torchrun started {count} processes for {len(devices)} devices",
                f"Set --nproc-per-node {len(devices)}, or start journeyman without torchrun",
            )
        try:
            return lead(store_of_environment(), assignment, watch.check), watch
        except LostContact as error:
            watch.lost(error)
    listening = socket.create_server((_HOST, 0))
    port = listening.getsockname()[1]
    descriptor = listening.detach()
    store = TCPStore(_HOST, port, len(devices), is_master=True, wait_for_workers=False, master_listen_fd=descriptor)
    workers = Workers(range(1, len(devices)), port, command)
    try:
        ranks = lead(store, assignment, workers.check)
    except LostContact as error:
        try:
            workers.lost(error)
        finally:
            workers.stop(wait=False)
    except BaseException:
        workers.stop(wait=False)
        raise
    workers.release_when_one_dies(ranks)
    return ranks, workers


def _no_answer(error: Exception) -> str:
    return f"a training process does not answer: {plain(str(error), 300)}"
