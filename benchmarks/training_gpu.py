"""A LoRA step of journeyman on a GPU against its peers: same rows, order, start, rank, targets, rate.

    python benchmarks/training_gpu.py [--model qwen2.5-7b] [--rank 16] [--targets all] [--dropout 0] [--peers …]

The model has the geometry of a real one and random weights, which each engine makes from the same seeds. Rows have 350
to 690 tokens, 16 per step. Each engine runs in a separate process, one after the other: warm-up steps, then timed ones.
The table has real tokens per second (without padding), the share of the matrix rate measured in the same run (4 N
operations per token), peak memory, the loss of each step, and the loss on held-out rows after the last; if losses
differ by more than rounding, the comparison is void. Peers, each with variants:
    peft      transformers + peft, padded micro-batches of the size that is best for it, scaled_dot_product_attention
    trl       TRL's SFTTrainer, padding-free: all rows of a step end to end, attention by torch's FlashAttention
    unsloth   Unsloth's 16-bit model under the same trainer, padding-free, loaded from a folder that is written first
    …+liger             with Liger's kernels (peft, trl)
    …+recompute         with gradient checkpointing; Unsloth's own kind for unsloth
    …+flex, …+sdpa      attention by flex_attention, or by scaled_dot_product_attention with a mask (trl)
For example --peers trl trl+liger trl+recompute unsloth. `--device cpu --model tiny` checks that losses are equal where
there is no GPU; its speeds mean nothing.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from gpu_model import MODELS, RATE, TARGETS, Engine, Rows, finish, rows_of, value
from gpu_peers import in_steps, peft
from gpu_trainers import trl, unsloth

from journeyman.config import LoraConfig, TrainConfig
from journeyman.models.decoder import Decoder, LayerWeights
from journeyman.models.geometry import Geometry
from journeyman.models.gpu.fused import fuse
from journeyman.models.gpu.loading import operations_on
from journeyman.models.weights import ResidentWeights
from journeyman.training.batches import pack
from journeyman.training.engine import KeyedPack
from journeyman.training.gpu import GpuEngine

RESULTS = Path(__file__).parent / "results"


PEERS = {"peft": peft, "trl": trl, "unsloth": unsloth}
PACKAGES = ("transformers", "peft", "liger_kernel", "trl", "unsloth", "xformers")


def our_decoder(
    model: Geometry,
    device: str,
    eight: bool,
    keep: Callable[[Iterator[LayerWeights]], Sequence[LayerWeights]] = list,
) -> Decoder:
    def layer(index: int) -> LayerWeights:
        linear = {m: value(f"{index}.{m}", model.module_shape(m), device) for m in model.modules}
        bias = {m: value(f"{index}.{m}.bias", model.module_shape(m)[:1], device) for m in model.biases}
        norms = {n: value(f"{index}.{n}", (model.hidden,), device) for n in ("attention_norm", "ffn_norm")}
        return fuse(LayerWeights(linear, bias, **norms), lambda one: one, eight=eight)  # type: ignore[arg-type]

    embedding = value("embedding", (model.vocab, model.hidden), device)
    head = embedding if model.tied_head else value("head", (model.vocab, model.hidden), device)
    layers = keep(layer(index) for index in range(model.layers))
    weights = ResidentWeights(embedding, layers, value("final.norm", (model.hidden,), device), head)
    return Decoder(model, weights, operations_on(torch.device(device)))


def ours(model: Geometry, config: TrainConfig, options: argparse.Namespace, eight: bool) -> Engine:
    ready: dict[int, Future[Any]] = {}
    seen: list[Rows] = []
    thread = ThreadPoolExecutor(1)
    engine = GpuEngine(our_decoder(model, options.device, eight), config, recompute=options.recompute)

    def step(rows: Rows) -> float:
        packs = ready.pop(id(rows)).result() if id(rows) in ready else pack(rows, options.pack)
        if later := next((one for one in options.batches if one not in seen and one is not rows), None):
            ready[id(later)] = thread.submit(pack, later, options.pack)  # as PacksAhead does in the training loop
        seen.append(rows)
        labels = sum(len(one.labels_L) for one in packs)
        loss = engine.accumulate([KeyedPack(one, str(n)) for n, one in enumerate(packs)], labels, lambda _: None).loss
        engine.clip(1.0)
        engine.step(RATE)
        return loss

    def held(rows: Rows) -> float:
        return engine.evaluate(pack(rows, options.pack), lambda _: None).mean

    return Engine(in_steps(step, options.device), held)


def measure(engine: str, options: argparse.Namespace) -> dict[str, Any]:
    model = MODELS[options.model]
    lora = LoraConfig(
        rank=options.rank, alpha=2 * options.rank, dropout=options.dropout, targets=TARGETS[options.targets]
    )
    config = TrainConfig(lora=lora)
    begun = time.perf_counter()
    batches = [rows_of(model, options.rows, n, options.length) for n in range(options.warmup + options.steps)]
    options.batches = batches
    if engine.startswith("journeyman"):
        made = ours(model, config, options, "fp8" in engine)
    else:
        name, *variants = engine.split("+")
        made = PEERS[name](model, config, options, variants)
    finish(options.device)
    loaded = time.perf_counter() - begun
    seconds, losses = made.train(batches)
    timed = batches[options.warmup :]
    tokens = sum(len(row.ids) for rows in timed for row in rows)
    labels = sum(row.trained_tokens for rows in timed for row in rows)
    head = model.vocab * model.hidden
    work = 4 * ((model.linear_parameters - head) * tokens + head * labels)
    if options.profile and engine.startswith("journeyman"):
        profile(made, batches[-1])
    return {
        "engine": engine, "tokens_per_s": tokens / sum(seconds[options.warmup :]), "seconds": seconds,
        "tflops": work / sum(seconds[options.warmup :]) / 1e12, "losses": losses, "load_s": loaded,
        "held_out": made.held(rows_of(model, 8, 99, options.length)),
        "peak_gb": torch.cuda.max_memory_allocated() / 1e9, "versions": versions(),
    }  # fmt: skip


def versions() -> dict[str, str]:
    """The peers' packages that are installed."""
    found = {}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def profile(engine: Engine, rows: Rows) -> None:
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as found:
        engine.train([rows])
        torch.cuda.synchronize()
    print(found.key_averages().table(sort_by="cuda_time_total", row_limit=28, max_name_column_width=70), flush=True)


