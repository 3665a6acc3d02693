"""What a plan for GPUs trains, with cards that are this machine's processor."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from conftest import log_row, write_tiny_gguf
from journeyman.manifests import AdapterManifest, PlanManifest
from journeyman.runs import typed_result
from journeyman.sizing.memory import MemoryWay
from journeyman.training import backends, devices, placement
from journeyman.training.devices import Gpu, Survey
from test_pipeline import call


@dataclass(frozen=True)
class _Card(Gpu):
    @property
    def device(self) -> torch.device:
        return torch.device("cpu")


def _cards(patch: pytest.MonkeyPatch, count: int, free: int = 10**11) -> None:
    found = Survey(tuple(_Card(index, "Card", 2 * free, free, (9, 0)) for index in range(count)))
    patch.setattr(devices, "survey", lambda: found)
    patch.setattr(placement, "survey", lambda: found)
    patch.setattr(placement, "gpu_rates", lambda dtype, device: (7e5, 4.3e12))
    patch.setattr(backends, "peak_gpu_bytes", lambda: 12_000_000_000)


def _run(folder: Path, *settings: str, **lora: Any) -> None:
    folder.mkdir()
    base = write_tiny_gguf(folder / "tiny.gguf")
    (folder / "logs.jsonl").write_text("".join(json.dumps(log_row(i)) + "\n" for i in range(20)))
    (folder / "journeyman.toml").write_text(
        f'[base]\nmodel = "{base}"\n[data]\nsources = ["*.jsonl"]\n[train]\nepochs = 2\nprecision = "float32"\n'
        f"{''.join(one + chr(10) for one in settings)}[train.lora]\nrank = 4\n"
    )


def _trained(folder: Path) -> tuple[PlanManifest, AdapterManifest, dict[str, torch.Tensor]]:
    assert call("train", "--dir", folder) == 0
    plan, adapter = typed_result(folder, "plan", PlanManifest), typed_result(folder, "train", AdapterManifest)
    return plan, adapter, load_file(folder / "04-adapter" / "adapter_model.safetensors")


def _losses(adapter: AdapterManifest) -> list[float]:
    return [one.loss for trained in adapter.adapters.values() for one in trained.validations]


@pytest.mark.slow
@pytest.mark.parametrize(("count", "memory"), [(1, "keep"), (1, "recompute"), (2, "keep")])
def test_a_run_on_gpus_trains_what_the_processor_does(
    count: int, memory: MemoryWay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _run(tmp_path / "cpu", "device = 'cpu'")
    _run(tmp_path / "gpu", f"gpus = {count}", f"memory = '{memory}'")
    _, expected, values = _trained(tmp_path / "cpu")
    _cards(monkeypatch, count)
    plan, found, others = _trained(tmp_path / "gpu")
    assert plan.device == "cuda" and plan.memory == memory and "Card, 100.0 of 200.0 GB free" in str(plan.device_name)
    assert found.peak_memory_gb == 12.0
    assert _losses(found) == pytest.approx(_losses(expected), rel=1e-4)
    for name, value in values.items():
        assert torch.allclose(value, others[name], rtol=1e-2, atol=1e-4), name
    page = (tmp_path / "gpu/03-plan/plan.md").read_text()
    assert "- device: Card, 100.0 of 200.0 GB free" in page


def _plan_only(folder: Path, patch: pytest.MonkeyPatch, cards: int) -> None:
    _run(folder)
    _cards(patch, cards)
    assert call("plan", "--dir", folder) == 0


def test_a_card_that_is_gone_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _plan_only(tmp_path / "run", monkeypatch, 1)
    _cards(monkeypatch, 0)
    capsys.readouterr()
    assert call("train", "--dir", tmp_path / "run") == 1
    shown = " ".join(capsys.readouterr().err.split())
    assert "the plan is to train on a GPU, but train.device = 'cuda': no NVIDIA GPU was found" in shown
    assert "journeyman plan --redo --set train.device=cpu" in shown


def test_a_card_that_is_full_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _plan_only(tmp_path / "run", monkeypatch, 1)

    def full(*_: Any, **__: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("journeyman.training.backends.load_on_gpu", full)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (10**9, 2 * 10**11))
    capsys.readouterr()
    assert call("train", "--dir", tmp_path / "run") == 1
    shown = " ".join(capsys.readouterr().err.split())
    assert "out of GPU memory while loading the base: Card has 1.0 of 200.0 GB free. nvidia-smi lists" in shown


@pytest.mark.parametrize("settings", [[], ["device = 'cuda'"]])
def test_a_base_too_large_for_the_card(
    settings: Sequence[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _run(tmp_path / "run", *settings)
    _cards(monkeypatch, 1, free=10**8)
    code = call("plan", "--dir", tmp_path / "run")
    shown = " ".join("".join(capsys.readouterr()).split())
    if settings:
        assert code != 0 and "training does not fit in 0.1 GB" in shown
    else:
        plan = typed_result(tmp_path / "run", "plan", PlanManifest)
        assert code == 0 and plan.device is None
        assert "training runs on the processor, not on Card, 0.1 of 0.2 GB free: training does not fit in 0.1" in shown


def test_the_number_of_gpus_makes_nothing_stale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _plan_only(tmp_path / "run", monkeypatch, 2)
    assert call("plan", "--dir", tmp_path / "run", "--set", "train.gpus=2") == 0
    assert "03 plan unchanged" in " ".join("".join(capsys.readouterr()).split())
