"""Every family of decoders computes what transformers and llama.cpp compute, from a file of llama.cpp's script."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from journeyman.inference.engines import running_engine
from journeyman.models.gguf_file import GgufFile
from journeyman.models.weights import load_decoder
from journeyman.protocols import EngineSettings
from journeyman.sizing.parameters import lora_parameters
from journeyman.training.export import write_gguf, write_peft
from next_tokens import largest_difference, next_tokens
from tiny_families import FAMILIES, adapted, decoder_of, family_file, transformers_model

LENGTH = 90  # more than three windows, and more than the context before scaling with YaRN
CONTEXT = 256


def _ids(seed: int, count: int = LENGTH) -> torch.Tensor:
    return torch.randint(3, 259, (count,), generator=torch.Generator().manual_seed(seed))


def _apart(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max())


@torch.no_grad()
@pytest.mark.parametrize("case", FAMILIES)
def test_logits_equal_transformers(case: str) -> None:
    ids = _ids(1)
    theirs = transformers_model(case)(ids[None]).logits[0]
    assert _apart(decoder_of(case, CONTEXT).logits(ids, [LENGTH]), theirs) < 1e-4


@torch.no_grad()
@pytest.mark.parametrize("case", FAMILIES)
def test_packed_rows_and_rows_with_a_common_prefix_equal_transformers(case: str) -> None:
    model, decoder = transformers_model(case), decoder_of(case, CONTEXT)
    alone, prefix, ends = _ids(1, LENGTH), _ids(2, 70), (_ids(3, 31), _ids(4, 5))
    lengths = [LENGTH, 70, 31, 5]
    hidden_TD = decoder.hidden_states(torch.cat([alone, prefix, *ends]), lengths, prefixes=[-1, -1, 1, 1])
    ours = decoder.head(hidden_TD).split(lengths)
    assert _apart(ours[0], model(alone[None]).logits[0]) < 1e-4
    for end, mine in zip(ends, ours[2:], strict=True):
        assert _apart(mine, model(torch.cat([prefix, end])[None]).logits[0, 70:]) < 1e-4


@pytest.mark.parametrize("case", FAMILIES)
def test_figures_of_the_plan_equal_transformers_and_peft(case: str) -> None:
    from peft import LoraConfig, get_peft_model

    geometry, model = GgufFile(family_file(case)).geometry, transformers_model(case)
    assert geometry.parameters == sum(p.numel() for p in model.parameters())
    targets = ["q_proj", "v_proj", "down_proj"]
    modules = list(geometry.adapted_modules(targets))
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules=modules, task_type="CAUSAL_LM"))
    trainable = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    if case != "granite 4":  # its class has other names than Granite 3's, with which it shares GGUF's
        assert lora_parameters(geometry, 4, targets) == trainable


@torch.no_grad()
@pytest.mark.slow
@pytest.mark.parametrize("case", FAMILIES)
def test_log_probabilities_equal_llama_cpp_with_and_without_an_adapter(case: str, tmp_path: Path) -> None:
    decoder = decoder_of(case, CONTEXT)
    adapter = adapted(decoder.geometry)
    write_gguf(adapter, tmp_path / "adapter.gguf")
    ids = _ids(1)
    base, tuned = (decoder.logits(ids, [LENGTH], lora)[-1] for lora in (None, adapter.layers()))
    size = base.abs().max()
    assert (base - tuned).abs().max() > 0.05 * size, "the adapter matters"
    for adapters, ours in (({}, base), ({"": tmp_path / "adapter.gguf"}, tuned)):
        with running_engine(EngineSettings(family_file(case), adapters, CONTEXT, 1, 0.0)) as engine:
            # llama.cpp keeps keys and values in half precision.
            assert largest_difference(next_tokens(engine, ids), ours) < 4e-3 * size


@torch.no_grad()
@pytest.mark.parametrize("case", [case for case in FAMILIES if case != "granite 4"])
def test_an_adapter_in_peft_computes_the_same(case: str, tmp_path: Path) -> None:
    from peft import PeftModel

    decoder = decoder_of(case, CONTEXT)
    adapter, ids = adapted(decoder.geometry), _ids(1)
    write_peft(adapter, "base", tmp_path)
    theirs = PeftModel.from_pretrained(transformers_model(case), tmp_path)(ids[None]).logits[0]
    assert _apart(decoder.logits(ids, [LENGTH], adapter.layers()), theirs) < 1e-4


@torch.no_grad()
@pytest.mark.parametrize("case", FAMILIES)
def test_streamed_weights_give_the_same_bits(case: str) -> None:
    file = GgufFile(family_file(case))
    factors = file.geometry.factors(CONTEXT)
    kept, streamed = (load_decoder(file, torch.float32, stream=stream, factors=factors) for stream in (False, True))
    assert torch.equal(kept.logits(_ids(1), [LENGTH]), streamed.logits(_ids(1), [LENGTH]))
