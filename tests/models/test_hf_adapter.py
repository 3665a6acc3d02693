"""An adapter trained on a Hugging Face folder: for peft on that folder, and for llama.cpp on the converted file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from peft import PeftModel

from journeyman.config import LoraConfig
from journeyman.inference.engines import running_engine
from journeyman.models.base import PeftBase
from journeyman.models.hf_folder import HfFolder
from journeyman.models.hf_names import name_on_hub
from journeyman.models.weights import load_decoder
from journeyman.protocols import EngineSettings
from journeyman.training.export import write_gguf, write_peft
from journeyman.training.lora import Adapter
from tiny_families import FAMILIES, ROTARY, convert, save_folder, transformers_model

IDS = torch.randint(3, 200, (60,), generator=torch.Generator().manual_seed(3))
_LETTER = 80


def random_adapter(base: HfFolder) -> Adapter:
    """An adapter of every module whose effect is as large as the weights'."""
    adapter = Adapter(base.geometry, LoraConfig(rank=4, alpha=8), seed=1)
    generator = torch.Generator().manual_seed(2)
    for name, value in adapter.parameters.items():
        with torch.no_grad():
            value.copy_(torch.randn(value.shape, generator=generator) * (0.3 if "lora_B" in name else 0.2))
    return adapter


def logits(base: HfFolder, adapter: Adapter | None) -> torch.Tensor:
    decoder = load_decoder(base, torch.float32, factors=base.geometry.factors(len(IDS)))
    return decoder.logits(IDS, [len(IDS)], adapter.layers() if adapter else None)


@torch.no_grad()
@pytest.mark.parametrize("case", [one for one in FAMILIES if one not in ("gpt-oss", "granite 4")])
def test_peft_loads_it_on_the_folder(case: str, tmp_path: Path) -> None:
    base = HfFolder(save_folder(transformers_model(case), tmp_path / "hf"))
    adapter = random_adapter(base)
    write_peft(adapter, base.peft, tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(tmp_path / "hf") and config["revision"] is None
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "hf", dtype=torch.float32)
    theirs = PeftModel.from_pretrained(model, str(tmp_path)).eval()(IDS[None]).logits[0]
    ours = logits(base, adapter)
    assert (ours - theirs).abs().max() < 1e-4 * theirs.abs().max()
    assert (ours - logits(base, None)).abs().max() > 0.1 * theirs.abs().max(), "the adapter must be felt"


def picture_model(**text: Any) -> Any:
    """A tiny Gemma 3 of texts and pictures; its part for pictures has modules of the same names."""
    torch.manual_seed(0)
    rotary = {"full_attention": {**ROTARY, "rope_theta": 1e6}, "sliding_attention": ROTARY}
    config = transformers.Gemma3Config(
        text_config={"vocab_size": 264, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 6,
                     "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "sliding_window": 24,
                     "query_pre_attn_scalar": 8, "max_position_embeddings": 512, "rope_parameters": rotary, **text},
        vision_config={"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4,
                       "image_size": 16, "patch_size": 8},
        mm_tokens_per_image=1, image_token_index=262, boi_token_index=260, eoi_token_index=261,
    )  # fmt: skip
    model = transformers.Gemma3ForConditionalGeneration(config).float().eval()
    with torch.no_grad():
        for value in model.parameters():
            value.normal_(0, 0.3)
    return model


@torch.no_grad()
def test_the_texts_of_a_model_of_texts_and_pictures(tmp_path: Path) -> None:
    model = picture_model()
    base = HfFolder(save_folder(model, tmp_path / "hf"))
    assert base.config.has_pictures
    theirs = model(IDS[None]).logits[0]
    assert (logits(base, None) - theirs).abs().max() < 1e-4 * theirs.abs().max()
    adapter = random_adapter(base)
    write_peft(adapter, base.peft, tmp_path)
    tuned = PeftModel.from_pretrained(model, str(tmp_path)).eval()
    adapted = {name for name, _ in tuned.named_parameters() if "lora_" in name}
    assert len(adapted) == len(adapter.parameters) and not any("vision" in name for name in adapted)
    theirs = tuned(IDS[None]).logits[0]
    ours = logits(base, adapter)
    assert (ours - theirs).abs().max() < 1e-4 * theirs.abs().max()
    assert (ours - logits(base, None)).abs().max() > 0.1 * theirs.abs().max()


@torch.no_grad()
@pytest.mark.slow
@pytest.mark.parametrize(("case", "more"), [("llama", {}), ("gemma3", {"vocab_size": 263}), ("phi 3", {})])
def test_llama_cpp_gives_its_log_probabilities(case: str, more: dict[str, Any], tmp_path: Path) -> None:
    base = HfFolder(save_folder(transformers_model(case, **more), tmp_path / "hf"))
    adapter = random_adapter(base)
    write_gguf(adapter, tmp_path / "adapter.gguf")
    file = convert(base.path, tmp_path / "m.gguf")
    body = {
        "prompt": IDS.tolist(), "n_predict": 1, "n_probs": 256, "temperature": 0.0, "cache_prompt": False,
        "logit_bias": [[_LETTER, 1000.0]],  # it changes the answer only: half a character would not be sent
    }  # fmt: skip
    effects = []
    with running_engine(EngineSettings(file, {"all": tmp_path / "adapter.gguf"}, 512, 1, 0.0)) as engine:
        for scale, arm in ((0.0, None), (1.0, adapter)):
            asked = {**body, "lora": [{"id": 0, "scale": scale}]}
            (likely,) = engine._post("/completion", asked)["completion_probabilities"]
            ours = logits(base, arm)[-1].log_softmax(-1)
            effects.append(ours)
            # llama.cpp keeps keys and values in half precision.
            assert max(abs(one["logprob"] - ours[one["id"]].item()) for one in likely["top_logprobs"]) < 0.03
    assert (effects[0] - effects[1]).abs().max() > 1, "the adapter must be felt"


@pytest.mark.parametrize(
    ("parts", "name"),
    [
        (("hub", "models--Qwen--Qwen2.5-0.5B", "snapshots", "0" * 40), ("Qwen/Qwen2.5-0.5B", "0" * 40)),
        (("hub", "models--a--b--c", "snapshots", "0" * 40), ("a/b--c", "0" * 40)),
        (("hub", "models--Qwen--Qwen2.5-0.5B", "snapshots", "main"), None),
        (("models", "Qwen2.5-0.5B"), None),
    ],
)
def test_what_peft_calls_the_base(parts: tuple[str, ...], name: tuple[str, str] | None) -> None:
    folder = Path("/", *parts)
    assert name_on_hub(folder) == (name or (str(folder), None))
    assert PeftBase(*name_on_hub(folder)).revision == (name[1] if name else None)
