"""Several adapters on one frozen base in one batch: each gets what it gets alone, whatever the others do."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf import GGMLQuantizationType
from torch import Tensor

from conftest import write_tiny_gguf
from journeyman.config import TrainConfig
from journeyman.errors import Interrupted, TrainingDiverged
from journeyman.models.gguf_file import GgufFile
from journeyman.protocols import Reporter, SilentReporter
from journeyman.sizing.memory import MemoryWay
from journeyman.training.backends import Backend, DecoderBackend
from journeyman.training.batches import Pack
from journeyman.training.checkpoint import load_checkpoint
from journeyman.training.joint_choice import Together, Way
from journeyman.training.joint_training import train_jointly, train_together
from journeyman.training.loop import TrainingJob
from journeyman.training.persisting import train_to_the_end
from training_ranks import rows

TOLERANCE = 1e-5
"""Of losses, relative, and of a matrix's change in training. Only the frozen products are computed in other shapes."""

RECIPES: Mapping[str, Mapping[str, Any]] = {
    "plain": {"lora": {"rank": 4, "alpha": 8}},
    "attention": {"lora": {"rank": 2, "alpha": 8, "targets": ["q_proj", "v_proj"]}, "learning_rate": 1e-3, "epochs": 3},
    "dropout": {"lora": {"rank": 5, "alpha": 5, "dropout": 0.2}, "batch_size": 3, "seed": 7},
    "ffn": {"lora": {"rank": 3, "alpha": 6, "targets": ["down_proj"]}, "weight_decay": 0.01, "batch_size": 5},
}


def _config(name: str) -> TrainConfig:
    common = {"epochs": 2, "batch_size": 4, "learning_rate": 3e-3, "warmup_steps": 2, "precision": "float32"}
    return TrainConfig.model_validate({**common, **RECIPES[name]})


def _jobs(folder: Path, *names: str) -> dict[str, TrainingJob]:
    """Jobs of different recipes, rows and packs."""
    sizes = {"plain": 9, "attention": 7, "dropout": 8, "ffn": 10}
    return {
        name: TrainingJob(
            rows(sizes[name], place), rows(3, 50 + place), _config(name), "f", folder / name / "checkpoints",
            pack_tokens=60 + 40 * place, group_tokens=130,
        )
        for place, name in enumerate(names or RECIPES)
    }  # fmt: skip


class _Base:
    """A backend of a tiny base, and what was trained with it."""

    def __init__(self, folder: Path, memory: MemoryWay = "keep") -> None:
        file = GgufFile(write_tiny_gguf(folder / "m.gguf", "qwen2"))
        self.backend = DecoderBackend(file, _config("plain"), memory, None)

    def alone(self, jobs: Mapping[str, TrainingJob]) -> dict[str, _Made]:
        return {
            name: _train(jobs)(self.backend.with_config(job.config), name, SilentReporter())
            for name, job in jobs.items()
        }

    def together(
        self, jobs: Mapping[str, TrainingJob], at_once: int = 9, most_tokens: int = 1000,
        train: Callable[..., Any] | None = None, reporter: Reporter | None = None, way: Way = "batch",
    ) -> dict[str, Any]:  # fmt: skip
        choice = Together(at_once, way, most_tokens, 1.0, 0)
        return train_together(self.backend, jobs, choice, reporter or SilentReporter(), train or _train(jobs))


_Made = tuple[list[dict[str, float]], dict[str, Tensor], dict[str, Tensor]]
"""The lines of the metrics, the best adapter and the last."""


