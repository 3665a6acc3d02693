"""What gpu_blocks.py checks and measures before it trains: kernels, the way from a file to the card, a small file."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGMLQuantizationType, GGUFWriter
from gguf.quants import dequantize
from training_gpu import rows_of

from journeyman.config import LoraConfig, TrainConfig
from journeyman.models.geometry import Geometry, tensor_shapes
from journeyman.models.gguf_file import GgufFile
from journeyman.models.gpu import block_formats, block_kernels
from journeyman.models.gpu.blocks import Blocks
from journeyman.models.gpu.loading import load_on_gpu
from journeyman.models.gpu.staging import Staging
from journeyman.training.batches import pack
from journeyman.training.engine import KeyedPack
from journeyman.training.gpu import GpuEngine

CUDA = torch.device("cuda")
ROWS, LENGTH = 8, 512
"""Rows of a step, and their tokens."""
SMALL = Geometry("llama", len(block_formats.FORMATS), 512, 8, 2, 64, 1024, 4096, 4096, 1e4, 1e-5, tied_head=False)
"""Of the small file, in which each layer has another format."""


def kernels() -> dict[str, Any]:
    copied = copy_rate()
    print(f"copy {copied / 1e9:7,.0f} GB/s", flush=True)
    found: dict[str, Any] = {"copy_gb_s": copied / 1e9, "differing": {}, "gb_s": {}}
    for kind, one in block_formats.FORMATS.items():
        bad = found["differing"][kind] = differing(kind)
        rows = torch.randint(0, 256, (37888, 3584 // one.values * one.size), device=CUDA, dtype=torch.uint8)
        out = torch.empty(37888, 3584, device=CUDA, dtype=torch.bfloat16)
        moved = (rows.numel() + 2 * out.numel()) / seconds(
            lambda rows=rows, out=out, kind=kind: block_kernels.dequantize(rows, kind, out)
        )
        found["gb_s"][kind] = moved / 1e9
        print(
            f"{kind:7} {moved / 1e9:7,.0f} GB/s, {moved / copied:4.0%} of a copy, "
            f"{'OTHER VALUES: ' + ', '.join(bad) if bad else 'the same bits'}",
            flush=True,
        )
    found["loading"], found["loaded"] = loading(), loaded()
    try:
        found["far"] = far_away_is_right()
        print(f"beyond 2³¹ values: {'right' if found['far'] else 'WRONG'}", flush=True)
    except torch.OutOfMemoryError:
        print("beyond 2³¹ values: not tried on this card", flush=True)
    return found


def tiles() -> None:
    """The rates of kernels with tiles of other sizes."""
    for kind in ("Q4_K", "Q6_K", "Q8_0", "Q4_0"):
        one = block_formats.FORMATS[kind]
        raw = torch.randint(0, 256, (37888, 3584 // one.values * one.size), device=CUDA, dtype=torch.uint8)
        out, rates = torch.empty(37888, 3584, device=CUDA, dtype=torch.bfloat16), {}
        for rows, warps in ((32, 2), (64, 2), (64, 4), (128, 4), (128, 8), (256, 4), (256, 8)):
            block_kernels._ROWS, block_kernels._WARPS = rows, warps
            spent = seconds(lambda raw=raw, out=out, kind=kind: block_kernels.dequantize(raw, kind, out))
            rates[f"{rows}/{warps}"] = f"{(raw.numel() + 2 * out.numel()) / spent / 1e9:,.0f}"
        print(f"{kind:7} GB/s by rows/warps: {rates}", flush=True)


def copy_rate() -> float:
    source, target = (torch.zeros(1 << 30, device=CUDA, dtype=torch.uint8) for _ in range(2))
    return 2 * source.numel() / seconds(lambda: target.copy_(source))


def seconds(work: Callable[[], object], times: int = 10) -> float:
    work()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(times):
        work()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / 1000 / times


def differing(kind: str) -> list[str]:
    """Where values are not those of the package `gguf`: the type, by the kernel or in torch."""
    one, rng = block_formats.FORMATS[kind], np.random.default_rng(0)
    raw = rng.integers(0, 256, (1031, 5 * one.size), dtype=np.uint8)
    with np.errstate(all="ignore"):
        values = torch.from_numpy(dequantize(raw, GGMLQuantizationType[kind]))
    blocks, bad = torch.from_numpy(raw).to(CUDA), []
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        wanted, by_torch = values.to(dtype).to(CUDA), torch.empty(values.shape, device=CUDA, dtype=dtype)
        found = torch.empty_like(by_torch)
        block_formats.dequantize(blocks, kind, by_torch)
        block_kernels.dequantize(blocks, kind, found)
        bad += [] if same(found, wanted) else [f"{dtype} by the kernel"]
        bad += [] if same(by_torch, wanted) else [f"{dtype} in torch"]
    return bad


def same(found: torch.Tensor, wanted: torch.Tensor) -> bool:
    bits = torch.int32 if found.dtype == torch.float32 else torch.int16
    equal = (found.view(bits) == wanted.view(bits)) | (found.isnan() & wanted.isnan())
    return bool(equal.all())


def far_away_is_right() -> bool:
    """Values beyond 2³¹ elements."""
    size, count = block_formats.FORMATS["Q8_0"].size, 2**31 // 32 + 1000
    raw = torch.randint(0, 256, (count, size), device=CUDA, dtype=torch.uint8)
    out, end = (torch.empty(n, 32, device=CUDA, dtype=torch.bfloat16) for n in (count, 2000))
    block_kernels.dequantize(raw, "Q8_0", out)
    block_kernels.dequantize(raw[-2000:], "Q8_0", end)
    return same(out[-2000:], end)


def loading() -> dict[str, Any]:
    """Half a gigabyte from a file that the system has cached; it must arrive unchanged."""
    values = torch.randint(0, 256, (1 << 29,), dtype=torch.uint8)
    with tempfile.TemporaryDirectory() as folder, Staging(CUDA) as staging:
        path = Path(folder) / "values"
        values.numpy().tofile(path)
        out = torch.zeros(len(values) - 5, dtype=torch.uint8, device=CUDA)
        times = []
        for _ in range(3):
            begun = time.perf_counter()
            staging.read(path, 5, out)
            torch.cuda.synchronize()
            times.append(time.perf_counter() - begun)
    found = {"right": torch.equal(out.cpu(), values[5:]), "gb_s": len(out) / min(times) / 1e9}
    print(f"from a file to the card: {'right' if found['right'] else 'WRONG'}, {found['gb_s']:.1f} GB/s", flush=True)
    return found


def loaded() -> dict[str, Any]:
    """A file on the card in blocks, against the same file dequantized by the CPU."""
    with tempfile.TemporaryDirectory() as folder:
        file = small_file(Path(folder) / "small.gguf")
        plain, blocks = (load_on_gpu(file, torch.bfloat16, CUDA, blocks=one) for one in (False, True))
    matrices = [
        (layer.linear[group], other.linear[group])
        for layer, other in zip(plain.weights.layers, blocks.weights.layers, strict=True)
        for group in layer.linear
    ]
    ids = torch.arange(0, SMALL.vocab, 3, device=CUDA)
    pairs = [
        *((one, whole(other)) for one, other in [*matrices, (plain.weights.head_VD, blocks.weights.head_VD)]),
        (plain.embed(ids), blocks.embed(ids)),
    ]
    in_blocks = sum(isinstance(other, Blocks) for _, other in matrices)
    lora = TrainConfig(lora=LoraConfig(rank=8, alpha=16, targets=LoraConfig().targets))
    losses = []
    for decoder in (plain, blocks):
        engine = GpuEngine(decoder, lora, recompute=True)
        losses.append([step(engine, number, SMALL, 2048, 1024) for number in range(3)])
    found = {"same": all(same(*pair) for pair in pairs), "in_blocks": in_blocks, "losses": losses}
    print(
        f"a file of all formats: {in_blocks} of {len(matrices)} matrices in blocks, "
        f"{'the same bits' if found['same'] else 'OTHER VALUES'}, losses {losses[0]} and {losses[1]}",
        flush=True,
    )
    return found


def small_file(path: Path) -> GgufFile:
    g, rng = SMALL, np.random.default_rng(0)
    writer = GGUFWriter(path, g.architecture)
    writer.add_context_length(g.context)
    writer.add_embedding_length(g.hidden)
    writer.add_block_count(g.layers)
    writer.add_feed_forward_length(g.ffn)
    writer.add_head_count(g.heads)
    writer.add_head_count_kv(g.kv_heads)
    writer.add_key_length(g.head_dim)
    writer.add_value_length(g.head_dim)
    writer.add_rope_dimension_count(g.head_dim)
    writer.add_rope_freq_base(g.rope_theta)
    writer.add_layer_norm_rms_eps(g.rms_eps)
    writer.add_vocab_size(g.vocab)
    kinds = list(block_formats.FORMATS)
    for name, shape in tensor_shapes(g).items():
        if len(shape) == 1:
            writer.add_tensor(name, np.ones(shape, np.float32))
            continue
        kind = kinds[int(name.split(".")[1])] if name.startswith("blk.") else "Q6_K"
        one, (rows, columns) = block_formats.FORMATS[kind], shape
        raw = rng.integers(0, 256, (rows, columns // one.values, one.size), dtype=np.uint8)
        for at in one.scales_at:
            scale = 1e-3 if one.values == 32 else 1e-5
            raw[:, :, at : at + 2] = np.array([scale if at == one.scales_at[0] else 7 * scale], "<f2").view(np.uint8)
        writer.add_tensor(name, raw.reshape(rows, -1), raw_dtype=GGMLQuantizationType[kind])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return GgufFile(path)


def whole(matrix: Any) -> torch.Tensor:
    return matrix.whole() if isinstance(matrix, Blocks) else matrix


def step(engine: GpuEngine, number: int, model: Geometry, call: int, tokens: int) -> float:
    """An optimizer step with calls of `call` tokens in packs of `tokens`; the loss."""
    rows, loss = rows_of(model, ROWS, number, LENGTH), 0.0
    labels = sum(one.trained_tokens for one in rows)
    for start in range(0, ROWS, call // LENGTH):
        packs = pack(rows[start : start + call // LENGTH], tokens)
        keyed = [KeyedPack(one, f"{start}/{n}") for n, one in enumerate(packs)]
        loss += engine.accumulate(keyed, labels, lambda _: None).loss
    engine.clip(1.0)
    engine.step(1e-4)
    return loss
