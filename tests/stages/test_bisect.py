"""Bisect on the embedded model: a sound adapter passes all links that ship, and a wrong file is found."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from conftest import example_of
from journeyman.artifacts import write_rows
from journeyman.config import Config
from journeyman.manifests import AdapterManifest, BisectResult, TrainedAdapter
from journeyman.models.base import PeftBase
from journeyman.models.gguf_file import GgufFile
from journeyman.protocols import SilentReporter
from journeyman.records import Message, Prediction
from journeyman.rendering.renderer import Renderer
from journeyman.stages import bisect as stage
from journeyman.training.export import write_gguf, write_peft
from journeyman.training.lora import Adapter

pytestmark = pytest.mark.slow  # the embedded model

LORA = {"rank": 4, "alpha": 8, "targets": ["q_proj", "v_proj", "up_proj"]}


def bisected(embedded: GgufFile, renderer: Renderer, folder: Path, shipped_scale: float) -> BisectResult:
    """Two answers; the GGUF adapter's B is that of the other file times `shipped_scale`."""
    config = Config.model_validate({"train": {"lora": LORA}, "evaluate": {"context": 256, "threads": 2}})
    adapter = Adapter(embedded.geometry, config.train.lora, seed=1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, value in adapter.parameters.items():
            if ".lora_B." in name:
                value.normal_(0, 0.05, generator=generator)
    write_peft(adapter, PeftBase("embedded"), folder)
    with torch.no_grad():
        for name, value in adapter.parameters.items():
            if ".lora_B." in name:
                value.mul_(shipped_scale)
    write_gguf(adapter, folder / "adapter.gguf")
    rows = [example_of([Message(role="user", content=text)], "x", id=text) for text in ("Name a colour.", "Count.")]
    answers = [
        Prediction(
            id=row.id, role=row.role, arm="tuned", text="def add(a, b):\n    return a + b", finish_reason="stop",
            latency_s=1.0, first_token_s=0.1, prompt_tokens=9, answer_tokens=9,
        )
        for row in rows
    ]  # fmt: skip
    write_rows(folder / "predictions.jsonl", answers)
    write_rows(folder / "test.jsonl", rows)
    trained = TrainedAdapter(
        folder="", steps=1, total_steps=1, stopped_early=False, best_step=1, validations=[], train_s=1, tokens=1
    )
    manifest = AdapterManifest.model_construct(adapters={"all": trained})
    files = (folder / "predictions.jsonl", folder / "test.jsonl")
    return stage.bisect(*files, manifest, folder, embedded, config, renderer, SilentReporter())


@pytest.fixture(autouse=True)
def few_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "_PLACES", 2)


def test_a_sound_adapter_is_the_same_in_torch_and_in_what_ships(
    embedded: GgufFile, renderer: Renderer, tmp_path: Path
) -> None:
    result = bisected(embedded, renderer, tmp_path, 1.0)
    names = [link.name for link in result.links]
    assert names[0] == "torch, float32" and names[-1] == "llama.cpp, merged and quantized (Q4_1)"
    assert result.places == 4 and result.links[0].mean_nats == 0
    shipped, merged = result.links[2], result.links[3]
    assert "as shipped" in shipped.name and "merged (F16)" in merged.name
    assert shipped.mean_nats < 0.4 and merged.mean_nats < 0.4, "no more than 8-bit activations cost"
    assert result.parts_at in (None, names[-1])


def test_a_file_that_is_not_what_was_trained_is_named(embedded: GgufFile, renderer: Renderer, tmp_path: Path) -> None:
    result = bisected(embedded, renderer, tmp_path, 5.0)
    assert result.parts_at == "llama.cpp, adapter beside its base, as shipped"
