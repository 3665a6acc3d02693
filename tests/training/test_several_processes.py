"""Several processes train as one: the same curve, also after they were killed and resumed with another number of them,
and one clear error when one of them is lost. Here they have the CPU as their device, and are connected by gloo."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import psutil
import pytest
import torch

import training_ranks
from conftest import write_tiny_gguf
from journeyman.errors import Interrupted, UsageError, WorkerDied
from journeyman.models.gguf_file import GgufFile
from journeyman.models.gpu.loading import load_on_gpu
from journeyman.protocols import SilentReporter
from journeyman.rendering.renderer import Rendered
from journeyman.training.batches import Pack, pack
from journeyman.training.checkpoint import load_checkpoint
from journeyman.training.engine import KeyedPack, TrainingEngine
from journeyman.training.gpu import GpuEngine
from journeyman.training.loop import Trainer, TrainingJob
from journeyman.training.replica import on_several_devices
from training_ranks import config, replica, rows, step

EQUAL = 1e-6
"""Of the loss, relative; sums in another order differ in the seventh digit. Measured: 1e-7."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_gguf(tmp_path_factory.mktemp("several") / "tiny.gguf", seed=3)


@contextmanager
def _engine(base: Path, processes: int, dropout: float = 0.0, *, shard: bool = False) -> Iterator[TrainingEngine]:
    if processes == 1:
        decoder = load_on_gpu(GgufFile(base), torch.float32, torch.device("cpu"))
        yield GpuEngine(decoder, config(dropout), recompute=True)
        return
    leader = on_several_devices(replica(base, dropout, shard=shard), ["cpu"] * processes)
    try:
        yield leader.engine()
    finally:
        leader.close()
    assert not _workers()


def _workers() -> list[psutil.Process]:
    """The processes of other ranks that still run; earlier tests may have left other children, also ended ones."""

    def is_worker(one: psutil.Process) -> bool:
        try:
            return any("worker" in part for part in one.cmdline())
        except psutil.NoSuchProcess:  # a zombie is one of these, too: it has ended and nobody has asked how
            return False

    return [one for one in psutil.Process().children() if is_worker(one)]


class _StopAt(SilentReporter):
    """Asks to stop once a share of all tokens is done."""

    def __init__(self, share: float) -> None:
        self._share, self._most = share, math.inf

    def begin(self, task: str, total: float, unit: str) -> None:
        self._most = self._share * total if task == "train" else math.inf

    def advance(self, done: float, note: str = "") -> None:
        self.stop_requested = done > self._most


def _train(
    base: Path, folder: Path, processes: int, dropout: float, until: float = 1.0, *, shard: bool = False,
    group_tokens: int = 60,
) -> list[float]:  # fmt: skip
    """Trains, or resumes; the losses of all steps and validations so far."""
    job = TrainingJob(rows(30), rows(7, seed=9), config(dropout), "f", folder / "checkpoints", 50, group_tokens)
    with _engine(base, processes, dropout, shard=shard) as engine:
        trainer = Trainer(job, engine, _StopAt(until))
        if until < 1:
            with pytest.raises(Interrupted):
                trainer.run()
        else:
            trainer.run()
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [value for line in lines for key, value in line.items() if key in ("loss", "validation_loss")]


@pytest.mark.slow
@pytest.mark.parametrize(("processes", "dropout"), [(2, 0.1), (3, 0.0)])
def test_the_curve_is_that_of_one_process(base: Path, tmp_path: Path, processes: int, dropout: float) -> None:
    expected = _train(base, tmp_path / "one", 1, dropout)
    assert len(expected) >= 10
    assert _train(base, tmp_path / "several", processes, dropout) == pytest.approx(expected, rel=EQUAL)


@pytest.mark.slow
def test_a_stopped_run_goes_on_with_other_processes(base: Path, tmp_path: Path) -> None:
    expected = _train(base, tmp_path / "whole", 1, 0.1)
    for processes, until, shard in ((2, 0.37, True), (1, 0.68, False)):
        _train(base, tmp_path / "parts", processes, 0.1, until, shard=shard)
        loaded = load_checkpoint(tmp_path / "parts" / "checkpoints")
        assert loaded is not None
        assert loaded[0].packs_done > 0, "the test stops within a step"
        assert any(name.startswith("gradient/") for name in loaded[1])
    assert _train(base, tmp_path / "parts", 3, 0.1) == pytest.approx(expected, rel=EQUAL)


def test_stopping_leaves_the_gradients_as_they_were(base: Path) -> None:
    packs = [KeyedPack(one, str(number)) for number, one in enumerate(pack(rows(8), 60))]

    def stop(_: float) -> None:
        raise Interrupted("enough")

    with _engine(base, 2) as engine:
        engine.accumulate(packs[:1], 10.0, lambda _: None)
        before = {name: value.clone() for name, value in engine.state().items()}
        with pytest.raises(Interrupted):
            engine.accumulate(packs[1:], 10.0, stop)
        after = engine.state()
        assert any(name.startswith("gradient/") for name in before)
        assert before.keys() == after.keys()
        assert all(torch.equal(before[name], after[name]) for name in before)


def test_one_set_of_processes_makes_one_engine_after_another(base: Path) -> None:
    leader = on_several_devices(replica(base), ["cpu", "cpu"])
    try:
        first, again = (step(leader.engine()) for _ in range(2))
    finally:
        leader.close()
        leader.close()
    assert first == again


