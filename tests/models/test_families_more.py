"""Phi, Mistral, SmolLM3, Granite and Llama with biases: what llama.cpp serves, and the figures of every family."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from journeyman.config import LoraConfig
from journeyman.inference.engines import running_engine
from journeyman.models.geometry import Geometry
from journeyman.models.gguf_file import GgufFile
from journeyman.protocols import EngineSettings
from journeyman.sizing.parameters import lora_parameters
from journeyman.training.export import write_gguf
from journeyman.training.lora import Adapter
from next_tokens import largest_difference, next_tokens
from tiny_families import FAMILIES, decoder_of, tiny_family, transformers_model

LENGTH = 90  # more than the context before scaling with YaRN
CONTEXT = 256
SERVED = (
    "llama with biases", "qwen2", "qwen3", "mistral", "ministral3", "phi 3", "phi4 mini", "smollm3", "granite",
    "granite with biases", "granite 4",
)  # fmt: skip


def _random_adapter(geometry: Geometry) -> Adapter:
    """An adapter for all modules that changes the logits considerably."""
    adapter = Adapter(geometry, LoraConfig(rank=4, alpha=8), 7)
    generator = torch.Generator().manual_seed(8)
    with torch.no_grad():
        for value in adapter.parameters.values():
            value.normal_(0, 0.2, generator=generator)
    return adapter


@torch.no_grad()
@pytest.mark.slow
@pytest.mark.parametrize("case", SERVED)
def test_log_probabilities_equal_llama_cpp_with_and_without_an_adapter(case: str, tmp_path: Path) -> None:
    decoder, path = decoder_of(case, CONTEXT), tmp_path / "adapter.gguf"
    adapter = _random_adapter(decoder.geometry)
    write_gguf(adapter, path)
    with running_engine(EngineSettings(tiny_family(case).path, {"all": path}, CONTEXT, 1, 0.0)) as engine:
        for seed in range(2):
            ids = torch.randint(3, 259, (LENGTH,), generator=torch.Generator().manual_seed(seed))
            base, tuned = (decoder.logits(ids, [LENGTH], lora)[-1] for lora in (None, adapter.layers()))
            size = base.abs().max()
            assert (base - tuned).abs().max() > 0.05 * size, "the adapter matters"
            # llama.cpp keeps keys and values in half precision. Measured: up to 2e-3 of the largest logit.
            assert largest_difference(next_tokens(engine, ids, adapter=False), base) < 4e-3 * size
            assert largest_difference(next_tokens(engine, ids), tuned) < 4e-3 * size


@pytest.mark.parametrize("case", FAMILIES)
def test_figures_of_the_plan_equal_transformers_and_peft(case: str) -> None:
    from peft import LoraConfig as PeftConfig
    from peft import get_peft_model

    geometry, model = GgufFile(tiny_family(case).path).geometry, transformers_model(case)
    assert geometry.parameters == sum(value.numel() for value in model.parameters())
    if case == "granite 4" or geometry.experts is not None:
        return  # Granite 4's class has other names than Granite 3's; for experts, see test_mixtures
    targets = ["q_proj", "v_proj", "down_proj"]
    modules = list(geometry.adapted_modules(targets))
    adapted = get_peft_model(model, PeftConfig(r=4, target_modules=modules, task_type="CAUSAL_LM"))
    trainable = sum(value.numel() for value in adapted.parameters() if value.requires_grad)
    assert lora_parameters(geometry, 4, targets) == trainable