def matrix_tflops(device: str) -> tuple[float, float]:
    """The rate of products of 8192 × 8192 matrices in bfloat16: at first, and after five seconds of them.

    Under lasting load a card lowers its clock to stay within its power limit: the second rate is what a long run gets.
    """
    if device == "cpu":
        return float("nan"), float("nan")
    left, right = (torch.randn(8192, 8192, device="cuda").bfloat16() for _ in range(2))
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))

    def rate(count: int) -> float:
        start.record()
        for _ in range(count):
            left @ right
        end.record()
        torch.cuda.synchronize()
        return count * 2 * 8192**3 / start.elapsed_time(end) / 1e9

    rate(3)
    first = rate(20)
    rate(3500)
    return first, rate(300)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, default="qwen2.5-7b")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--targets", choices=TARGETS, default="all")
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--length", type=int, default=0, help="tokens of every row; 0: 350 to 690")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--pack", type=int, default=16384)
    parser.add_argument("--micro", type=int, default=8)
    parser.add_argument("--recompute", action="store_true")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--ours", nargs="*", default=["journeyman", "journeyman fp8"])
    parser.add_argument("--peers", nargs="*", default=["peft", "peft+liger"])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        print("RESULT " + json.dumps(measure(options.only, options)), flush=True)
        return
    (rate, lasting), found = matrix_tflops(options.device), []
    torch.cuda.empty_cache()
    machine = torch.cuda.get_device_name() if options.device == "cuda" else "CPU"
    print(
        f"{machine}, torch {torch.__version__}, bf16 8192³ {rate:.0f} TFLOP/s, after five seconds {lasting:.0f}",
        flush=True,
    )
    for engine in [*options.ours, *options.peers]:
        done = subprocess.run(
            [sys.executable, __file__, *sys.argv[1:], "--only", engine], capture_output=True, text=True, check=False
        )
        lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
        print("\n".join(line for line in done.stdout.splitlines() if not line.startswith("RESULT ")), flush=True)
        if not lines:
            print(f"{engine}: {done.stderr[-1500:]}", flush=True)
            continue
        one = json.loads(lines[0][7:])
        found.append(one)
        print(
            f"{engine:20} {one['tokens_per_s']:8,.0f} tokens/s  {one['tflops'] / rate:5.0%} of the matrix rate  "
            f"{one['peak_gb']:5.1f} GB  losses {one['losses'][0]:.4f} … {one['losses'][-1]:.4f}  "
            f"held out {one['held_out']:.4f}  steps {', '.join(f'{s:.3f}' for s in one['seconds'])}",
            flush=True,
        )
    record = {
        "gpu": machine,
        "torch": torch.__version__,
        "matrix_tflops": rate,
        "lasting_tflops": lasting,
        "found": found,
    }
    RESULTS.mkdir(exist_ok=True)
    options_record = {key: value for key, value in vars(options).items() if key != "only"}
    length = f"-{options.rows}x{options.length}" if options.length else ""
    name = f"training_gpu-{options.model}-{options.targets}-r{options.rank}{length}.json"
    (RESULTS / name).write_text(json.dumps({"options": options_record, **record}, indent=1))


if __name__ == "__main__":
    main()
