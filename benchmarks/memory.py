"""The peak of training's memory, as the plan states it, against what is measured.

    python benchmarks/memory.py [--device cuda] [--only TEXT] [--steps 4] [--json FILE]

Each configuration trains a few steps in a process of its own, with the loop, validation and checkpoints of a real run.
On the processor, the measured peak is VmHWM; on a GPU, what torch has reserved and the memory that the card lost to the
process besides (its context). Memory does not depend on what else the machine computes. The bases are written here:
random values, in the shapes of small and middle-sized decoders; and the embedded SmolLM2-135M. "planned" is what the
page says, from the peak of some steps that the plan tries; "computed" is the sum of the parts, on which the choice of
the memory mode rests.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from random_base import Shape, write_base

EMBEDDED = "embedded"
MOST_GB = 1000.0


SHAPES = {
    "narrow": Shape(24, 128, 4, 2, 384, 8_000),
    "50m": Shape(12, 384, 6, 2, 1024, 32_000),
    "150m": Shape(8, 768, 12, 4, 2048, 64_000),
    "500m": Shape(10, 1536, 12, 2, 4864, 64_000),
    "wide-vocab": Shape(6, 512, 8, 1, 1536, 150_000),
}


@dataclass(frozen=True)
class Case:
    """A configuration. `rows`: shortest and longest; `prefix`: tokens that all rows share."""

    base: str
    rows: tuple[int, int]
    train: dict[str, Any] = field(default_factory=dict)
    prefix: int = 0

    @property
    def name(self) -> str:
        settings = " ".join(f"{key.rpartition('.')[2]}={value}" for key, value in self.train.items())
        prefix = f" prefix={self.prefix}" if self.prefix else ""
        return f"{self.base} rows {self.rows[0]}-{self.rows[1]}{prefix} {settings}".strip()


_ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
CASES = [
    Case("narrow", (100, 400), {"memory": "keep", "pack_tokens": 2048}),
    Case("narrow", (100, 400), {"memory": "keep", "pack_tokens": 2048, "precision": "float32"}),
    Case("narrow", (300, 400), {"memory": "recompute", "pack_tokens": 4096, "precision": "float32"}),
    Case("50m", (100, 250), {"memory": "keep", "pack_tokens": 1024}),
    Case("50m", (200, 900), {"memory": "keep", "pack_tokens": 2048, "precision": "float32"}),
    Case("50m", (1100, 1900), {"memory": "keep", "pack_tokens": 4096}),
    Case("50m", (2100, 3000), {"memory": "keep", "pack_tokens": 4096, "precision": "float32"}),
    Case("50m", (200, 600), {"memory": "recompute", "pack_tokens": 2048, "lora": {"rank": 64}}),
    Case("150m", (100, 400), {"memory": "keep", "pack_tokens": 1024, "lora": {"targets": _ATTENTION, "rank": 8}}),
    Case("150m", (200, 700), {"memory": "recompute", "pack_tokens": 2048}),
    Case("150m", (200, 700), {"memory": "stream", "pack_tokens": 1024}),
    Case("500m", (100, 300), {"memory": "recompute", "pack_tokens": 512}),
    Case("500m", (100, 300), {"memory": "stream", "pack_tokens": 512, "precision": "float32"}),
    Case("500m", (60, 200), {"memory": "keep", "pack_tokens": 512, "lora": {"rank": 128}}),
    Case("wide-vocab", (100, 500), {"memory": "keep", "pack_tokens": 1024}),
    Case("50m", (900, 1000), {"memory": "keep", "pack_tokens": 4096}, prefix=800),
    Case(EMBEDDED, (50, 200), {"memory": "keep", "pack_tokens": 512}),
]


class _Given(list[Any]):
    """Rows in the form that the trial takes."""

    @property
    def lengths(self) -> list[int]:
        return [len(one.ids) for one in self]


def train(path: str, case: Case, device: str, steps: int, trial_s: float) -> dict[str, Any]:
    """Trains, in this process, and returns what was predicted and measured."""
    import torch

    from journeyman.cli import app  # noqa: F401  # what a command has loaded
    from journeyman.cli.progress import terminal_reporter  # noqa: F401
    from journeyman.config import EMBEDDED as NAME
    from journeyman.config import TrainConfig
    from journeyman.models.opening import bytes_on_gpu, find_base, open_base, sizes_of
    from journeyman.protocols import SilentReporter
    from journeyman.rendering.renderer import Rendered
    from journeyman.sizing.memory import peak_of
    from journeyman.sizing.parameters import lora_parameters
    from journeyman.stages.train import Gpus, backend_of, keep_freed_memory, train_to_the_end, use_threads
    from journeyman.training.batches import pack
    from journeyman.training.devices import chosen_gpu
    from journeyman.training.hardware import compute_dtype, gpu_dtype
    from journeyman.training.loop import TrainingJob
    from journeyman.training.placement import Placement, Workload, memory_on_gpu, memory_on_processor, parts_of_packs
    from journeyman.training.trial_steps import Adapters, TrialFailed, schedules_of, try_steps

    torch.manual_seed(0)
    config = TrainConfig.model_validate({"epochs": 1, "checkpoint_steps": 2, "max_memory_gb": MOST_GB, **case.train})
    base = open_base(find_base(NAME, Path()) if path == NAME else Path(path))
    sizes = sizes_of(base)
    random_ = random.Random(1)
    shared = [random_.randrange(sizes.vocab) for _ in range(case.prefix)]

    def row() -> Rendered:
        count = random_.randint(*case.rows)
        ids = shared + [random_.randrange(sizes.vocab) for _ in range(count - len(shared))]
        return Rendered(ids, len(shared) + (count - len(shared)) // 3)

    rows, out = [row() for _ in range(steps * config.rows_per_step)], [row() for _ in range(4)]
    rows[0] = Rendered(shared + [2] * (case.rows[1] - len(shared)), case.rows[1] // 3 + len(shared) // 2)
    step_tokens = sum(len(one.ids) for one in rows) // steps
    trainable = lora_parameters(sizes, config.lora.rank, config.lora.targets)
    work = Workload(sizes, trainable, case.rows[1], step_tokens, stored_bytes=bytes_on_gpu(base) or 0)
    gpu = chosen_gpu(device) if device != "cpu" else None
    if gpu is None:
        keep_freed_memory()
        use_threads(config.threads)
        chosen = memory_on_processor(work, compute_dtype(config.precision).itemsize, config)
    else:
        chosen = memory_on_gpu(work, config, gpu)
    dtype = gpu_dtype(config.precision) if gpu is not None else compute_dtype(config.precision)
    placed = Placement((gpu,) if gpu is not None else (), dtype, 0.0, chosen)
    adapters: Any = Adapters([(_Given(rows), _Given(out))])
    schedules = schedules_of(sizes, placed, config, adapters)
    parts = parts_of_packs(work, config, placed, schedules)
    planned, peak = sum(parts.values()), None
    with suppress(TrialFailed):
        tried = try_steps(base, None, sizes, placed, config, schedules, trial_s, SilentReporter())
        peak = tried.measured_peak_bytes
        planned = peak_of(parts, peak, on_gpu=gpu is not None)
    if gpu is not None:
        free_before = torch.cuda.mem_get_info(gpu.index)[0]
    begun = resident("VmRSS")
    with tempfile.TemporaryDirectory() as folder:
        backend = backend_of(base, config, chosen.way, None, None if gpu is None else Gpus([gpu]))
        loaded = resident("VmRSS")
        job = TrainingJob(rows, out, config, "benchmark", Path(folder), chosen.pack_tokens, chosen.group_tokens)
        train_to_the_end(backend, job, SilentReporter())
    found = {"case": case.name, "computed": sum(parts.values()), "chosen": chosen.bytes, "planned": planned,
             "tried": peak, "way": chosen.way,
             "pack": chosen.pack_tokens, "group": chosen.group_tokens,
             "trainable": trainable, "begun": begun, "loaded": loaded}  # fmt: skip
    found["largest_pack"] = max(len(one.ids_T) for one in pack(rows, chosen.pack_tokens))
    if gpu is None:
        return {**found, "measured": resident("VmHWM")}
    reserved = torch.cuda.max_memory_reserved(gpu.index)
    context = free_before - torch.cuda.mem_get_info(gpu.index)[0] - torch.cuda.memory_reserved(gpu.index)
    return {**found, "measured": reserved + max(0, context), "allocated": torch.cuda.max_memory_allocated(gpu.index)}


def resident(what: str) -> int:
    """A line of /proc/self/status, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{what}:"))


