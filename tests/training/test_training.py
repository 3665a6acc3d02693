"""The training loop: gradients, packing, learning, and bit-identical resumption."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from conftest import write_tiny_gguf
from journeyman.config import LoraConfig, TrainConfig
from journeyman.errors import Interrupted, NoGo, StaleArtifact, TrainingDiverged
from journeyman.models.geometry import Geometry
from journeyman.models.gguf_file import GgufFile
from journeyman.models.loss import label_loss
from journeyman.models.weights import load_decoder
from journeyman.protocols import Reporter, SilentReporter
from journeyman.reasons.planning import TrainingDoesNotFit
from journeyman.rendering.renderer import Rendered
from journeyman.sizing.memory_choice import MemoryChoice
from journeyman.training.batches import pack, rows_of_step
from journeyman.training.checkpoint import checkpoints, damaged_files, load_checkpoint
from journeyman.training.cpu import CpuEngine
from journeyman.training.gradients import AdaptedPack, keep, loss_only, pack_loss, recompute
from journeyman.training.loop import Trainer, TrainingJob, learning_rate
from journeyman.training.lora import Adapter
from journeyman.training.metrics import Metrics
from journeyman.training.placement import Workload, memory_on_processor


def _rows(count: int) -> list[Rendered]:
    generator = torch.Generator().manual_seed(count)
    rows = []
    for number in range(count):
        length = 12 + number % 5
        rows.append(Rendered([*torch.randint(3, 200, (length,), generator=generator).tolist()[:-1], 2], 5))
    return rows


def _job(tiny_gguf: Path, folder: Path, **settings: object) -> TrainingJob:
    values = {"epochs": 2, "batch_size": 4, "learning_rate": 1e-2, "warmup_steps": 2, "precision": "float32"}
    packs = {"pack_tokens": settings.pop("pack_tokens")} if "pack_tokens" in settings else {}
    config = TrainConfig.model_validate({**values, "lora": {"rank": 4, "dropout": 0.1}, **settings})
    return TrainingJob(_rows(24), _rows(6), config, "same", folder / "checkpoints", **packs)


def _engine(tiny_gguf: Path, job: TrainingJob, recompute: bool = False) -> CpuEngine:
    return CpuEngine(load_decoder(GgufFile(tiny_gguf), torch.float32), job.config, recompute=recompute)


def _trainer(tiny_gguf: Path, job: TrainingJob, reporter: Reporter, recompute: bool = False) -> Trainer:
    return Trainer(job, _engine(tiny_gguf, job, recompute), reporter)


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


def test_packing_does_not_change_the_gradient(tiny_gguf: Path) -> None:
    gradients = []
    for pack_tokens in (16, 4096):
        decoder = load_decoder(GgufFile(tiny_gguf), torch.float32)
        adapter = Adapter(decoder.geometry, LoraConfig(rank=4), seed=0)
        with torch.no_grad():
            for value in adapter.parameters.values():
                value.fill_(0.02)
        for one in pack(_rows(7), pack_tokens):
            pack_loss(decoder, AdaptedPack(one, adapter.layers())).backward()
        gradients.append([value.grad for value in adapter.parameters.values()])
    assert all(torch.allclose(a, b, rtol=1e-3, atol=1e-5) for a, b in zip(*gradients, strict=True))


def test_progress_moves_within_a_step_and_never_back(tiny_gguf: Path, tmp_path: Path) -> None:
    class Recorder(SilentReporter):
        def __init__(self) -> None:
            self.seen: list[float] = []
            self.task = ""

        def begin(self, task: str, total: float, unit: str) -> None:
            self.task = task

        def advance(self, done: float, note: str = "") -> None:
            if self.task == "train":
                self.seen.append(done)

    recorder = Recorder()
    trainer = _trainer(tiny_gguf, _job(tiny_gguf, tmp_path, epochs=1), recorder)
    trainer.run()
    assert recorder.seen == sorted(recorder.seen)
    assert len(set(recorder.seen)) >= 4 * trainer.total_steps - 1, "two layers, forward and backward, in each step"
    assert recorder.seen[-1] <= trainer.total_tokens


def test_every_row_is_taken_once_an_epoch() -> None:
    for epoch in range(2):
        taken = [row for step in range(epoch * 4, epoch * 4 + 4) for row in rows_of_step(step, 14, 4, seed=3)]
        assert sorted(taken) == list(range(14))


@pytest.mark.slow
def test_training_learns_and_keeps_the_best(tiny_gguf: Path, tmp_path: Path) -> None:
    job = _job(tiny_gguf, tmp_path, epochs=12, patience=50)
    job = replace(job, val=job.train[:6])
    state = _trainer(tiny_gguf, job, SilentReporter()).run()
    losses = [point.loss for point in state.validations]
    assert min(losses) < 0.8 * losses[0]
    assert state.best_step == next(p.step for p in state.validations if p.loss == min(losses))


def test_it_stops_early_where_validation_does_not_gain(tiny_gguf: Path, tmp_path: Path) -> None:
    state = _trainer(
        tiny_gguf, _job(tiny_gguf, tmp_path, epochs=40, patience=2, learning_rate=0.05), SilentReporter()
    ).run()
    assert state.step < 40 * 6
    assert sum(point.step > state.best_step for point in state.validations) == 2


class _StopAt(SilentReporter):
    """Requests a stop at the n-th check."""

    def __init__(self, looks: int) -> None:
        self.looks = looks

    @property
    def stop_requested(self) -> bool:  # type: ignore[override]
        self.looks -= 1
        return self.looks < 0


@pytest.mark.slow
@pytest.mark.parametrize("recompute", [False, True])
def test_a_stopped_run_resumes_bit_for_bit(tiny_gguf: Path, tmp_path: Path, recompute: bool) -> None:
    """Stopped repeatedly: in validation, between packs, and in the middle of forward and backward passes."""
    whole = _trainer(tiny_gguf, _job(tiny_gguf, tmp_path / "whole", pack_tokens=32), SilentReporter())
    whole.run()
    job = replace(_job(tiny_gguf, tmp_path / "parts", pack_tokens=32), group_tokens=64)
    stops = 0
    for looks in itertools.cycle((7, 12, 16, 23, 31)):
        try:
            resumed = _trainer(tiny_gguf, job, _StopAt(looks), recompute)
            resumed.run()
            break
        except Interrupted:
            stops += 1
    assert stops >= 6
    for name, value in whole.best.items():
        assert torch.equal(value, resumed.best[name]), name


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_each_way_of_using_memory_makes_the_same_gradients(
    architecture: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    file = GgufFile(write_tiny_gguf(tmp_path / "m.gguf", architecture))
    packs = pack(_rows(9), 48)
    found = []
    for compute, stream in ((keep, False), (recompute, False), (recompute, True)):
        decoder = load_decoder(file, dtype, stream=stream)
        adapter = Adapter(decoder.geometry, LoraConfig(rank=4, dropout=0.2), seed=1)
        with torch.no_grad():
            for value in adapter.parameters.values():
                value.add_(0.03)
        told: list[float] = []
        parts = [AdaptedPack(one, adapter.layers(f"0/{number}")) for number, one in enumerate(packs)]
        loss = compute(decoder, parts, 100.0, told.append)
        assert told == sorted(told) and told[-1] == pytest.approx(sum(one.row_tokens for one in packs))
        plain = loss_only(decoder, [AdaptedPack(one, adapter.layers()) for one in packs], told.append)
        found.append((loss, plain, [value.grad for value in adapter.parameters.values()]))
    for loss, plain, gradients in found[1:]:
        assert (loss, plain) == found[0][:2]
        assert all(torch.equal(a, b) for a, b in zip(gradients, found[0][2], strict=True))


@pytest.mark.slow
def test_tensorboard_reads_what_metrics_tell(tiny_gguf: Path, tmp_path: Path) -> None:
    """Written by two consecutive runs, the first of which is stopped; read by TensorBoard's own reader."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    job = replace(_job(tiny_gguf, tmp_path), matrix_gflops=100.0)
    with pytest.raises(Interrupted):
        _trainer(tiny_gguf, job, _StopAt(60)).run()
    _trainer(tiny_gguf, job, SilentReporter()).run()
    read = EventAccumulator(str(tmp_path / "tensorboard"))
    read.Reload()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    for curve, key in (("loss/train", "loss"), ("loss/validation", "validation_loss"), ("memory_gb", "memory_gb")):
        told = [(line["step"], line[key]) for line in lines if key in line]
        assert [(event.step, pytest.approx(event.value)) for event in read.Scalars(curve)] == told
    steps = [line for line in lines if "loss" in line]
    assert all(line["matrix_share"] > 0 and line["tokens_per_s"] > 0 and line["gradient_norm"] > 0 for line in steps)