@pytest.mark.slow
def test_a_killed_worker_is_named(base: Path) -> None:
    leader = on_several_devices(replica(base), ["cpu"] * 3)
    try:
        engine = leader.engine()
        step(engine)
        worker = _workers()[1]
        worker.kill()
        with pytest.raises(WorkerDied, match="rank 2 was killed by SIGKILL"):
            for number in range(1000):
                step(engine, number)
    finally:
        leader.close()
    assert not _workers()


def _impossible(tokens: int) -> Pack:
    """A pack of one row with a token that the base does not have."""
    return pack([Rendered([3] * (tokens - 1) + [10**6], 4)], tokens)[0]


@pytest.mark.slow
def test_an_error_in_a_worker_is_told(base: Path) -> None:
    leader = on_several_devices(replica(base, 0.1), ["cpu", "cpu"])
    try:
        engine = leader.engine()
        packs = [KeyedPack(one, "0/0") for one in (*pack(rows(1), 60), _impossible(8))]
        with pytest.raises(WorkerDied, match=r"rank 1 ended with exit code 1: .*IndexError"):
            engine.accumulate(packs, 1.0, lambda _: None)
    finally:
        leader.close()


def test_after_an_error_that_only_rank_0_has_no_call_is_made(base: Path) -> None:
    leader = on_several_devices(replica(base, 0.1, shard=True), ["cpu", "cpu"])
    try:
        engine = leader.engine()
        with pytest.raises(IndexError):
            engine.accumulate([KeyedPack(_impossible(8), "0/0")], 1.0, lambda _: None)
        with pytest.raises(WorkerDied, match="cannot go on after an error of rank 0"):
            step(engine)
    finally:
        leader.close()
    assert not _workers()


def test_a_worker_that_cannot_load_its_base_says_why(base: Path) -> None:
    program = """
from pathlib import Path
from journeyman.models.opening import open_base
from journeyman.training.worker import main
main(lambda job, ranks: open_base(Path("only-elsewhere.gguf")))
"""
    leader = on_several_devices(replica(base), ["cpu", "cpu"], command=[sys.executable, "-c", program])
    try:
        with pytest.raises(WorkerDied, match=r"rank 1 ended with exit code 1: .*only-elsewhere\.gguf: no such"):
            leader.engine()
    finally:
        leader.close()


@pytest.mark.slow
def test_a_worker_that_does_not_answer_is_given_up(base: Path) -> None:
    leader = on_several_devices(replica(base), ["cpu", "cpu"], limit=timedelta(seconds=2))
    try:
        engine = leader.engine()
        step(engine)
        _workers()[0].suspend()
        with pytest.raises(WorkerDied, match="does not answer"):
            step(engine, 1)
    finally:
        leader.close()
    assert not _workers()


@contextmanager
def _program(base: Path, processes: int) -> Iterator[tuple[subprocess.Popen[str], list[psutil.Process]]]:
    """A run in a process and a process group of its own, and its workers."""
    process = subprocess.Popen(
        [sys.executable, training_ranks.__file__, str(base), str(processes)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        workers = [psutil.Process(int(pid)) for pid in process.stdout.readline().split()]
        assert len(workers) == processes - 1, process.communicate()[1]
        yield process, workers
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.mark.slow
def test_workers_end_when_rank_0_is_killed(base: Path) -> None:
    with _program(base, 3) as (process, workers):
        process.kill()
        process.wait()
        _, alive = psutil.wait_procs(workers, timeout=20)
        assert not alive


@pytest.mark.slow
def test_ctrl_c_is_for_rank_0_alone(base: Path) -> None:
    with _program(base, 2) as (process, _):
        os.killpg(process.pid, signal.SIGINT)
        out, errors = process.communicate(timeout=60)
        assert (out, process.returncode) == ("closed\n", 0), errors


@pytest.mark.slow
def test_with_a_sharded_base_the_numbers_are_the_same_bits(base: Path, tmp_path: Path) -> None:
    """Also where a process has no pack, and still has to take part in every gathering of a layer."""
    expected, losses = (
        _train(base, tmp_path / str(shard), 2, 0.1, shard=shard, group_tokens=200) for shard in (False, True)
    )
    assert losses == expected
    saved, others = (load_checkpoint(tmp_path / str(shard) / "checkpoints") for shard in (False, True))
    assert saved is not None and others is not None
    assert all(torch.equal(others[1][name], value) for name, value in saved[1].items())


def _torchrun(processes: int, *program: str) -> str:
    """What a program prints that torchrun starts so many times."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    done = subprocess.run([*torchrun, *program], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_torchrun_starts_the_processes_as_well(base: Path) -> None:
    lines = _torchrun(3, training_ranks.__file__, str(base), "3", "2").splitlines()
    found = [float(line.split()[1]) for line in lines if line.startswith("loss ")]
    with _engine(base, 1) as engine:
        assert found == pytest.approx([step(engine, number) for number in range(2)], rel=EQUAL)


@pytest.mark.slow
def test_a_command_of_torchrun_that_does_not_train_ends_all_processes() -> None:
    assert _torchrun(2, "-m", "journeyman.training.worker", "--version").startswith("journeyman ")


def test_another_number_of_torchruns_processes_is_refused(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    with pytest.raises(UsageError, match="started 3 processes for 2 devices"):
        on_several_devices(replica(base), ["cpu", "cpu"])
