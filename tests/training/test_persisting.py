"""Training goes on after machines were lost, from the last checkpoint, and gives up if that does not help."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from conftest import write_tiny_gguf
from journeyman.errors import WorkerDied
from journeyman.models.decoder import Decoder
from journeyman.models.gguf_file import GgufFile
from journeyman.models.weights import load_decoder
from journeyman.protocols import SilentReporter
from journeyman.training.backends import Backend
from journeyman.training.cpu import CpuEngine
from journeyman.training.engine import TrainingEngine, WorkersLost
from journeyman.training.loop import TrainingJob
from journeyman.training.persisting import train_to_the_end
from training_ranks import config, rows


class _Losing(CpuEngine):
    """Loses its workers at some step of its own."""

    def __init__(self, decoder: Decoder, after: int) -> None:
        super().__init__(decoder, config())
        self._after = after

    def step(self, learning_rate: float) -> None:
        if self._after == 0:
            raise WorkersLost("node b was lost", "run it again")
        self._after -= 1
        super().step(learning_rate)


class _Backend:
    """Its engines lose their workers after so many steps each."""

    def __init__(self, folder: Path, *after: int, machines: int = 1) -> None:
        self._decoder = load_decoder(GgufFile(write_tiny_gguf(folder / "m.gguf")), torch.float32)
        self._after, self.machines = list(after), machines

    def engine(self) -> TrainingEngine:
        return _Losing(self._decoder, self._after.pop(0) if self._after else 10**9)

    def write(self, adapter: Mapping[str, Tensor], folder: Path) -> None: ...

    def peak_memory_bytes(self) -> None: ...

    def parts(self, *_: object) -> Sequence[Backend]:
        return ()

    def close(self) -> None: ...


class _Reporter(SilentReporter):
    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


def _train(backend: _Backend, folder: Path, reporter: _Reporter) -> tuple[list[float], dict[str, Tensor]]:
    settings = config().model_copy(update={"checkpoint_steps": 2})
    job = TrainingJob(rows(30), rows(7, seed=9), settings, "f", folder / "checkpoints", 50, 60)
    trainer, state = train_to_the_end(backend, job, reporter)
    assert state.step == trainer.total_steps
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line], trainer.best


def test_the_result_is_that_of_a_run_without_losses(tmp_path: Path) -> None:
    expected = _train(_Backend(tmp_path), tmp_path / "whole", _Reporter())
    reporter = _Reporter()
    made = _train(_Backend(tmp_path, 0, 5, 2), tmp_path / "parts", reporter)
    assert made[0] == expected[0]
    assert all(torch.equal(value, made[1][name]) for name, value in expected[1].items())
    told = [line for line in reporter.said if "lost" in line or "resumed" in line]
    assert told == [
        "node b was lost, after step 0: training goes on from the last checkpoint",
        "node b was lost, after step 5: training goes on from the last checkpoint",
        "resumed after step 4 of 10",
        "node b was lost, after step 6: training goes on from the last checkpoint",
        "resumed after step 6 of 10",
    ]


def test_losses_without_progress_end_the_run(tmp_path: Path) -> None:
    with pytest.raises(WorkerDied, match="for the 5th time before it got beyond step 3"):
        _train(_Backend(tmp_path, 3, *[1] * 9), tmp_path / "run", _Reporter())


def test_more_machines_get_more_packs_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    accumulate = _Losing.accumulate
    monkeypatch.setattr(
        _Losing, "accumulate", lambda self, packs, *rest: sizes.append(len(packs)) or accumulate(self, packs, *rest)
    )
    for machines in (1, 3):
        _train(_Backend(tmp_path, machines=machines), tmp_path / str(machines), _Reporter())
        sizes.append(0)
    alone, several = sizes[: sizes.index(0)], sizes[sizes.index(0) + 1 : -1]
    assert max(alone) <= 2 < max(several)
    assert sum(alone) == sum(several)