def test_a_loss_that_runs_away_stops_the_run(tiny_gguf: Path, tmp_path: Path) -> None:
    trainer = _trainer(tiny_gguf, _job(tiny_gguf, tmp_path), SilentReporter())
    for loss in (1.0, 9.0, 1.2, 0.9, 0.8, 9.0, 2.9, 2.8, 0.5, 9.0, 3.3):
        trainer._refuse_runaway(loss, 1.0, [7])
    with pytest.raises(TrainingDiverged, match=r"from 1.00 in the first 5 steps to 3.30 in the last 5; rows \[7\]"):
        trainer._refuse_runaway(3.4, 1.0, [7])
    named = _trainer(tiny_gguf, replace(trainer.job, names=["a", "b", "line 1 of general.jsonl"]), SilentReporter())
    with pytest.raises(TrainingDiverged, match=r"rows b, line 1 of general\.jsonl"):
        named._refuse_runaway(float("nan"), 1.0, [1, 2])


def test_a_gain_below_the_least_gain_is_none(tiny_gguf: Path, tmp_path: Path) -> None:
    state = _trainer(tiny_gguf, _job(tiny_gguf, tmp_path, epochs=40, patience=2, min_gain=5.0), SilentReporter()).run()
    assert [point.step for point in state.validations] == [0, 3, 6]
    assert state.best_step != 0, "the best is kept all the same"


