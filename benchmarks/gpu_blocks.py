"""Training on matrices that stay in GGUF's blocks on a GPU, with little memory.

    python benchmarks/gpu_blocks.py [--models qwen2.5-7b:8 qwen2.5-14b:16 qwen2.5-32b:24] [--no-kernels] [--tiles]

1. Every kernel's values against the reference in torch and against the package `gguf`, bit for bit, for blocks of
   random bytes; and its rate against that of a copy, in bytes read and written.
   Then a small GGUF of all these formats, loaded onto the card in blocks and dequantized by the CPU: the same matrices
   and losses. With --tiles, the rates of other sizes of the kernels' tiles.
2. For each model, in a process of its own, whose tensors may take the memory of a card of that size (in GiB) less what
   CUDA itself takes: a Q4_K_M of the model's geometry with random blocks, three steps of 8 rows of 512 tokens,
   recomputing activations, r 16 on all linear layers. Then, without that limit, the same values in bfloat16.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")  # read when torch is imported

import torch
from gpu_block_checks import CUDA, LENGTH, ROWS, kernels, step, tiles, whole
from gpu_model import MODELS, QKV

from journeyman.config import LoraConfig, TrainConfig
from journeyman.models.decoder import Decoder, LayerWeights
from journeyman.models.geometry import Geometry
from journeyman.models.gpu import block_formats, block_kernels
from journeyman.models.gpu.block_loading import BlockWeights, Scratches
from journeyman.models.gpu.blocks import BlockRows
from journeyman.models.gpu.fused import fuse
from journeyman.models.gpu.loading import operations_on
from journeyman.models.weights import ResidentWeights
from journeyman.training.gpu import GpuEngine

MODELS = {
    **MODELS,
    "qwen2.5-32b": Geometry(
        "qwen2", 64, 5120, 40, 8, 128, 27648, 152064, 32768, 1e6, 1e-6, tied_head=False, biases=QKV
    ),
}
CONTEXT_GIB = 0.6
"""What CUDA takes on a card besides tensors."""
WIDTH = 0.02
"""Standard deviation of the model's weights."""
GROUPS = ((4096, 2048), (2048, 2048), (2048, 1024), (1024, 1024), (512, 512))
"""(tokens of a call, tokens of a pack), tried one after the other until the memory suffices."""
STEPS = 3
RESULTS = Path(__file__).parent / "results"


