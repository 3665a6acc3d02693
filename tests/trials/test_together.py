"""Trials that are trained together: the same adapters as alone, and one that fails does not end the others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from conftest import StopsAfter, log_row
from journeyman.config import LoraConfig, RetentionConfig, TrainConfig, load_config
from journeyman.errors import InputError, Interrupted, JourneymanError, TrainingDiverged
from journeyman.pipeline import run_pipeline
from journeyman.protocols import SilentReporter
from journeyman.runs import Run
from journeyman.training.cpu import CpuEngine
from journeyman.trials import together
from journeyman.trials.rows import rows_of
from journeyman.trials.together import train_trials
from journeyman.trials.training import train_trial


@pytest.fixture
def run(make_run: Callable[..., Path]) -> Run:
    rows = [log_row(number, role) for number in range(24) for role in ("coder", "tester")]
    folder = make_run(rows=rows)
    made = Run(folder, load_config(folder / "journeyman.toml"))
    list(run_pipeline(made, "curate", SilentReporter()))
    list(run_pipeline(made, "plan", SilentReporter()))
    return made


def _config(run: Run, **changes: Any) -> TrainConfig:
    return run.config.train.model_copy(update={"epochs": 1, **changes})


def _values(file: Path) -> dict[str, np.ndarray]:
    return {one.name: np.array(one.data, dtype=np.float64) for one in gguf.GGUFReader(file).tensors}


def test_adapters_are_those_that_each_trial_alone_gives(run: Run, tmp_path: Path) -> None:
    configs = [
        _config(run), _config(run, lora=LoraConfig(rank=8, alpha=8, targets=["q_proj", "v_proj"])),
        _config(run, adapters="per-role", learning_rate=3e-3, batch_size=8),
    ]  # fmt: skip
    rows = rows_of(run)
    made = train_trials(run, [(one, tmp_path / f"t{n}") for n, one in enumerate(configs)], rows, SilentReporter())
    for number, config in enumerate(configs):
        one = made[number]
        assert not isinstance(one, Exception)
        alone, files = train_trial(run, config, rows, tmp_path / f"alone{number}", SilentReporter())
        assert one[0].adapters.keys() == alone.adapters.keys()
        assert one[0].trainable_parameters == alone.trainable_parameters
        for name, file in files.items():
            assert one[0].adapters[name].steps == alone.adapters[name].steps
            assert one[0].adapters[name].best_loss == pytest.approx(alone.adapters[name].best_loss, rel=1e-3)
            mine, other = _values(one[1][name]), _values(file)
            assert mine.keys() == other.keys()
            assert all(np.allclose(mine[key], other[key], atol=2e-3) for key in mine)


def test_one_that_diverges_or_is_not_possible_does_not_end_the_others(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configs = [_config(run), _config(run, learning_rate=2e-2), _config(run, max_memory_gb=1e-6), _config(run, seed=1)]
    real = together.train_job

    def diverges(backend: Any, job: Any, *rest: Any) -> Any:
        if job.config.learning_rate == 2e-2:
            raise TrainingDiverged("the loss is NaN")
        return real(backend, job, *rest)

    monkeypatch.setattr(together, "train_job", diverges)
    trials = [(one, tmp_path / f"t{n}") for n, one in enumerate(configs)]
    made = train_trials(run, trials, rows_of(run), SilentReporter())
    assert [type(one) is tuple for one in made] == [True, False, False, True]
    assert isinstance(made[1], TrainingDiverged)
    assert isinstance(made[2], JourneymanError)


NO_MEMORY = RuntimeError("[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory")


@pytest.mark.parametrize("error", [InputError("no room for both"), NO_MEMORY, MemoryError()])
def test_what_cannot_be_trained_together_is_trained_alone(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fails(*arguments: Any) -> None:
        raise error

    monkeypatch.setattr(together, "train_jointly", fails)
    trials = [(_config(run), tmp_path / "a"), (_config(run, seed=1), tmp_path / "b")]
    made = train_trials(run, trials, rows_of(run), SilentReporter())
    assert all(type(one) is tuple for one in made)


def test_a_trial_for_which_torch_has_too_little_memory_does_not_end_the_others(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = CpuEngine.gradients

    def fails(self: CpuEngine, *arguments: Any) -> float:
        if self._adapter.config.rank == 8:
            raise NO_MEMORY
        return real(self, *arguments)

    monkeypatch.setattr(CpuEngine, "gradients", fails)
    monkeypatch.setattr(together, "train_jointly", lambda *arguments: fails_together())

    def fails_together() -> None:
        raise NO_MEMORY

    large = _config(run, lora=LoraConfig(rank=8, alpha=8, targets=["q_proj", "v_proj"]))
    made = train_trials(run, [(_config(run), tmp_path / "a"), (large, tmp_path / "b")], rows_of(run), SilentReporter())
    assert type(made[0]) is tuple
    assert isinstance(made[1], MemoryError)


def test_after_a_stop_the_same_call_goes_on(run: Run, tmp_path: Path) -> None:
    trials = [(_config(run, epochs=3), tmp_path / "a"), (_config(run, epochs=3, seed=1), tmp_path / "b")]
    rows = rows_of(run)
    with pytest.raises(Interrupted):
        train_trials(run, trials, rows, StopsAfter(4))
    made = train_trials(run, trials, rows, SilentReporter())
    for one, (config, _) in zip(made, trials, strict=True):
        assert not isinstance(one, Exception)
        alone, _ = train_trial(run, config, rows, tmp_path / f"alone{config.seed}", SilentReporter())
        assert one[0].adapters["all"].best_loss == pytest.approx(alone.adapters["all"].best_loss, rel=1e-3)


def test_the_base_is_asked_once_for_the_general_rows_of_all_trials(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from journeyman.trials import training

    asked: list[Path] = []
    real = training.general_file

    def counted(run: Run, config: Any, rows: Any, out: Path, reporter: Any) -> Path | None:
        if not (out / "general.jsonl").is_file():
            asked.append(out)
            (out / "general.jsonl").write_text("")  # the base gives no answer that can be trained
        return real(run, config, rows, out, reporter)

    monkeypatch.setattr(training, "general_file", counted)
    beside = RetentionConfig(share=0.25, max_tokens=8)
    configs = [_config(run, retention=beside, batch_size=size) for size in (2, 4, 8)]
    trials = [(one, tmp_path / f"t{n}") for n, one in enumerate(configs)]
    made = train_trials(run, trials, rows_of(run), SilentReporter())
    assert all(type(one) is tuple for one in made)
    assert [out.parent for out in asked] == [tmp_path / "t0"]


def test_general_rows_of_other_prompts_are_made_anew(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from journeyman.trials import training

    asked: list[Path] = []
    real = training.general_file

    def counted(run: Run, config: Any, rows: Any, out: Path, reporter: Any) -> Path | None:
        if not (out / "general.jsonl").is_file():
            asked.append(out)
            (out / "general.jsonl").write_text("")
        return real(run, config, rows, out, reporter)

    monkeypatch.setattr(training, "general_file", counted)
    config = _config(run, retention=RetentionConfig(share=0.25, max_tokens=8, prompts="mine.txt"))
    for prompts in ("What is a lake?\n", "What is a lake?\n", "Where is it?\n"):
        (run.root / "mine.txt").write_text(prompts)
        train_trial(run, config, rows_of(run), tmp_path / "t", SilentReporter())
    assert len(asked) == 2
