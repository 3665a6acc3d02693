"""A Hugging Face folder and the GGUF file that llama.cpp's script makes of it are the same base."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from gguf import GGMLQuantizationType
from safetensors.torch import load_file, save_file

import tiny_families
from journeyman.errors import InputError
from journeyman.models.geometry import Geometry
from journeyman.models.gguf_file import GgufFile
from journeyman.models.hf_folder import HfFolder
from journeyman.models.opening import open_base
from journeyman.models.same_base import same_base
from journeyman.models.weights import load_decoder, to_interleaved
from rewritten import rewritten
from tiny_families import FAMILIES, ROTARY, convert, save_folder, transformers_model

LENGTH = 90  # more than three windows
# The script cuts Gemma 3's embedding to the number of tokens in tokenizer.json, counting added ones twice.
_SIZES: Mapping[str, Mapping[str, Any]] = {"gemma3": {"vocab_size": 263}}
_LLAMA3 = {
    **ROTARY, "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip
_YARN = {**ROTARY, "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
VARIANTS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    **{case: (case, _SIZES.get(case, {})) for case in FAMILIES if case not in ("gpt-oss", "granite 4")},
    "llama 3.1": ("llama", {"rope_parameters": _LLAMA3}),
    "llama 3.2, tied": ("llama", {"rope_parameters": {**_LLAMA3, "rope_theta": 5e5}, "tie_word_embeddings": True}),
    "llama, linear": ("llama", {"rope_parameters": {**ROTARY, "rope_type": "linear", "factor": 4.0}}),
    "qwen2, yarn, tied": ("qwen2", {"rope_parameters": _YARN, "tie_word_embeddings": True}),
    "qwen3, another head": ("qwen3", {"head_dim": 16}),
    "gemma2, another scale": ("gemma2", {"query_pre_attn_scalar": 8, "head_dim": 8, "sliding_window": 16}),
    "phi 3, rotated in part": ("phi 3", {"rope_parameters": {**ROTARY, "partial_rotary_factor": 0.5}}),
}  # fmt: skip


def model_of(case: str, **changes: Any) -> Any:
    name, more = VARIANTS[case]
    return transformers_model(name, **{**more, **changes})


def in_gguf_order(values: np.ndarray[Any, Any], name: str, geometry: Geometry) -> np.ndarray[Any, Any]:
    part = name.split(".")[2] if name.startswith("blk.") else ""
    module = {"attn_q": "q_proj", "attn_k": "k_proj"}.get(part, "")
    return to_interleaved(torch.from_numpy(values), module, geometry).numpy()


@torch.no_grad()
@pytest.mark.slow
@pytest.mark.parametrize("case", VARIANTS)
def test_geometry_tensors_and_logits_are_those_of_the_converted_file(case: str, tmp_path: Path) -> None:
    model = model_of(case)
    folder = open_base(save_folder(model, tmp_path / "hf"))
    file = GgufFile(convert(folder.path, tmp_path / "m.gguf"))
    assert isinstance(folder, HfFolder) and folder.geometry == file.geometry
    for name in file.tensors:
        assert folder.shape(name) == file.shape(name)
        assert np.array_equal(in_gguf_order(folder.tensor(name), name, file.geometry), file.tensor(name)), name
    ids = torch.randint(3, 259, (LENGTH,), generator=torch.Generator().manual_seed(1))
    factors = file.geometry.factors(LENGTH)
    ours = load_decoder(folder, torch.float32, factors=factors).logits(ids, [LENGTH])
    streamed = load_decoder(folder, torch.float32, stream=True, factors=factors)
    assert torch.equal(ours, streamed.logits(ids, [LENGTH]))
    assert torch.equal(ours, load_decoder(file, torch.float32, factors=factors).logits(ids, [LENGTH]))
    theirs = model(ids[None]).logits[0]
    assert (ours - theirs).abs().max() < 1e-4 * theirs.abs().max()
    if "qwen" not in case:  # transformers adds tokens to Qwen's tokenizers, which the script then writes
        same_base(folder, file)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["f32", "f16", "bf16", "q8_0"])
@pytest.mark.parametrize("case", ["llama with biases", "gemma3"])
def test_converted_files_are_of_the_same_base(case: str, kind: str, tmp_path: Path) -> None:
    """Rotary pairs in another order, norms without their 1."""
    folder = HfFolder(save_folder(model_of(case).to(torch.bfloat16), tmp_path / "hf"))
    same_base(folder, GgufFile(convert(folder.path, tmp_path / "m.gguf", kind)))
    other = save_folder(model_of(case, seed=1).to(torch.bfloat16), tmp_path / "other")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(folder.path / name, other / name)
    with pytest.raises(InputError, match="not a file of the base hf"):
        same_base(folder, GgufFile(convert(other, tmp_path / "other.gguf", kind)))


@torch.no_grad()
@pytest.mark.parametrize("case", ["llama", "gemma3"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_read_without_a_change(case: str, dtype: torch.dtype, tmp_path: Path) -> None:
    model = model_of(case).to(dtype)
    base = HfFolder(save_folder(model, tmp_path / "hf"))
    assert base.storage("blk.0.ffn_up.weight") == {torch.bfloat16: "BF16", torch.float16: "F16"}[dtype]
    layer, theirs = load_decoder(base, dtype).weights.layers[1], model.model.layers[1]
    for module in base.geometry.modules:
        part = theirs.self_attn if module in ("q_proj", "k_proj", "v_proj", "o_proj") else theirs.mlp
        assert torch.equal(layer.linear[module], getattr(part, module).weight)
    weight = theirs.input_layernorm.weight.float() + (1 if case == "gemma3" else 0)
    assert layer.attention_norm is not None and torch.equal(layer.attention_norm, weight.to(dtype))
    ids = torch.randint(3, 259, (LENGTH,), generator=torch.Generator().manual_seed(1))
    loaded = transformers.AutoModelForCausalLM.from_pretrained(base.path, dtype=torch.float32)
    expected = loaded(ids[None]).logits[0]
    ours = load_decoder(base, torch.float32, stream=True).logits(ids, [LENGTH])
    assert (ours - expected).abs().max() < 1e-4 * expected.abs().max()


@torch.no_grad()
@pytest.mark.parametrize(
    ("case", "more"),
    [
        ("Mistral", {"sliding_window": 24}),
        ("Mistral", {"sliding_window": None, "head_dim": 16}),
        ("Olmo3", {"sliding_window": 24}),
        ("Ministral3", {"max_position_embeddings": 4096, "rope_parameters": {
            "rope_type": "yarn", "rope_theta": 1e4, "factor": 16.0, "original_max_position_embeddings": 32,
            "mscale": 1.0, "mscale_all_dim": 1.0, "llama_4_scaling_beta": 0.1}}),
    ],
)  # fmt: skip
def test_other_kinds_of_models_compute_what_transformers_computes(
    case: str, more: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(tiny_families.FAMILIES, case, (case, more))  # type: ignore[arg-type]
    model = transformers_model(case)
    base = HfFolder(save_folder(model, tmp_path / "hf"))
    length = min(LENGTH, base.geometry.unserved_window or LENGTH)  # up to there, both compute the same
    assert length == (24 if case == "Mistral" and more["sliding_window"] else LENGTH)
    ids = torch.randint(3, 259, (length,), generator=torch.Generator().manual_seed(1))
    expected = model(ids[None]).logits[0]
    ours = load_decoder(base, torch.float32).logits(ids, [length])
    assert (ours - expected).abs().max() < 1e-4 * expected.abs().max()


def test_a_head_that_is_stored_twice_is_the_embedding(tmp_path: Path) -> None:
    """Old checkpoints have both; some have only the head."""
    folder = save_folder(model_of("llama", tie_word_embeddings=True), tmp_path / "hf")
    path = folder / "model.safetensors"
    tensors = load_file(path)
    embedding = tensors["model.embed_tokens.weight"]
    assert "lm_head.weight" not in tensors and HfFolder(folder).geometry.tied_head
    save_file(tensors | {"lm_head.weight": embedding.clone()}, path)
    assert HfFolder(folder).geometry.tied_head
    save_file({"lm_head.weight": tensors.pop("model.embed_tokens.weight"), **tensors}, path)
    base = HfFolder(folder)
    assert base.geometry.tied_head and np.array_equal(base.tensor("token_embd.weight"), embedding.numpy())


@pytest.mark.slow
def test_two_experts_that_changed_places_are_found(tmp_path: Path) -> None:
    folder = HfFolder(save_folder(model_of("mixtral"), tmp_path / "hf"))
    file = GgufFile(convert(folder.path, tmp_path / "m.gguf"))
    for kind in (GGMLQuantizationType.F16, GGMLQuantizationType.BF16):
        same_base(folder, rewritten(file, tmp_path / "same.gguf", kind))

        def swap(name: str, values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
            return values[[0, 1, 2, 4, 3, 5]] if name == "blk.2.ffn_up_exps.weight" else values

        with pytest.raises(InputError, match=r"of blk\.2\.ffn_up_exps\.weight differ by more than rounding"):
            same_base(folder, rewritten(file, tmp_path / "swapped.gguf", kind, swap))
