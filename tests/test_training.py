"""The loop: gradients, packing, learning, and resumption bit for bit."""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from journeyman.artifacts import sha256_of
from journeyman.config import TrainConfig
from journeyman.errors import InputError, Interrupted
from journeyman.models.gguf_file import GgufFile
from journeyman.models.loss import label_loss
from journeyman.models.weights import load_decoder
from journeyman.ports import SilentReporter
from journeyman.rendering.renderer import Rendered
from journeyman.training.batches import pack, rows_of_step
from journeyman.training.checkpoint import load_checkpoint
from journeyman.training.loop import Trainer, TrainingJob, learning_rate


def _rows(count: int) -> list[Rendered]:
    generator = torch.Generator().manual_seed(count)
    rows = []
    for number in range(count):
        length = 12 + number % 5
        rows.append(Rendered([*torch.randint(3, 200, (length,), generator=generator).tolist()[:-1], 2], 5))
    return rows


def _job(tiny_gguf: Path, folder: Path, **settings: object) -> TrainingJob:
    values = {"epochs": 2, "batch_size": 4, "learning_rate": 1e-2, "warmup_steps": 2, "precision": "float32"}
    config = TrainConfig.model_validate({**values, "lora": {"rank": 4, "dropout": 0.1}, **settings})
    decoder = load_decoder(GgufFile(tiny_gguf), torch.float32)
    return TrainingJob(decoder, _rows(24), _rows(6), config, "same", folder / "checkpoints")


def test_label_loss_equals_cross_entropy_and_its_gradient() -> None:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(700, 16, generator=generator, requires_grad=True)
    head, labels = torch.randn(50, 16, generator=generator), torch.randint(0, 50, (700,), generator=generator)
    ours = label_loss(hidden, head, labels)
    (gradient,) = torch.autograd.grad(ours, hidden)
    theirs = F.cross_entropy(hidden @ head.T, labels, reduction="sum")
    (expected,) = torch.autograd.grad(theirs, hidden)
    assert torch.allclose(ours, theirs, rtol=1e-5)
    assert torch.allclose(gradient, expected, atol=1e-5)


def test_packing_does_not_change_the_gradient(tiny_gguf: Path, tmp_path: Path) -> None:
    gradients = []
    for pack_tokens in (16, 4096):
        trainer = Trainer(_job(tiny_gguf, tmp_path, lora={"rank": 4}), SilentReporter())
        with torch.no_grad():
            for value in trainer.adapter.parameters.values():
                value.fill_(0.02)
        for one in pack(_rows(7), pack_tokens):
            trainer._loss(one, training=True).backward()
        gradients.append([value.grad.clone() for value in trainer.adapter.parameters.values()])
    assert all(torch.allclose(a, b, rtol=1e-3, atol=1e-5) for a, b in zip(*gradients, strict=True))


def test_progress_moves_within_a_step_and_never_back(tiny_gguf: Path, tmp_path: Path) -> None:
    class Recorder(SilentReporter):
        def __init__(self) -> None:
            self.seen: list[float] = []

        def advance(self, done: float, note: str = "") -> None:
            self.seen.append(done)

    recorder = Recorder()
    trainer = Trainer(_job(tiny_gguf, tmp_path, epochs=1), recorder)
    trainer.run()
    assert recorder.seen == sorted(recorder.seen)
    assert len(set(recorder.seen)) >= 4 * trainer.total_steps - 1, "two layers, forward and backward, in each step"
    assert recorder.seen[-1] <= trainer.total_tokens


def test_every_row_is_taken_once_an_epoch() -> None:
    for epoch in range(2):
        taken = [row for step in range(epoch * 4, epoch * 4 + 4) for row in rows_of_step(step, 14, 4, seed=3)]
        assert sorted(taken) == list(range(14))


def test_training_learns_and_keeps_the_best(tiny_gguf: Path, tmp_path: Path) -> None:
    job = _job(tiny_gguf, tmp_path, epochs=12, patience=50)
    job = TrainingJob(job.decoder, job.train, job.train[:6], job.config, "same", job.folder)
    state = Trainer(job, SilentReporter()).run()
    losses = [point.loss for point in state.validations]
    assert min(losses) < 0.8 * losses[0]
    assert state.best_step == next(p.step for p in state.validations if p.loss == min(losses))


