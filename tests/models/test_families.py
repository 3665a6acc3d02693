"""Every family of decoders computes what transformers computes, from a file that llama.cpp's script converted."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from journeyman.models.gguf_file import GgufFile
from journeyman.models.weights import load_decoder
from tiny_families import FAMILIES, convert, save_folder, transformers_model

LENGTH = 90  # more than three windows


@torch.no_grad()
@pytest.mark.parametrize("case", FAMILIES)
def test_logits_equal_transformers(case: str, tmp_path: Path) -> None:
    model = transformers_model(case)
    decoder = load_decoder(GgufFile(convert(save_folder(model, tmp_path / "hf"), tmp_path / "m.gguf")), torch.float32)
    ids = torch.randint(3, 259, (LENGTH,), generator=torch.Generator().manual_seed(1))
    theirs = model(ids[None]).logits[0]
    assert (decoder.logits(ids, [LENGTH]) - theirs).abs().max() < 1e-3 * theirs.abs().max()