def test_a_checkpoint_of_another_run_is_refused(tiny_gguf: Path, tmp_path: Path) -> None:
    job = _job(tiny_gguf, tmp_path)
    _trainer(tiny_gguf, job, SilentReporter()).run()
    other = replace(job, fingerprint="another")
    with pytest.raises(StaleArtifact, match="another run"):
        _trainer(tiny_gguf, other, SilentReporter()).run()


def test_a_checkpoint_beyond_the_last_step_is_refused(tiny_gguf: Path, tmp_path: Path) -> None:
    job = _job(tiny_gguf, tmp_path)
    _trainer(tiny_gguf, job, SilentReporter()).run()
    with pytest.raises(StaleArtifact, match="of step 12, and training has 6 steps"):
        _trainer(tiny_gguf, replace(job, train=job.train[:12]), SilentReporter()).run()


def test_a_damaged_checkpoint_falls_back_to_the_one_before(tiny_gguf: Path, tmp_path: Path) -> None:
    job = _job(tiny_gguf, tmp_path, checkpoint_s=1e-6)
    _trainer(tiny_gguf, job, SilentReporter()).run()
    newest, before = sorted(job.folder.glob("step-*"), reverse=True)[:2]
    with (newest / "state.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\xff")
    loaded = load_checkpoint(job.folder)
    assert loaded is not None and before.name.startswith(f"step-{loaded[0].step:06d}.")


def test_odd_checkpoint_folders_and_changed_states_are_passed_over(tiny_gguf: Path, tmp_path: Path) -> None:
    job = _job(tiny_gguf, tmp_path, checkpoint_s=1e-6)
    _trainer(tiny_gguf, job, SilentReporter()).run()
    newest, before = sorted(job.folder.glob("step-*"), reverse=True)[:2]
    for name in ("step-x.1", "step-999999", "step-1.2.3", "step-.", "step-99999999999999999999.1", "step-²²²²²².1"):
        (job.folder / name).mkdir()
    (job.folder / "step-999999.9").write_text("no folder")
    (job.folder / "step-999998.1").mkdir()
    (job.folder / "step-999997.1").mkdir()
    (job.folder / "step-999997.1" / "state.json").write_text("[" * 99_999)
    assert [path.name for path in checkpoints(job.folder)][:3] == ["step-999998.1", "step-999997.1", newest.name]
    state = newest / "state.json"
    sound = state.read_bytes()
    loaded = load_checkpoint(job.folder)
    assert loaded is not None and newest.name.startswith(f"step-{loaded[0].step:06d}.")
    for old, new in ((b'"tokens": ', b'"tokens": 1'), (b"{\n  ", b"{\n   "), (b'"state_sha256"', b'"state_sha255"')):
        state.write_bytes(sound.replace(old, new, 1))
        assert damaged_files(newest) == [state]
        loaded = load_checkpoint(job.folder)
        assert loaded is not None and before.name.startswith(f"step-{loaded[0].step:06d}.")
    state.write_bytes(re.sub(rb'"state_sha256": "[0-9a-f]+"', b'"state_sha256": ""', sound))
    assert damaged_files(newest) == [], "written by an older version"


