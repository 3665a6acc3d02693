"""A Hugging Face folder and the GGUF file that llama.cpp's script makes of it are the same base."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from journeyman.models.geometry import Geometry
from journeyman.models.gguf_file import GgufFile
from journeyman.models.hf_folder import HfFolder
from journeyman.models.opening import open_base
from journeyman.models.weights import load_decoder, to_interleaved
from tiny_families import FAMILIES, ROTARY, convert, save_folder, transformers_model

LENGTH = 90  # more than three windows
# The script cuts Gemma 3's embedding to the number of tokens in tokenizer.json, counting added ones twice.
_SIZES: Mapping[str, Mapping[str, Any]] = {"gemma3": {"vocab_size": 262}}
_LLAMA3 = {
    **ROTARY, "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip
_YARN = {**ROTARY, "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
VARIANTS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    **{case: (case, _SIZES.get(case, {})) for case in FAMILIES},
    "llama 3.1": ("llama", {"rope_parameters": _LLAMA3}),
    "llama 3.2, tied": ("llama", {"rope_parameters": {**_LLAMA3, "rope_theta": 5e5}, "tie_word_embeddings": True}),
    "llama, linear": ("llama", {"rope_parameters": {**ROTARY, "rope_type": "linear", "factor": 4.0}}),
    "qwen2, yarn, tied": ("qwen2", {"rope_parameters": _YARN, "tie_word_embeddings": True}),
    "qwen3, another head": ("qwen3", {"head_dim": 16}),
    "gemma2, another scale": ("gemma2", {"query_pre_attn_scalar": 8, "head_dim": 8, "sliding_window": 16}),
    "phi3, rotated in part": ("phi3", {"rope_parameters": {**ROTARY, "partial_rotary_factor": 0.5}}),
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
    ours = load_decoder(folder, torch.float32).logits(ids, [LENGTH])
    assert torch.equal(ours, load_decoder(folder, torch.float32, stream=True).logits(ids, [LENGTH]))
    assert torch.equal(ours, load_decoder(file, torch.float32).logits(ids, [LENGTH]))
    theirs = model(ids[None]).logits[0]
    assert (ours - theirs).abs().max() < 1e-4 * theirs.abs().max()
