"""LoRA training on one GPU and on all GPUs of a machine: equal losses, how much faster, and a base in parts.

    PYTHONPATH=src python benchmarks/training_gpus.py [--gpus 2] [--steps 6] [--only-7b]

First the geometry of Qwen2.5-7B with random weights, 16 rows per step for each GPU, and 16 rows for all together: the
same rows on one GPU and on all, so the losses of both must agree to the rounding of bfloat16. Then the same with the
base in parts (each GPU keeps its part of each frozen matrix), which must give the losses of recomputed layers. Then the
geometry of Qwen2.5-32B, in parts: its matrices alone are 65 GB. At last a worker is killed during a step, to see how
long it takes until rank 0 has an error. Every line is printed when it is known; it takes three minutes in all.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from functools import partial
from threading import Timer
from typing import Any

for variable, off in (
    ("NCCL_NVLS_ENABLE", "0"), ("TORCH_SYMM_MEM_DISABLE_MULTICAST", "1"), ("NVSHMEM_DISABLE_NVLS", "1"),
):  # fmt: skip
    os.environ.setdefault(variable, off)  # NVLink multicast can disturb others that share the host

import psutil  # noqa: E402
import torch  # noqa: E402
from gpu_model import MODELS, QKV, RATE, rows_of  # noqa: E402
from training_gpu import RESULTS, our_decoder  # noqa: E402

from journeyman.config import LoraConfig, TrainConfig  # noqa: E402
from journeyman.errors import WorkerDied  # noqa: E402
from journeyman.models.geometry import Geometry  # noqa: E402
from journeyman.models.gpu.sharded import ShardedLayers  # noqa: E402
from journeyman.training import worker  # noqa: E402
from journeyman.training.batches import Pack, pack  # noqa: E402
from journeyman.training.data_parallel import DataParallelEngine  # noqa: E402
from journeyman.training.division import divide_rows, laid_out  # noqa: E402
from journeyman.training.engine import KeyedPack, TrainingEngine  # noqa: E402
from journeyman.training.gpu import GpuEngine  # noqa: E402
from journeyman.training.mirror import Leader, MakeEngine  # noqa: E402
from journeyman.training.processes import start_workers  # noqa: E402
from journeyman.training.ranks import Ranks  # noqa: E402

ALL_MODELS = MODELS | {
    "qwen2.5-32b": Geometry("qwen2", 64, 5120, 40, 8, 128, 27648, 152064, 32768, 1e6, 1e-6, tied_head=False, biases=QKV)
}
ROWS, WARM_UP = 16, 3
CONFIG = TrainConfig(lora=LoraConfig(rank=16, alpha=32))


def load(job: str, ranks: Ranks) -> MakeEngine:
    """The engines of one of several GPUs."""
    asked = json.loads(job)
    shard = partial(ShardedLayers, number=ranks.rank, count=ranks.count, gather=ranks.gather_bytes)
    decoder = our_decoder(ALL_MODELS[asked["model"]], "cuda", False, shard if asked["shard"] else list)

    def make() -> DataParallelEngine:
        local = GpuEngine(decoder, CONFIG, recompute=asked["recompute"] or asked["shard"])
        return DataParallelEngine(local, ranks, lockstep=asked["shard"])

    return make


def steps(engine: TrainingEngine, batches: list[list[Pack]]) -> tuple[list[float], list[float]]:
    losses, seconds = [], []
    for packs in batches:
        labels = sum(len(one.labels_L) for one in packs)
        torch.cuda.synchronize()
        start = time.perf_counter()
        keyed = [KeyedPack(one, str(number)) for number, one in enumerate(packs)]
        losses.append(engine.accumulate(keyed, labels, lambda _: None).loss)
        engine.clip(1.0)
        engine.step(RATE)
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return losses, seconds


def measure(asked: dict[str, Any]) -> None:
    """Prints one line of JSON for each number of rows."""
    model, gpus, begun = ALL_MODELS[asked["model"]], asked["gpus"], time.perf_counter()
    leader = None
    if gpus == 1:
        decoder = our_decoder(model, "cuda", False)
    else:
        devices = [f"cuda:{number}" for number in range(gpus)]
        ranks, workers = start_workers(devices, json.dumps(asked), [sys.executable, __file__, "--worker"])
        leader = Leader(ranks, load(json.dumps(asked), ranks), workers)
    for rows in asked["rows"]:
        engine = leader.engine() if leader else GpuEngine(decoder, CONFIG, recompute=asked["recompute"])
        ready = time.perf_counter() - begun
        batches = [pack(rows_of(model, rows, seed, 0), asked["pack"]) for seed in range(WARM_UP + asked["steps"])]
        losses, seconds = steps(engine, batches)
        timed = batches[WARM_UP:]
        tokens = sum(one.row_tokens for packs in timed for one in packs)
        loads = [
            [sum(len(laid_out(packs, rows).ids_T) for rows in share) for share in divide_rows(packs, gpus)]
            for packs in timed
        ]
        found = {
            "rows": rows, "tokens_per_s": tokens / sum(seconds[WARM_UP:]), "seconds": seconds, "losses": losses,
            "ready_s": ready, "peak_gb": torch.cuda.max_memory_allocated() / 1e9,
            "largest_share": sum(map(max, loads)) * gpus / sum(map(sum, loads)),
        }  # fmt: skip
        print("RESULT " + json.dumps(found), flush=True)
        torch.cuda.reset_peak_memory_stats()
    if leader and asked["kill"]:
        start = time.perf_counter()
        Timer(1.5 * seconds[-1], psutil.Process().children()[-1].kill).start()
        try:
            steps(engine, batches)
        except WorkerDied as error:
            after = time.perf_counter() - start
            print(f"killed a worker in the second step: {after:.1f} s after the first began: {error}", flush=True)
    start = time.perf_counter()
    if leader:
        leader.close()
    print(f"closed after {time.perf_counter() - start:.1f} s", flush=True)


def run(name: str, **asked: Any) -> dict[int, dict[str, Any]]:
    """Measures in a process of its own; rows of a step → what was found."""
    start, found = time.perf_counter(), {}
    process = subprocess.Popen(
        [sys.executable, __file__, "--measure", json.dumps(asked)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if not line.startswith("RESULT "):
            print(f"    {line.rstrip()}", flush=True)
            continue
        one = json.loads(line[7:])
        found[one["rows"]] = one
        shown = ", ".join(f"{loss:.4f}" for loss in one["losses"])
        print(
            f"{name}, {asked['gpus']} GPU(s), {one['rows']:3} rows: {one['tokens_per_s']:8,.0f} tokens/s  "
            f"{one['peak_gb']:6.1f} GB on the first  ready after {one['ready_s']:.0f} s  largest share "
            f"{one['largest_share']:.3f}  seconds {', '.join(f'{s:.3f}' for s in one['seconds'])}  losses {shown}",
            flush=True,
        )
    print(f"    {name}: exit code {process.wait()}, {time.perf_counter() - start:.0f} s in all", flush=True)
    return found


def compare(one: dict[int, Any], other: dict[int, Any]) -> None:
    for rows in one.keys() & other.keys():
        apart = max(abs(a - b) / a for a, b in zip(one[rows]["losses"], other[rows]["losses"], strict=True))
        ratio = other[rows]["tokens_per_s"] / one[rows]["tokens_per_s"]
        print(f"    {rows} rows: {ratio:.3f} times as fast, losses differ by at most {apart:.1e}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpus", type=int, default=0, help="how many; 0: all")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--pack", type=int, default=16384)
    parser.add_argument("--model", choices=ALL_MODELS, default="qwen2.5-7b")
    parser.add_argument("--only-7b", action="store_true", help="without the 32B")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        worker.main(load)
        return
    if options.measure:
        measure(json.loads(options.measure))
        return
    gpus = options.gpus or torch.cuda.device_count()
    names = {torch.cuda.get_device_name(number) for number in range(gpus)}
    print(f"{gpus} × {', '.join(names)}, torch {torch.__version__}, NCCL {torch.cuda.nccl.version()}", flush=True)
    asked: dict[str, Any] = {"model": options.model, "steps": options.steps, "pack": options.pack, "kill": False}
    plain = asked | {"shard": False, "recompute": False, "rows": [ROWS, ROWS * gpus] if gpus > 1 else [ROWS]}
    found = {"one": run(options.model, **plain, gpus=1)}
    if gpus > 1:
        found["all"] = run(options.model, **plain, gpus=gpus)
        compare(found["one"], found["all"])
        more = found["all"][ROWS * gpus]["tokens_per_s"] / found["one"][ROWS]["tokens_per_s"]
        print(f"    {ROWS} rows for each GPU: {more:.3f} times as fast as {ROWS} rows on one", flush=True)
        again = plain | {"rows": [ROWS * gpus], "recompute": True, "gpus": gpus}
        found["recomputed"] = run(f"{options.model} recomputed", **again)
        found["sharded"] = run(f"{options.model} in parts", **again | {"shard": True, "kill": True})
        compare(found["recomputed"], found["sharded"])
        if not options.only_7b:
            large = again | {"model": "qwen2.5-32b", "shard": True, "steps": 2}
            found["32b"] = run("qwen2.5-32b in parts", **large)
        run(options.model, **plain | {"rows": [ROWS * gpus], "kill": True, "steps": 1, "gpus": gpus})
    RESULTS.mkdir(exist_ok=True)
    record = {"gpus": gpus, "names": sorted(names), "torch": torch.__version__, "found": found}
    (RESULTS / f"training_gpus-{options.model}-x{gpus}.json").write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
