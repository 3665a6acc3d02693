"""A plan that does not fit into memory: its page, and `--fit`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from journeyman.manifests import PlanManifest
from journeyman.reasons.planning import TrialOutOfMemory
from journeyman.runs import read_result, typed_result
from journeyman.training.backends import DecoderBackend
from test_pipeline import call

MakeRun = Callable[..., Path]
Captured = pytest.CaptureFixture[str]


def _plan(folder: Path) -> PlanManifest:
    return typed_result(folder, "plan", PlanManifest)


def _tight(folder: Path) -> list[str]:
    """Settings with a limit that the preferred mode exceeds, but a smaller pack does not."""
    assert call("plan", "--dir", folder, "--set", "train.memory=keep", "--set", "train.pack_tokens=16384") == 0
    large = _plan(folder).estimated_train_memory_gb
    assert call("plan", "--dir", folder, "--redo", "--set", "train.memory=keep", "--set", "train.pack_tokens=64") == 0
    limit = (large + _plan(folder).estimated_train_memory_gb) / 2
    flags = [f"train.max_memory_gb={limit}", "train.memory=keep", "train.pack_tokens=16384"]
    return [part for one in flags for part in ("--set", one)]


def test_the_page_lists_what_fits_and_fit_takes_the_first(make_run: MakeRun, capsys: Captured) -> None:
    folder = make_run(toml="")
    tight = _tight(folder)
    capsys.readouterr()
    assert call("plan", "--dir", folder, "--redo", *tight) == 3
    printed, page, plan = capsys.readouterr(), (folder / "03-plan" / "plan.md").read_text(), _plan(folder)
    assert [one.code for one in plan.errors] == ["training_does_not_fit"]
    assert page.rstrip().endswith("**no go: 1 error**") and "MEMORY" in printed.out
    first = plan.nearest[0]
    assert not first.needs_other_model and first.of == "training"
    limit = float(tight[1].partition("=")[2])
    assert all(one.memory_gb <= limit for one in plan.nearest if one.of == "training")
    assert f"1. {first.flags()}" in printed.out and "fits" not in printed.err
    assert first.flags() in printed.err and "--fit" in printed.err

    assert call("plan", "--dir", folder, *tight, "--fit") == 0
    told = capsys.readouterr().err
    assert f"--fit: for this run, {', '.join(first.overrides())}" in told
    fitted = _plan(folder)
    assert fitted.is_go and not fitted.nearest
    assert 0.95 * first.memory_gb < fitted.estimated_train_memory_gb <= first.memory_gb  # of the packs of these rows
    settings = [part for one in first.overrides() for part in ("--set", one)]
    assert call("plan", "--dir", folder, *tight, *settings) == 0, "the same as with --set: nothing is stale"
    assert "plan      unchanged" in capsys.readouterr().err


def _fitted_to_half(folder: Path) -> list[str]:
    """Flags with which only a smaller adapter fits: rank 512 of the tiny model needs more than the limit."""
    wide = ["--set", "train.lora.rank=512", "--set", "train.pack_tokens=64", "--set", "train.memory=keep"]
    assert call("plan", "--dir", folder, *wide) == 0
    large = _plan(folder).estimated_train_memory_gb
    assert call("plan", "--dir", folder, "--redo", *wide, "--set", "train.lora.rank=256") == 0
    return [*wide, "--set", f"train.max_memory_gb={(large + _plan(folder).estimated_train_memory_gb) / 2}"]


@pytest.mark.slow
def test_fit_is_repeated_after_training_and_recorded(make_run: MakeRun, capsys: Captured) -> None:
    folder = make_run(toml="")
    flags = _fitted_to_half(folder)
    assert call("run", "--until", "train", "--redo", "--dir", folder, *flags, "--fit") == 0
    plan, made = _plan(folder), read_result(folder, "train")[0]
    changed = {one.key: (one.value, one.instead_of) for one in plan.fitted}
    assert changed, "it did not fit"
    assert all(made.inputs[key] == value for key, (value, _) in changed.items())
    shown = " ".join(f"--set {key}={value}" for key, (value, _) in changed.items())

    capsys.readouterr()
    assert call("run", "--until", "train", "--dir", folder, *flags, "--fit") == 0
    told = capsys.readouterr().err
    assert "--fit: as before, " in told and "train     unchanged" in told
    assert read_result(folder, "train")[0].created == made.created

    assert call("evaluate", "--dir", folder, *flags) == 1
    assert f"add {shown} to go on with it" in capsys.readouterr().err
    assert call("show", "plan", "--dir", folder) == 0
    page = capsys.readouterr().out
    assert f"other commands for this run need the same: {shown}" in page
    rank = changed.get("train.lora.rank", ("512", ""))[0]
    assert f"(rank {rank}," in page, "the page shows what the plan was made with"


def test_another_setting_than_the_one_that_fit_replaced_is_not_replaced(make_run: MakeRun, capsys: Captured) -> None:
    folder = make_run(toml="")
    tight = _tight(folder)
    assert call("plan", "--dir", folder, "--redo", *tight, "--fit") == 0
    first = _plan(folder).fitted[0]
    less = "64" if first.key == "train.pack_tokens" else "recompute"
    capsys.readouterr()
    assert call("plan", "--dir", folder, "--redo", *tight, "--set", f"{first.key}={less}", "--fit") == 0
    assert "as before" not in capsys.readouterr().err
    assert read_result(folder, "plan")[0].inputs[first.key] == less


def test_fit_replaces_a_plan_whose_misfit_is_allowed(make_run: MakeRun, capsys: Captured) -> None:
    folder = make_run(toml='[plan]\nallow = ["training_does_not_fit"]\n')
    tight = _tight(folder)
    assert call("plan", "--dir", folder, "--redo", *tight) == 0
    assert _plan(folder).nearest
    for _ in range(2):
        assert call("plan", "--dir", folder, *tight, "--fit") == 0
        assert not _plan(folder).nearest and _plan(folder).fitted


def test_fit_changes_nothing_that_fits(make_run: MakeRun, capsys: Captured) -> None:
    folder = make_run(toml="")
    assert call("plan", "--dir", folder, "--fit") == 0
    assert "--fit" not in capsys.readouterr().err and _plan(folder).is_go


def test_nothing_fits_into_less_than_python_needs(make_run: MakeRun, capsys: Captured) -> None:
    folder = make_run(toml="")
    assert call("plan", "--dir", folder, "--fit", "--set", "train.max_memory_gb=0.1") == 3
    told = capsys.readouterr().err
    assert "does not fit in 0.1 GB" in told and "--set" not in told.splitlines()[-1], told
    assert "less than the 0.4 GB that training needs without any base. Free memory" in told
    assert (folder / "03-plan" / "plan.md").exists() and not _plan(folder).nearest


@pytest.mark.parametrize(
    ("settings", "code", "said", "remedy"),
    [
        ({"train.device": "cuda"}, 1, "no NVIDIA GPU was found", "train.device = 'cpu'"),
        ({"train.gpus": "2"}, 1, "train.gpus = 2, but no NVIDIA GPU", "Set train.gpus = 1"),
        ({"base.model": "/nowhere/x.gguf"}, 1, "no file /nowhere/x.gguf", "Set base.model to a .gguf file"),
        ({"curate.max_length": "16"}, 1, "most are longer than curate.max_length = 16", "Raise curate.max_length"),
        ({"plan.measure_s": "-1"}, 2, "plan.measure_s = -1", "Fix the value"),
    ],
    ids=lambda one: next(iter(one)) if isinstance(one, dict) else "",
)
def test_settings_that_cannot_work_are_one_sentence_with_a_remedy(
    make_run: MakeRun, capsys: Captured, monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, str], code: int, said: str, remedy: str,
) -> None:  # fmt: skip
    from journeyman.training import devices, placement

    for module in (devices, placement):
        monkeypatch.setattr(module, "survey", devices.Survey)
    flags = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    assert call("plan", "--dir", make_run(toml=""), *flags) == code
    (last,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("journeyman: ")]
    assert said in last and remedy in last, last


def test_serving_above_its_limit_is_no_go_before_training(make_run: MakeRun, capsys: Captured) -> None:
    folder = make_run(toml="")
    assert call("plan", "--dir", folder) == 0
    needed = _plan(folder).estimated_serve_memory_gb
    assert needed is not None
    many = ["--set", "evaluate.parallel=64", "--set", f"decide.max_memory_gb={needed}"]
    assert call("plan", "--dir", folder, "--redo", *many) == 3
    plan = _plan(folder)
    assert [one.code for one in plan.errors] == ["serving_does_not_fit"]
    first = plan.nearest[0]
    assert first.of == "serving" and first.memory_gb <= needed and "evaluate.parallel" in first.settings
    assert call("plan", "--dir", folder, *many, "--fit") == 0
    assert f"--fit: for this run, {first.overrides()[0]}" in capsys.readouterr().err


def test_the_page_says_what_needs_memory_and_what_is_free(
    make_run: MakeRun, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    from journeyman.free_memory import FreeMemory
    from journeyman.stages import plan_fitting
    from journeyman.training import hardware

    container = FreeMemory(3 * 10**9, 64 * 10**9, 60 * 10**9, 4 * 10**9, 10**9)
    for module in (hardware, plan_fitting):
        monkeypatch.setattr(module, "free_memory", lambda: container)
    folder = make_run(toml="")
    assert call("plan", "--dir", folder) == 0
    printed, plan = capsys.readouterr().out, _plan(folder)
    assert plan.memory_free is not None and plan.memory_free.limit_gb == pytest.approx(2.7)
    assert sum(plan.train_memory_parts.values()) == pytest.approx(plan.estimated_train_memory_gb)
    assert "a limit of 4.0 GB, of which 1.0 are used" in printed and "training may use 2.70 GB" in printed
    for said in ("Python with torch: 0.3", "the base's weights:", "activations", "without swap", "GB, computed"):
        assert said in printed, printed


def test_nothing_is_tried_if_it_does_not_fit(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    from journeyman.stages import plan as stage

    given: list[object] = []
    estimate = stage.estimate_time

    def noted(trial: object, *more: object) -> object:
        given.append(trial)
        return estimate(None, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(stage, "estimate_time", noted)
    folder = make_run(toml="")
    assert call("plan", "--dir", folder, "--set", "train.max_memory_gb=0.1") == 3
    assert call("plan", "--dir", folder) == 0
    assert given[0] is None and given[1] is not None


@pytest.mark.parametrize(
    ("tried", "code", "rc"),
    [
        ({"measured_peak_bytes": 2_050_000_000}, "measured_peak_does_not_fit", 3),
        ({"measured_peak_bytes": 990_000_000}, "measured_peak_does_not_fit", 0),
        ({"out_of_memory": TrialOutOfMemory("it ended with exit code 64", certain=True)}, "trial_out_of_memory", 3),
        ({"out_of_memory": TrialOutOfMemory("it was killed by signal 9", certain=False)}, "trial_out_of_memory", 0),
    ],
)
def test_a_trial_that_shows_that_it_does_not_fit_is_no_go(
    make_run: MakeRun, capsys: Captured, monkeypatch: pytest.MonkeyPatch, tried: dict[str, Any], code: str, rc: int
) -> None:
    from journeyman.stages import plan as stage

    estimate = stage.estimate_time
    monkeypatch.setattr(stage, "estimate_time", lambda trial, *more: replace(estimate(None, *more), **tried))
    folder = make_run(toml="")
    assert call("plan", "--dir", folder, "--set", "train.max_memory_gb=1") == rc
    plan = _plan(folder)
    assert code in [one.code for one in (plan.errors if rc else plan.warnings)]
    assert f"{code}: the " in capsys.readouterr().out
    assert (
        rc == 0
        or call("plan", "--dir", folder, "--set", "train.max_memory_gb=1", "--set", f"plan.allow=['{code}']") == 0
    )


def test_fit_takes_settings_whose_steps_need_less_than_may_be_used(
    make_run: MakeRun, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    from journeyman.stages import plan as stage

    folder = make_run(toml="")
    needed = []
    for tokens in (16384, 64):
        assert call("plan", "--dir", folder, "--redo", "--set", f"train.pack_tokens={tokens}") == 0
        needed.append(_plan(folder).estimated_train_memory_gb)
    limit = 1.01 * needed[0]
    factor = limit * (1 / needed[0] + 1 / needed[1]) / 2  # how many times more steps need than is computed
    estimate, tried = stage.estimate_time, []

    def measured(_: object, rows: Any, sizes: Any, placed: Any, *more: Any) -> Any:
        tried.append(round(factor * placed.memory.bytes))
        return replace(estimate(None, rows, sizes, placed, *more), measured_peak_bytes=tried[-1])

    monkeypatch.setattr(stage, "estimate_time", measured)
    limited = ["--set", f"train.max_memory_gb={limit}"]
    assert call("plan", "--dir", folder, "--redo", *limited) == 3
    (error,) = _plan(folder).errors
    assert error.code == "measured_peak_does_not_fit" and "--fit does that" in capsys.readouterr().err
    first = _plan(folder).nearest[0]
    assert first.memory_gb <= limit and "train.pack_tokens" in first.settings
    assert call("plan", "--dir", folder, *limited, "--fit") == 0
    assert tried[-1] <= limit * 1e9 < tried[0] and _plan(folder).fitted and not _plan(folder).nearest


def test_memory_that_runs_out_while_training_is_one_sentence(
    make_run: MakeRun, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DecoderBackend, "engine", lambda _: torch.empty(1 << 46, dtype=torch.uint8))
    folder = make_run(toml="")
    assert call("train", "--dir", folder) == 1
    told = " ".join(capsys.readouterr().err.split())
    assert "out of memory while training: " in told and "you tried to allocate" in told and "Traceback" not in told
    assert "journeyman plan --redo --fit --set train.max_memory_gb=" in told
