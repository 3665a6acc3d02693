"""Training on matrices that stay in GGUF's blocks is training on the dequantized ones, bit for bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Kind

import journeyman.training.gpu
from conftest import write_tiny_gguf
from journeyman.config import EMBEDDED, LoraConfig, TrainConfig
from journeyman.models.gguf_file import GgufFile
from journeyman.models.gpu.blocks import Blocks
from journeyman.models.gpu.loading import load_on_gpu
from journeyman.models.opening import find_base
from journeyman.rendering.renderer import Rendered
from journeyman.training.batches import pack
from journeyman.training.engine import KeyedPack
from journeyman.training.gpu import GpuEngine
from quantized import random_matrix
from rewritten import rewritten

CPU = torch.device("cpu")
MIXED = {
    "attn_q": Kind.Q4_0, "attn_k": Kind.F16, "attn_v": Kind.Q5_1, "ffn_gate": Kind.Q4_1, "ffn_up": Kind.Q5_0,
    "attn_output": Kind.BF16, "token_embd": Kind.Q8_0, "output": Kind.Q5_1,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _no_padding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Packs of small models are padded if their weights are not in blocks, which changes the order of sums."""
    monkeypatch.setattr(journeyman.training.gpu, "MOST_CAPTURED", 0)


def _same(file: GgufFile, dtype: torch.dtype, recompute: bool, steps: int = 3, size: int = 60) -> None:
    config = TrainConfig(lora=LoraConfig(rank=3, alpha=6, dropout=0.1, targets=LoraConfig().targets))
    generator = torch.Generator().manual_seed(0)
    rows = [Rendered(torch.randint(3, 200, (size - 7 * n,), generator=generator).tolist(), 6) for n in range(4)]
    packs = [KeyedPack(one, str(n)) for n, one in enumerate(pack(rows, 2 * size))]
    assert len(packs) > 1
    made = []
    for blocks in (False, True):
        engine = GpuEngine(load_on_gpu(file, dtype, CPU, blocks=blocks), config, recompute=recompute)
        heard: list[float] = []
        for _ in range(steps):
            heard += [engine.accumulate(packs, 100.0, lambda _: None).loss, engine.clip(1.0)]
            engine.step(1e-2)
        made.append((heard, engine.evaluate([one.pack for one in packs], lambda _: None).loss, engine.adapter()))
    assert made[0][:2] == made[1][:2]
    assert len(set(made[0][0])) == 2 * steps
    for name, value in made[0][2].items():
        assert torch.equal(value, made[1][2][name]), name


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize(("architecture", "kind", "dtype"), [
    ("llama", Kind.Q4_K, torch.float32), ("llama", Kind.Q6_K, torch.bfloat16), ("qwen2", Kind.IQ4_XS, torch.bfloat16),
    ("qwen3", Kind.Q5_K, torch.float16), ("phi3", Kind.Q3_K, torch.float32),
])  # fmt: skip
def test_the_steps_are_the_same(
    architecture: str, kind: Kind, dtype: torch.dtype, recompute: bool, tmp_path: Path
) -> None:
    _same(GgufFile(write_tiny_gguf(tmp_path / "m.gguf", architecture, kind=kind)), dtype, recompute)


def test_the_steps_are_the_same_with_formats_mixed_and_a_head_of_its_own(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    plain = GgufFile(write_tiny_gguf(
        tmp_path / "plain.gguf", "qwen2", kind=Kind.Q8_0,
        extend=lambda writer: writer.add_tensor("output.weight", random_matrix(rng, 260, 256, Kind.F32)),
    ))  # fmt: skip
    file = rewritten(plain, tmp_path / "m.gguf", lambda name: MIXED.get(name.split(".")[-2], Kind.Q4_0))
    decoder = load_on_gpu(file, torch.bfloat16, CPU, blocks=True)
    linear = decoder.weights.layers[0].linear
    assert not decoder.geometry.tied_head
    assert isinstance(decoder.weights.head_VD, Blocks)
    assert isinstance(linear["o_proj"], torch.Tensor)
    assert [type(part).__name__ for part in linear["qkv_proj"].parts] == ["BlockRows", "Tensor", "BlockRows"]
    assert [part.kind for part in linear["gate_up_proj"].parts] == ["Q4_1", "Q5_0"]
    engines = [GpuEngine(load_on_gpu(file, torch.bfloat16, CPU, **how), TrainConfig()) for how in (
        {}, {"blocks": True}, {"eight": True},
    )]  # fmt: skip
    assert [one.identity() for one in engines] == ["cpu bfloat16", "cpu bfloat16 blocks", "cpu bfloat16 fp8"]
    _same(file, torch.bfloat16, recompute=True)


@pytest.mark.slow
def test_a_step_on_the_embedded_model_is_the_same() -> None:
    file = GgufFile(find_base(EMBEDDED, Path()))
    assert isinstance(load_on_gpu(file, torch.bfloat16, CPU, blocks=True).weights.head_VD, Blocks)
    _same(file, torch.bfloat16, recompute=True, steps=1, size=40)