def test_it_stops_early_where_validation_does_not_gain(tiny_gguf: Path, tmp_path: Path) -> None:
    state = Trainer(_job(tiny_gguf, tmp_path, epochs=40, patience=2, learning_rate=0.05), SilentReporter()).run()
    assert state.step < 40 * 6
    assert sum(point.step > state.best_step for point in state.validations) == 2


class _StopAt(SilentReporter):
    """Asks to stop at the n-th look."""

    def __init__(self, looks: int) -> None:
        self.looks = looks

    @property
    def stop_requested(self) -> bool:  # type: ignore[override]
        self.looks -= 1
        return self.looks < 0


@pytest.mark.parametrize("looks", [1, 5, 9])
def test_a_stopped_run_resumes_bit_for_bit(tiny_gguf: Path, tmp_path: Path, looks: int) -> None:
    whole = Trainer(_job(tiny_gguf, tmp_path / "whole", pack_tokens=32), SilentReporter())
    whole.run()
    job = _job(tiny_gguf, tmp_path / "parts", pack_tokens=32)
    with pytest.raises(Interrupted):
        Trainer(job, _StopAt(looks)).run()
    resumed = Trainer(job, SilentReporter())
    resumed.run()
    for name, value in whole.adapter.parameters.items():
        assert torch.equal(value, resumed.adapter.parameters[name]), name


def test_a_checkpoint_of_another_run_is_refused(tiny_gguf: Path, tmp_path: Path) -> None:
    job = _job(tiny_gguf, tmp_path)
    Trainer(job, SilentReporter()).run()
    other = TrainingJob(job.decoder, job.train, job.val, job.config, "another", job.folder)
    with pytest.raises(InputError, match="another run"):
        Trainer(other, SilentReporter()).run()


def test_a_damaged_checkpoint_falls_back_to_the_one_before(tiny_gguf: Path, tmp_path: Path) -> None:
    job = _job(tiny_gguf, tmp_path, checkpoint_s=1e-6)
    Trainer(job, SilentReporter()).run()
    newest, before = sorted(job.folder.glob("step-*"), reverse=True)[:2]
    with (newest / "state.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\xff")
    loaded = load_checkpoint(job.folder)
    assert loaded is not None and f"step-{loaded[0].step:06d}" == before.name


def test_a_loss_that_is_not_a_number_names_step_and_rows(tiny_gguf: Path, tmp_path: Path) -> None:
    job = _job(tiny_gguf, tmp_path)
    job.decoder.weights.norm.fill_(float("nan"))
    with pytest.raises(InputError, match=r"step 1: loss nan.*rows \["):
        Trainer(job, SilentReporter()).run()


def test_killed_runs_end_with_the_same_adapter(make_run: Callable[..., Path]) -> None:
    """kill -9 at five moments in the middle of training; the adapter file is the uninterrupted one's."""
    whole, parts = make_run(name="whole"), make_run(name="parts")
    settings = ["--set", "train.checkpoint_s=0.01", "--set", "train.epochs=40", "--set", "train.patience=999"]
    command = [sys.executable, "-m", "journeyman", "train", *settings, "--dir"]
    subprocess.run([*command, str(whole)], check=True, capture_output=True)
    metrics, done = parts / "04-adapter" / "metrics.jsonl", parts / "04-adapter" / "manifest.json"
    for lines in (5, 30, 61, 90, 140):
        child = subprocess.Popen([*command, str(parts)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while child.poll() is None and not (metrics.is_file() and metrics.read_text().count("\n") >= lines):
            time.sleep(0.003)
        child.send_signal(signal.SIGKILL)
        child.wait()
        assert not done.exists(), "the kill must come before the end"
        assert list((parts / "04-adapter" / "checkpoints").glob("step-*"))
    subprocess.run([*command, str(parts)], check=True, capture_output=True)
    for name in ("adapter.gguf", "adapter_model.safetensors", "metrics.jsonl"):
        left, right = (folder / "04-adapter" / name for folder in (whole, parts))
        if name == "metrics.jsonl":
            steps = [[json.loads(line)["step"] for line in path.read_text().splitlines()] for path in (left, right)]
            assert steps[0] == steps[1], "no step is lost or told twice"
        else:
            assert sha256_of(left) == sha256_of(right)


def test_warm_up_rises_and_the_schedule_falls_to_zero() -> None:
    config = TrainConfig(warmup_steps=4, learning_rate=1.0)
    rates = [learning_rate(step, 20, config) for step in range(20)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert all(a >= b for a, b in itertools.pairwise(rates[3:])) and rates[-1] < 0.02