def test_metrics_that_a_hand_has_damaged_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1, "loss": 2.0}\ngarbage}\n[1]\n{"stop": 2}\n\xff}\n{"step": "3"}\n{"step": 9}\n')
    Metrics(tmp_path, 3, 3).close()
    assert path.read_text() == '{"step": 1, "loss": 2.0}\n'


def test_a_loss_that_is_not_a_number_names_step_and_rows(tiny_gguf: Path, tmp_path: Path) -> None:
    job = _job(tiny_gguf, tmp_path)
    decoder = load_decoder(GgufFile(tiny_gguf), torch.float32)
    decoder.weights.norm.fill_(float("nan"))
    with pytest.raises(TrainingDiverged, match=r"step 1: loss nan.*rows \["):
        Trainer(job, CpuEngine(decoder, job.config), SilentReporter()).run()


@pytest.mark.slow
def test_killed_runs_end_with_the_same_adapter() -> None:
    """kill -9 at ten random moments; `python tools/kill_and_resume.py` does a hundred."""
    script = Path(__file__).parents[2] / "tools" / "kill_and_resume.py"
    done = subprocess.run([sys.executable, script, "--kills", "10"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "10 kills" in done.stdout and "identical" in done.stdout


def test_warm_up_rises_and_the_schedule_falls_to_zero() -> None:
    config = TrainConfig(warmup_steps=4, learning_rate=1.0)
    rates = [learning_rate(step, 20, config) for step in range(20)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert all(a >= b for a, b in itertools.pairwise(rates[3:])) and rates[-1] < 0.02


def test_memory_is_used_in_the_first_way_that_fits() -> None:
    """Qwen2.5-7B: all weights in memory if there is enough, streamed with 10 GB, refused with 3."""
    geometry = Geometry(
        "qwen2",
        28,
        3584,
        28,
        4,
        128,
        18944,
        152064,
        32768,
        1e6,
        1e-6,
        tied_head=False,
        biases=("q_proj", "k_proj", "v_proj"),
    )

    def chosen(limit_gb: float, prompt_tokens: float = 90.0, **settings: object) -> MemoryChoice:
        config = TrainConfig.model_validate({"max_memory_gb": limit_gb, **settings})
        return memory_on_processor(Workload(geometry, 20_000_000, 700, 8560, prompt_tokens), 2, config)

    assert [chosen(limit).way for limit in (60, 25, 10)] == ["keep", "recompute", "stream"]
    assert chosen(60, memory="stream").way == "stream"
    assert 2048 <= chosen(6.5).group_tokens < chosen(10).group_tokens <= 4 * 2048, "more memory, larger groups"
    assert all(chosen(limit).bytes <= limit * 1e9 for limit in (60, 25, 10, 6.5))
    assert [chosen(limit, 90.0).pack_tokens for limit in (150, 60)] == [2048, 2048]
    assert [chosen(limit, 900.0).pack_tokens for limit in (200, 50, 40)] == [8192, 4096, 2048], (
        "long prompts are shared"
    )
    assert chosen(200, 900.0, pack_tokens=1000).pack_tokens == 1000
    with pytest.raises(NoGo, match=r"does not fit in 3.0 GB .GB needed: keep \d.*recompute \d.*stream \d") as refused:
        chosen(3)
    why = refused.value.reason
    assert isinstance(why, TrainingDoesNotFit) and why.limit_gb == 3 and (why.stream_gb or 0) > 3
    with pytest.raises(NoGo) as refused:
        chosen(3, memory="keep")
    assert refused.value.reason.details["stream_gb"] is None, "not tried"
