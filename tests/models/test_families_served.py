"""Every family with a random adapter: llama.cpp serves and peft loads what the decoder computes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from journeyman.config import LoraConfig
from journeyman.inference.engines import running_engine
from journeyman.models.base import PeftBase
from journeyman.models.decoder import Decoder
from journeyman.models.gguf_file import GgufFile
from journeyman.models.weights import load_decoder
from journeyman.protocols import EngineSettings
from journeyman.training.export import write_gguf, write_peft
from journeyman.training.lora import Adapter
from next_tokens import next_tokens
from tiny_families import FAMILIES, MIXTURES, decoder_of, tiny_family, transformers_model

LENGTH = 90  # more than three windows
TOLERANCE = 0.05
SERVED = ("llama", "gemma2", "gemma3", "gemma3, linear", "gemma2, 27B", "gemma3, 27B", "olmo2", "olmo3")


def _ids(seed: int) -> Tensor:
    return torch.randint(3, 259, (LENGTH,), generator=torch.Generator().manual_seed(seed))


def _random_adapter(decoder: Decoder) -> Adapter:
    """An adapter for all modules that changes the logits considerably."""
    adapter = Adapter(decoder.geometry, LoraConfig(rank=4, alpha=8), seed=1)
    generator = torch.Generator().manual_seed(2)
    adapter.load(
        {
            name: value.detach() if "lora_A" in name else 0.2 * torch.randn(value.shape, generator=generator)
            for name, value in adapter.parameters.items()
        }
    )
    return adapter


@torch.no_grad()
@pytest.mark.slow
@pytest.mark.parametrize("case", [case for case in FAMILIES if case not in (*MIXTURES, "granite 4")])  # other names
def test_peft_computes_the_same_from_the_adapter(case: str, tmp_path: Path) -> None:
    from peft import PeftModel

    decoder = decoder_of(case, 256)
    adapter, ids = _random_adapter(decoder), _ids(0)
    write_peft(adapter, PeftBase("base"), tmp_path)
    theirs = PeftModel.from_pretrained(transformers_model(case), tmp_path)(ids[None]).logits[0]
    ours, without = decoder.logits(ids, [LENGTH], adapter.layers()), decoder.logits(ids, [LENGTH])
    assert (ours - theirs).abs().max() < 2e-5 * theirs.abs().max()
    assert (ours - without).abs().max() > 0.1 * theirs.abs().max(), "the adapter matters"


@torch.no_grad()
@pytest.mark.slow
@pytest.mark.parametrize("case", SERVED)
def test_log_probabilities_equal_llama_cpp(case: str, tmp_path: Path) -> None:
    """Of rows longer than a window, with and without the adapter.

    llama.cpp keeps keys and values in half precision and looks GELU up in a table. Measured: differences up to 0.01
    for eight layers and 0.035 for 62; effects of a window longer or shorter by one token from 0.5 to 10.
    """
    path = tiny_family(case).path
    decoder = load_decoder(GgufFile(path), torch.float32)
    adapter = _random_adapter(decoder)
    write_gguf(adapter, tmp_path / "adapter.gguf")
    differences, of_adapter, of_window = [], [], []
    with running_engine(EngineSettings(path, {"all": tmp_path / "adapter.gguf"}, 512, 2, 0.0)) as engine:
        for seed in range(2):
            ids = _ids(seed)
            without, adapted = next_tokens(engine, ids, adapter=False), next_tokens(engine, ids)
            assert len(without) == len(adapted) == 256
            differences += [_difference(decoder, ids, without), _difference(decoder, ids, adapted, adapter)]
            of_adapter.append(_difference(decoder, ids, adapted))
            of_window += [_difference(other, ids, without) for other in _with_other_windows(decoder)]
    assert max(differences) < TOLERANCE
    assert min(of_adapter) > 10 * TOLERANCE, "the adapter matters"
    assert not of_window or min(of_window) > 5 * TOLERANCE, "the window matters"


def _difference(decoder: Decoder, ids: Tensor, theirs: Mapping[int, float], adapter: Adapter | None = None) -> float:
    """The largest difference from the engine's log probabilities."""
    ours = decoder.logits(ids, [LENGTH], None if adapter is None else adapter.layers())[-1].log_softmax(-1)
    return max(abs(value - ours[token].item()) for token, value in theirs.items())


def _with_other_windows(decoder: Decoder) -> list[Decoder]:
    other = decoder.geometry.alternate
    if other is None or other.window is None:
        return []
    windows = [replace(other, window=other.window + change) for change in (-1, 1)]
    return [Decoder(replace(decoder.geometry, alternate=one), decoder.weights) for one in windows]