def random_blocks(shape: tuple[int, int], kind: str) -> BlockRows:
    """Values around 0 with a standard deviation of WIDTH."""
    one = block_formats.FORMATS[kind]
    raw = torch.randint(0, 256, (shape[0], shape[1] // one.values * one.size), device=CUDA, dtype=torch.uint8)
    halves = raw.view(-1, one.size).view(torch.float16)
    if kind == "Q4_K":  # scales and minima of 0 to 63, integers of 0 to 15
        halves[:, 0], halves[:, 1] = WIDTH / 258, 7.5 * WIDTH / 258
    else:  # Q6_K: scales of -128 to 127, integers of -32 to 31
        halves[:, 104] = WIDTH / 1367
    return BlockRows(raw, kind)


def in_q6(layer: int, layers: int) -> bool:
    """The layers in which llama.cpp's Q4_K_M stores values and the down projection in Q6_K."""
    return layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2


def in_blocks(model: Geometry) -> Decoder:
    torch.manual_seed(0)
    scratches = Scratches(torch.bfloat16, CUDA)

    def vector(size: int, mean: float) -> torch.Tensor:
        return mean + 0.1 * torch.randn(size, device=CUDA).bfloat16()

    def layer(index: int) -> LayerWeights:
        more = ("v_proj", "down_proj") if in_q6(index, model.layers) else ()
        linear = {
            one: random_blocks(model.module_shape(one), "Q6_K" if one in more else "Q4_K") for one in model.modules
        }
        bias = {one: vector(model.module_shape(one)[0], 0.0) for one in model.biases}
        norms = {one: vector(model.hidden, 1.0) for one in ("attention_norm", "ffn_norm")}
        return fuse(LayerWeights(linear, bias, **norms), lambda one: one, join=scratches.join)  # type: ignore[arg-type]

    shape = model.vocab, model.hidden
    embedding, head = scratches.head(random_blocks(shape, "Q4_K")), scratches.head(random_blocks(shape, "Q6_K"))
    layers = [layer(index) for index in range(model.layers)]
    scratches.allocate()
    return Decoder(model, BlockWeights(embedding, layers, vector(model.hidden, 1.0), head), operations_on(CUDA))


def dequantized(decoder: Decoder) -> Decoder:
    """The same decoder in bfloat16; the blocks are freed layer by layer."""
    weights = decoder.weights
    assert isinstance(weights, BlockWeights)
    layers = list(weights.layers)
    weights.layers = []
    for index, layer in enumerate(layers):
        layers[index] = replace(layer, linear={name: whole(matrix) for name, matrix in layer.linear.items()})
    made = ResidentWeights(whole(weights.embedding), layers, weights.norm, whole(weights.head_VD))
    return Decoder(decoder.geometry, made, operations_on(CUDA))


def block_bytes(decoder: Decoder) -> int:
    weights = decoder.weights
    matrices = [weights.head_VD, weights.embedding, *(m for one in weights.layers for m in one.linear.values())]
    return sum(part.raw.nbytes for matrix in matrices for part in matrix.parts)


def steps(decoder: Decoder, model: Geometry, call: int, tokens: int, *, recompute: bool, name: str) -> dict[str, Any]:
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    lora = LoraConfig(rank=16, alpha=32, targets=LoraConfig().targets)
    engine = GpuEngine(decoder, TrainConfig(lora=lora), recompute=recompute, say=print)
    times, losses = [], []
    for number in range(STEPS):
        torch.cuda.synchronize()
        begun = time.perf_counter()
        losses.append(step(engine, number, model, call, tokens))
        torch.cuda.synchronize()
        times.append(time.perf_counter() - begun)
    found = {
        "tokens_per_s": ROWS * LENGTH / min(times[1:]), "losses": losses, "seconds": times, "call": call,
        "pack": tokens, "peak_gib": torch.cuda.max_memory_reserved() / 2**30,
        "share": share(engine, model, call, tokens),
    }  # fmt: skip
    said = "" if found["share"] is None else f", {found['share']:.0%} of its time dequantizing"
    print(
        f"{name:28} {found['tokens_per_s']:8,.0f} tokens/s  peak {found['peak_gib']:6.2f} GiB  packs of {tokens}, "
        f"{call} a call  losses {', '.join(f'{loss:.5f}' for loss in losses)}{said}",
        flush=True,
    )
    return found


def share(engine: GpuEngine, model: Geometry, call: int, tokens: int) -> float | None:
    """Of the card's busy time in a step, that of the kernels which dequantize; None: it cannot be measured here."""
    try:
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as found:
            step(engine, STEPS, model, call, tokens)
            torch.cuda.synchronize()
        names = {kernel.fn.__name__ for kernel, _ in block_kernels._KERNELS.values()}
        times = {one.key: one.self_device_time_total for one in found.key_averages()}
        return sum(spent for name, spent in times.items() if name in names) / sum(times.values())
    except Exception as error:  # the figures above stand without it
        print(f"no profile: {error}", flush=True)
        return None


def train(name: str, gib: float) -> dict[str, Any]:
    model, total = MODELS[name], torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((gib - CONTEXT_GIB) * 2**30 / total)
    decoder = in_blocks(model)
    stored = block_bytes(decoder)
    print(f"\n{name}, {stored / 1e9:.2f} GB of blocks, {gib:g} GiB less {CONTEXT_GIB} for CUDA", flush=True)
    found: dict[str, Any] = {"model": name, "gib": gib, "block_bytes": stored}
    for call, tokens in GROUPS:
        try:
            found["blocks"] = steps(decoder, model, call, tokens, recompute=True, name=f"blocks in {gib:g} GiB")
            break
        except torch.OutOfMemoryError:
            pass
        print(f"out of memory with packs of {tokens}, {call} a call", flush=True)
    torch.cuda.set_per_process_memory_fraction(1.0)
    try:
        found["free"] = steps(decoder, model, 4096, 4096, recompute=True, name="blocks without the limit")
        plain = dequantized(decoder)
        call, tokens = (found["blocks"]["call"], found["blocks"]["pack"]) if "blocks" in found else (4096, 2048)
        found["bf16"] = steps(plain, model, call, tokens, recompute=True, name="bfloat16, the same packs")
        found["bf16 kept"] = steps(plain, model, 4096, 4096, recompute=False, name="bfloat16, activations kept")
    except torch.OutOfMemoryError:
        print("out of memory on this card", flush=True)
    if "blocks" in found and "bf16" in found:
        ratio = found["blocks"]["tokens_per_s"] / found["bf16"]["tokens_per_s"]
        pairs = zip(found["blocks"]["losses"], found["bf16"]["losses"], strict=True)
        apart = max(abs(one - other) / other for one, other in pairs)
        print(f"blocks / bfloat16: {ratio:.2f} of the tokens/s, losses at most {apart:.1e} apart", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*", default=["qwen2.5-7b:8", "qwen2.5-14b:16", "qwen2.5-32b:24"])
    parser.add_argument("--no-kernels", action="store_true")
    parser.add_argument("--tiles", action="store_true")
    parser.add_argument("--out", type=Path, default=RESULTS / "gpu_blocks.json")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        name, _, gib = options.part.partition(":")
        if name == "tiles":
            tiles()
        else:
            options.out.write_text(json.dumps(train(name, float(gib)) if gib else kernels()))
        return
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}", flush=True)
    named = [*([] if options.no_kernels else ["kernels"]), *(["tiles"] if options.tiles else []), *options.models]
    found = [one for part in named if (one := measured(part)) is not None]
    record = {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__, "found": found}
    options.out.parent.mkdir(exist_ok=True)
    options.out.write_text(json.dumps(record, indent=1))


def measured(part: str) -> Any:
    """A part in a process of its own, which prints what it finds; None if it failed."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "found.json"
        subprocess.run([sys.executable, __file__, "--part", part, "--out", str(path)], check=False)
        return json.loads(path.read_text()) if path.exists() else None


if __name__ == "__main__":
    main()