def measured(case: Case, folder: Path, device: str, steps: int, trial_s: float) -> dict[str, Any] | None:
    """A case in a process of its own."""
    path = case.base
    if case.base != EMBEDDED:
        path = str(folder / f"{case.base}.gguf")
        if not Path(path).exists():
            write_base(Path(path), SHAPES[case.base])
    command = [sys.executable, __file__, "--child", json.dumps([path, asdict(case), device, steps, trial_s])]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": "src"})
    if done.returncode:
        print(f"{case.name}: {done.stderr[-800:]}", file=sys.stderr)
        return None
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def show(found: Sequence[dict[str, Any]]) -> None:
    print("| configuration | measured GB | planned GB | planned / measured | computed / measured |")
    print("| --- | --- | --- | --- | --- |")
    for one in found:
        measured = one["measured"]
        share = f"{one['planned'] / measured:.3f}{'' if one['tried'] else ' (nothing tried)'}"
        figures = f"{measured / 1e9:.3f} | {one['planned'] / 1e9:.3f} | {share} | {one['computed'] / measured:.3f}"
        print(f"| {one['case']} | {figures} |")
    for kind in ("planned", "computed"):
        shares = [one[kind] / one["measured"] for one in found]
        good = sum(1 <= share <= 1.05 for share in shares)
        print(f"\n{kind}: within 5 % and not below: {good} of {len(shares)}; below: {sum(one < 1 for one in shares)}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", default="", help="configurations that contain this text")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--trial", type=float, default=20.0, help="seconds for the steps that the plan tries")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "memory-bases")
    parser.add_argument("--child", default="")
    given = parser.parse_args()
    if given.child:
        path, case, device, steps, trial_s = json.loads(given.child)
        print(json.dumps(train(path, Case(**{**case, "rows": tuple(case["rows"])}), device, steps, trial_s)))
        return
    given.folder.mkdir(exist_ok=True)
    found = []
    for case in CASES:
        if given.only in case.name:
            one = measured(case, given.folder, given.device, given.steps, given.trial)
            if one is not None:
                found.append(one)
                print(json.dumps(one), file=sys.stderr, flush=True)
    if given.json:
        given.json.write_text(json.dumps(found, indent=1))
    show(found)


if __name__ == "__main__":
    main()