def _train(jobs: Mapping[str, TrainingJob]) -> Callable[[Backend, str, Reporter], _Made]:
    def train(backend: Backend, name: str, reporter: Reporter) -> _Made:
        job = jobs[name]
        trainer, _ = train_to_the_end(backend, job, reporter)
        lines = (job.folder.parent / "metrics.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines], trainer.best, trainer.engine.adapter()

    return train


def _assert_same(made: Mapping[str, _Made], expected: Mapping[str, _Made]) -> None:
    assert made.keys() == expected.keys()
    for name, (lines, *adapters) in expected.items():
        ours, *our_adapters = made[name]
        for key in ("loss", "validation_loss", "gradient_norm", "learning_rate", "tokens"):
            values = [line[key] for line in lines if key in line]
            assert [line[key] for line in ours if key in line] == pytest.approx(values, rel=TOLERANCE), (name, key)
        for mine, theirs in zip(our_adapters, adapters, strict=True):
            assert mine.keys() == theirs.keys()
            for tensor, value in theirs.items():
                assert (mine[tensor] - value).norm() <= TOLERANCE * value.norm(), (name, tensor)


@pytest.mark.parametrize("memory", ["keep", "recompute", "stream"])
def test_each_adapter_is_what_it_is_alone(memory: MemoryWay, tmp_path: Path) -> None:
    base = _Base(tmp_path, memory)
    expected = base.alone(_jobs(tmp_path / "alone"))
    assert len({len(lines) for lines, *_ in expected.values()}) > 2, "they end at different times"
    _assert_same(base.together(_jobs(tmp_path / "together")), expected)
    _assert_same(base.together(_jobs(tmp_path / "two"), at_once=2, most_tokens=150), expected)


@pytest.mark.parametrize("memory", ["keep", "recompute"])
def test_each_on_some_of_the_cores(memory: MemoryWay, tmp_path: Path) -> None:
    base, threads = _Base(tmp_path, memory), torch.get_num_threads()
    jobs, used = _jobs(tmp_path / "together"), set[int]()

    def train(backend: Backend, name: str, reporter: Reporter) -> Any:
        made = _train(jobs)(backend, name, reporter)
        used.add(torch.get_num_threads())
        return made

    torch.set_num_threads(2)
    try:
        made = base.together(jobs, at_once=2, way="cores", train=train)
        assert used == {1}
        assert torch.get_num_threads() == 2, "as before"
        _assert_same(made, base.alone(_jobs(tmp_path / "alone")))
    finally:
        torch.set_num_threads(threads)


def test_the_passes_are_gathered(tmp_path: Path) -> None:
    base, passes = _Base(tmp_path), list[int]()
    operations = base.backend.decoder.operations
    attend = operations.attend

    def counted(q: Tensor, *others: Any) -> Tensor:
        if torch.is_grad_enabled():
            passes.append(len(q))
        return attend(q, *others)

    operations.attend = counted  # type: ignore[method-assign]
    base.alone(_jobs(tmp_path / "alone"))
    alone, passes[:] = list(passes), []
    base.together(_jobs(tmp_path / "together"))
    assert sum(passes) == sum(alone), "the same tokens"
    assert len(passes) < 0.6 * len(alone)


def test_a_pack_has_no_field_that_is_lost_when_packs_become_one() -> None:
    joined = {"ids_T", "lengths", "prefixes", "source_L", "labels_L", "weights_L", "row_tokens"}
    assert {one.name for one in fields(Pack)} == joined, "training.joint_packs puts these together"


def test_an_adapter_that_diverges_ends_alone(tmp_path: Path) -> None:
    base = _Base(tmp_path)
    expected = base.alone(_jobs(tmp_path / "alone"))
    jobs = _jobs(tmp_path / "together")
    broken = rows(9)
    broken[3] = replace(broken[3], weight=float("inf"))
    jobs["plain"] = replace(jobs["plain"], train=broken)

    def train(backend: Backend, name: str, reporter: Reporter) -> Any:
        try:
            return _train(jobs)(backend, name, reporter)
        except TrainingDiverged as error:
            return error

    made = base.together(jobs, train=train)
    assert isinstance(made.pop("plain"), TrainingDiverged)
    del expected["plain"]
    _assert_same(made, expected)


def test_an_error_of_one_stops_the_others_which_save(tmp_path: Path) -> None:
    base, jobs = _Base(tmp_path), _jobs(tmp_path)

    def train(backend: Backend, name: str, reporter: Reporter) -> Any:
        if name == "dropout":
            raise TrainingDiverged("before its engine was made")
        return _train(jobs)(backend, name, reporter)

    with pytest.raises(TrainingDiverged, match="before its engine"):
        base.together(jobs, train=train)
    for name in ("plain", "attention", "ffn"):
        assert load_checkpoint(jobs[name].folder) is not None


def test_an_error_of_a_pass_is_that_of_all_its_loops(tmp_path: Path) -> None:
    base, jobs = _Base(tmp_path), _jobs(tmp_path)

    def scarce(*_: Any) -> Tensor:
        raise MemoryError

    base.backend.decoder.operations.attend = scarce  # type: ignore[method-assign]
    with pytest.raises(MemoryError):
        base.together(jobs)


class _StopsAt(SilentReporter):
    """Stops a job after a share of its tokens."""

    def __init__(self, share: float) -> None:
        self._share, self._most = share, 0.0

    def begin(self, task: str, total: float, unit: str) -> None:
        self._most = self._share * total if task == "train" else total

    def advance(self, done: float, note: str = "") -> None:
        self.stop_requested = self.stop_requested or done > self._most


@pytest.mark.parametrize("resumed_alone", [False, True])
def test_some_stop_within_a_pass_and_resume(resumed_alone: bool, tmp_path: Path) -> None:
    base = _Base(tmp_path)
    expected = base.alone(_jobs(tmp_path / "alone"))
    jobs = _jobs(tmp_path / "together")

    def train(backend: Backend, name: str, reporter: Reporter) -> Any:
        try:
            return _train(jobs)(backend, name, _StopsAt(0.45) if name in ("dropout", "plain") else reporter)
        except Interrupted:
            return None

    made = base.together(jobs, train=train)
    left = {name: job for name, job in jobs.items() if made[name] is None}
    assert left.keys() == {"plain", "dropout"}
    assert all(0 < checkpoint[0].step < 4 for job in left.values() if (checkpoint := load_checkpoint(job.folder)))
    _assert_same(made | (base.alone(left) if resumed_alone else base.together(left)), expected)


def test_a_run_alone_is_resumed_together(tmp_path: Path) -> None:
    base = _Base(tmp_path)
    expected = base.alone(_jobs(tmp_path / "alone"))
    jobs = _jobs(tmp_path / "together")
    with pytest.raises(Interrupted):
        _train(jobs)(base.backend.with_config(jobs["dropout"].config), "dropout", _StopsAt(0.6))
    _assert_same(base.together(jobs), expected)


def test_a_stop_reaches_loops_that_wait_for_another(tmp_path: Path) -> None:
    base, jobs, reporter = _Base(tmp_path), _jobs(tmp_path), SilentReporter()
    ended = threading.Semaphore(0)

    def train(backend: Backend, name: str, voice: Reporter) -> Any:
        if name == "ffn":  # has a seat, so that the others wait for it
            reporter.stop_requested = True
            for _ in range(3):
                assert ended.acquire(timeout=30)
            raise Interrupted("the last one")
        try:
            return _train(jobs)(backend, name, voice)
        finally:
            ended.release()

    with pytest.raises(Interrupted):
        base.together(jobs, train=train, reporter=reporter)


@pytest.mark.parametrize("seed", range(3))
def test_loops_that_are_late_or_stop_hold_nobody_up(seed: int, tmp_path: Path) -> None:
    base = _Base(tmp_path)
    jobs = {f"{name} {turn}": job for turn in range(2) for name, job in _jobs(tmp_path / f"together {turn}").items()}

    class Moody(SilentReporter):
        def __init__(self, name: str) -> None:
            self._mood = random.Random(f"{seed}/{name}")

        def advance(self, done: float, note: str = "") -> None:
            time.sleep(self._mood.choice([0, 0, 0, 0.002]))
            if self._mood.random() < 0.005:
                raise Interrupted("by a whim")

    def train(backend: Backend, name: str, reporter: Reporter) -> Any:
        time.sleep(random.Random(f"{seed}/{name}").random() / 50)
        try:
            return _train(jobs_of(name))(backend, name, Moody(name))
        except Interrupted:
            return None

    def jobs_of(name: str) -> Mapping[str, TrainingJob]:
        return {name: jobs[name]}

    made = base.together(jobs, at_once=3, train=train)
    stopped = {name: jobs[name] for name, one in made.items() if one is None}
    assert made.keys() == jobs.keys()
    assert 0 < len(stopped) < len(jobs)
    alone = {name: replace(job, folder=tmp_path / "alone" / name / "checkpoints") for name, job in jobs.items()}
    _assert_same(made | base.alone(stopped), base.alone(alone))


def test_progress_is_that_of_all(tmp_path: Path) -> None:
    base, jobs = _Base(tmp_path), _jobs(tmp_path)
    done: list[float] = []
    said: list[str] = []

    class Hears(SilentReporter):
        def advance(self, done_now: float, note: str = "") -> None:
            done.append(done_now)

        def say(self, text: str) -> None:
            said.append(text)

    base.together(jobs, reporter=Hears())
    assert done[-1] == sum(job.config.epochs * sum(len(row.ids) for row in job.train) for job in jobs.values())
    assert said[0] == "4 adapters are trained, 4 at the same time"


def test_a_base_of_quantized_blocks(tmp_path: Path) -> None:
    file, base = GgufFile(write_tiny_gguf(tmp_path / "q.gguf", kind=GGMLQuantizationType.Q4_K)), _Base(tmp_path)
    base.backend = DecoderBackend(file, _config("plain"), "stream", None)
    names = ("plain", "dropout")
    _assert_same(base.together(_jobs(tmp_path / "together", *names)), base.alone(_jobs(tmp_path / "alone", *names)))


def test_deterministic_adapters_of_several_recipes_are_trained_one_by_one(tmp_path: Path) -> None:
    base = _Base(tmp_path)
    expected = base.alone(_jobs(tmp_path / "alone"))
    jobs = {
        name: replace(job, config=job.config.model_copy(update={"deterministic": True}))
        for name, job in _jobs(tmp_path / "one by one").items()
    }
    made = train_jointly(base.backend, jobs, 1e9, SilentReporter(), _train(jobs))
    for name, (_, best, _) in expected.items():
        assert all(torch.equal(made[name][1][tensor], value) for tensor, value in best.items())
