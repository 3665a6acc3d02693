"""How well `journeyman plan` predicts time and memory of training: predicted, then really trained.

    python benchmarks/prediction.py [--device cpu|cuda] [--quick] [--only NAME …] [--threads N]

Each configuration is planned as the stage `plan` does (placement, then steps that are tried for some seconds), in a
process of its own, and then trained to the end by the real loop in another. Bases are files with the geometry of real
ones and random blocks (Q8_0), written to a temporary folder, and the embedded SmolLM2 where it is installed; rows are
random tokens of the given lengths, with a beginning that all share in some. The table has predicted and actual seconds
of computing (steps and validations: what the manifest of `train` calls train_s) and peak memory; then, how many
predictions are within 10 % (time), and within 5 % and not below (memory). --quick takes three configurations and a
third of the tokens; --scale multiplies the tokens of all.

    python benchmarks/prediction.py --evaluation [--folder FOLDER]

The demo is trained once, then planned and evaluated in several settings of [evaluate], on a processor, by the commands;
the table has what the runs recorded themselves (evidence/times.jsonl), for training, evaluation and peak memory.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from random_base import Shape, write_base

from journeyman.cli.time_history import history_lines
from journeyman.config import CONFIG_NAME, TrainConfig
from journeyman.errors import JourneymanError
from journeyman.models.base import Base
from journeyman.models.opening import bytes_on_gpu, find_base, open_base, sizes_of
from journeyman.protocols import SilentReporter
from journeyman.rendering.rendered_rows import RenderedRows
from journeyman.rendering.renderer import Rendered
from journeyman.sizing.memory import peak_of
from journeyman.sizing.parameters import lora_parameters
from journeyman.time_history import Comparison, comparisons
from journeyman.time_history import summary as summary_of_times
from journeyman.training.backends import Gpus, backend_of
from journeyman.training.batches import steps_per_epoch
from journeyman.training.hardware import keep_freed_memory, use_threads
from journeyman.training.loop import TrainingJob
from journeyman.training.persisting import train_to_the_end
from journeyman.training.placement import Placement, Workload, parts_of_packs, place
from journeyman.training.trial_steps import (
    Adapters,
    TrialFailed,
    free_gpu_cache,
    schedules_of,
    try_steps,
)

RESULTS = Path(__file__).parent / "results"
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
ALL = [*ATTENTION, "gate_proj", "up_proj", "down_proj"]
TOKENS_MORE_ON_GPU = 100
MEASURE_S = {"cpu": 20.0, "cuda": 8.0}


BASES = {
    "20m": Shape(8, 256, 4, 2, 768, 8192),
    "135m": Shape(30, 576, 9, 3, 1536, 49152),
    "0.3b": Shape(16, 1024, 16, 8, 2816, 32768),
    "0.5b": Shape(24, 896, 14, 2, 4864, 151936),
}


@dataclass(frozen=True)
class Configuration:
    """`tokens`: of all rows, about, on a processor; `lengths`: the shortest and the longest row."""

    name: str
    base: str
    tokens: int
    lengths: tuple[int, int]
    rank: int = 16
    targets: Sequence[str] = tuple(ALL)
    memory: str = "keep"
    precision: str = "auto"
    rows_per_step: int = 8
    epochs: int = 1
    shared: int = 0
    preset: str = "default"

    def config(self, device: str, threads: int | None) -> TrainConfig:
        settings: dict[str, Any] = {
            "preset": self.preset, "device": device, "epochs": self.epochs, "memory": self.memory, "patience": 99,
            "precision": self.precision, "warmup_steps": 1, "threads": threads, "learning_rate": 1e-4,
        }  # fmt: skip
        if self.preset == "default":
            settings |= {"batch_size": self.rows_per_step, "gradient_accumulation": 1}
            settings["lora"] = {"rank": self.rank, "alpha": 2 * self.rank, "targets": list(self.targets)}
        return TrainConfig.model_validate(settings)


CONFIGURATIONS = (
    Configuration("embedded, default", "embedded", 12000, (350, 690)),
    Configuration("135m, attention-r8 preset", "135m", 9000, (100, 500), preset="attention-r8"),
    Configuration("135m, r64 all, short rows", "135m", 9000, (64, 160), rank=64, rows_per_step=16),
    Configuration("135m, r8 attention, long rows", "135m", 14000, (600, 2000), rank=8, targets=tuple(ATTENTION)),
    Configuration("135m, recompute", "135m", 10000, (200, 900), memory="recompute", rows_per_step=4),
    Configuration("135m, stream", "135m", 10000, (200, 900), rank=8, memory="stream", rows_per_step=4),
    Configuration("135m, float32", "135m", 5000, (100, 600), rank=8, targets=tuple(ATTENTION), precision="float32"),
    Configuration("135m, shared prompt", "135m", 20000, (700, 1100), shared=600),
    Configuration("20m, r16 all, 3 epochs", "20m", 40000, (64, 2000), epochs=3),
    Configuration("20m, r64 attention", "20m", 120000, (64, 300), rank=64, targets=tuple(ATTENTION), epochs=2),
    Configuration("0.3b, r16 all", "0.3b", 5000, (150, 600)),
    Configuration("0.3b, stream", "0.3b", 5000, (150, 600), memory="stream"),
    Configuration("0.5b, r8 attention", "0.5b", 4000, (150, 500), rank=8, targets=tuple(ATTENTION)),
)
QUICK = ("135m, r64 all, short rows", "135m, recompute", "20m, r64 attention")


def rows_of(one: Configuration, device: str, scale: float, seed: int, tokens: int | None = None) -> list[Rendered]:
    """Random rows, of which 60 % is the prompt; more short ones than long ones."""
    made, left = [], tokens or int(one.tokens * scale * (TOKENS_MORE_ON_GPU if device == "cuda" else 1))
    chance = random.Random(f"{one.name}/{seed}")
    start = [random.Random(one.name).randrange(3, 8000) for _ in range(one.shared)]
    low, high = one.lengths
    while left > 0:
        length = round(low * (high / low) ** chance.random())
        own = [chance.randrange(3, 8000) for _ in range(length - len(start))]
        made.append(Rendered([*start, *own], len(start) + int(0.6 * len(own))))
        left -= length
    return made


def base_of(one: Configuration, folder: Path) -> Base:
    if one.base == "embedded":
        return open_base(find_base("embedded", Path()))
    path = folder / f"{one.base}.gguf"
    if not path.is_file():
        write_base(path.with_suffix(".part"), BASES[one.base])
        path.with_suffix(".part").rename(path)
    return open_base(path)


@dataclass(frozen=True)
class Made:
    """What both processes make in the same way."""

    base: Base
    config: TrainConfig
    train: list[Rendered]
    val: list[Rendered]


def make(one: Configuration, options: argparse.Namespace) -> Made:
    scale = options.scale * (0.33 if options.quick else 1.0)
    train = rows_of(one, options.device, scale, 0)
    val = rows_of(one, options.device, scale, 1, sum(len(row.ids) for row in train) // 10)
    return Made(base_of(one, options.folder), one.config(options.device, options.threads), train, val)


def placed_of(made: Made) -> tuple[Placement, Workload]:
    """As the stage `plan` does."""
    sizes, config = sizes_of(made.base), made.config
    tokens, longest = sum(len(row.ids) for row in made.train), max(len(row.ids) for row in [*made.train, *made.val])
    steps = steps_per_epoch(len(made.train), config.rows_per_step)
    prompt = sum(row.prompt_tokens for row in made.train) / len(made.train)
    trainable = lora_parameters(sizes, config.lora.rank, config.lora.targets)
    work = Workload(sizes, trainable, longest, tokens // steps, prompt, bytes_on_gpu(made.base))
    return place(work, config), work


def plan(one: Configuration, options: argparse.Namespace) -> dict[str, Any]:
    made = make(one, options)
    use_threads(options.threads)
    placed, work = placed_of(made)
    free_gpu_cache()
    budget = options.measure or MEASURE_S[options.device]
    lazily = [RenderedRows(rows.__getitem__, [len(row.ids) for row in rows]) for rows in (made.train, made.val)]
    begun = time.monotonic()
    schedules = schedules_of(work.sizes, placed, made.config, Adapters([(lazily[0], lazily[1])]))
    parts = parts_of_packs(work, made.config, placed, schedules)
    said = {
        "chosen_gb": placed.memory.bytes / 1e9, "computed_gb": sum(parts.values()) / 1e9, "parts": parts,
        "memory_gb": peak_of(parts, None, on_gpu=bool(placed.gpus)) / 1e9, "way": placed.memory.way,
        "pack": placed.memory.pack_tokens, "group": placed.memory.group_tokens,
        "gpus": [one.index for one in placed.gpus],
    }  # fmt: skip
    try:
        found = try_steps(
            made.base, None, work.sizes, placed, made.config, schedules, budget,
            SilentReporter(),
        )  # fmt: skip
    except TrialFailed as error:
        tokens = made.config.epochs * sum(len(row.ids) for row in made.train)
        steps = made.config.epochs * steps_per_epoch(len(made.train), made.config.rows_per_step)
        seconds = placed.seconds(work, made.config, tokens, steps)
        return said | {"seconds": seconds, "low": 0.0, "high": 3 * seconds, "failed": str(error)}
    step, peak = found.rates.step, found.measured_peak_bytes
    return said | {
        "seconds": found.time.seconds, "low": found.time.low, "high": found.time.high, "load_s": found.load_s,
        "memory_gb": peak_of(parts, peak, on_gpu=bool(placed.gpus)) / 1e9,
        "measured_memory_gb": None if peak is None else peak / 1e9, "spread": step.spread, "residual": step.residual,
        "terms": step.coefficients, "groups": found.groups, "repetitions": found.repetitions,
        "planned_in_s": time.monotonic() - begun, "said": list(found.said),
    }  # fmt: skip


def train(one: Configuration, options: argparse.Namespace) -> dict[str, Any]:
    """Trains to the end as the stage does."""
    from journeyman.training.devices import chosen_gpu

    made, planned = make(one, options), json.loads(options.planned)
    keep_freed_memory()
    use_threads(options.threads)
    gpu = chosen_gpu(options.device, made.config.precision) if planned["gpus"] else None
    gpus = None if gpu is None else Gpus([gpu])
    begun = time.monotonic()
    with (
        tempfile.TemporaryDirectory() as scratch,
        closing(backend_of(made.base, made.config, planned["way"], None, gpus)) as backend,
    ):
        loaded = time.monotonic() - begun
        job = TrainingJob(
            made.train, made.val, made.config, "benchmark", Path(scratch) / "checkpoints", planned["pack"],
            planned["group"],
        )  # fmt: skip
        _, state = train_to_the_end(backend, job, SilentReporter())
        peak = backend.peak_memory_bytes()
    return {
        "seconds": state.train_s, "memory_gb": None if peak is None else peak / 1e9, "steps": state.step,
        "load_s": loaded, "wall_s": time.monotonic() - begun,
    }  # fmt: skip


def child(name: str, phase: str, options: argparse.Namespace, planned: dict[str, Any] | None = None) -> dict[str, Any]:
    command = [
        sys.executable, __file__, "--device", options.device, "--folder", str(options.folder), "--only", name,
        "--scale", str(options.scale),
        "--phase", phase, "--planned", json.dumps(planned or {}),
        *(["--quick"] if options.quick else []), *(["--threads", str(options.threads)] if options.threads else []),
        *(["--measure", str(options.measure)] if options.measure else []),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if not lines:
        raise RuntimeError(f"{name}, {phase}: {done.stderr[-1500:]}")
    found: dict[str, Any] = json.loads(lines[0][7:])
    return found


def error_of(predicted: float | None, actual: float | None) -> float | None:
    return None if predicted is None or not actual else predicted / actual - 1


def shown(value: float | None, form: str) -> str:
    return "not known" if value is None else format(value, form)


def row_text(one: dict[str, Any]) -> str:
    plan, train = one["plan"], one["train"]
    inside = plan["low"] <= train["seconds"] <= plan["high"]
    return (
        f"{one['name']:31} {plan['seconds']:7.1f} s ({plan['low']:.1f} – {plan['high']:.1f})  "
        f"{train['seconds']:7.1f} s {one['time_error']:+7.1%} {'inside ' if inside else 'OUTSIDE'}  "
        f"{plan['memory_gb']:6.2f} GB (computed {plan['computed_gb']:.2f}, "
        f"tried {shown(plan.get('measured_memory_gb'), '.2f')})  {shown(train['memory_gb'], '.2f')} GB "
        f"{shown(one['memory_error'], '+.1%')}"
    )


def summary(found: Sequence[dict[str, Any]]) -> str:
    times = [abs(one["time_error"]) for one in found]
    memories = [one["memory_error"] for one in found if one["memory_error"] is not None]
    inside = sum(one["plan"]["low"] <= one["train"]["seconds"] <= one["plan"]["high"] for one in found)
    tenth, fifth = (sum(one <= most for one in times) for most in (0.1, 0.2))
    close, below = sum(0 <= one <= 0.05 for one in memories), sum(one < 0 for one in memories)
    return (
        f"time: {tenth} of {len(times)} within 10 %, {fifth} within 20 %, {inside} inside the interval; "
        f"memory: {close} "
        f"of {len(memories)} within 5 % and not below, {below} below"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--evaluation", action="store_true")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", nargs="*", help="names of configurations, or parts of them")
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--measure", type=float, help="seconds for which steps are tried")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "journeyman-prediction")
    parser.add_argument("--phase", choices=("plan", "train"), help=argparse.SUPPRESS)
    parser.add_argument("--planned", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    if options.phase:
        (one,) = (each for each in CONFIGURATIONS if each.name == options.only[0])
        print("RESULT " + json.dumps((plan if options.phase == "plan" else train)(one, options)), flush=True)
        return
    if options.evaluation:
        evaluations(options)
        return
    machine = torch.cuda.get_device_name() if options.device == "cuda" else f"{torch.get_num_threads()} cores"
    print(f"{machine}, torch {torch.__version__}", flush=True)
    found: list[dict[str, Any]] = []
    begun = time.monotonic()
    for one in chosen(options):
        try:
            base_of(one, options.folder)
        except JourneymanError as error:
            print(
                f"{one.name}: {error.what}; {'the same geometry' if one.base == 'embedded' else 'left out'}", flush=True
            )
            continue
        try:
            planned = child(one.name, "plan", options)
            trained = child(one.name, "train", options, planned)
        except RuntimeError as error:
            print(error, flush=True)
            continue
        # Torch counts what it allocates itself.
        apart = planned["parts"]["runtime"] / 1e9 if planned["gpus"] else 0.0
        found.append(
            {
                "name": one.name, "plan": planned, "train": trained,
                "time_error": error_of(planned["seconds"], trained["seconds"]),
                "memory_error": error_of(planned["memory_gb"] - apart, trained["memory_gb"]),
            }
        )  # fmt: skip
        print(row_text(found[-1]), flush=True)
        # After each, so that a run that is cut off keeps what it has.
        record = {"machine": machine, "torch": torch.__version__, "quick": options.quick, "found": found}
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"prediction-{options.device}.json").write_text(json.dumps(record, indent=1))
    if found:
        print(summary(found), f"; {time.monotonic() - begun:.0f} s in all", sep="", flush=True)


EVALUATIONS: dict[str, dict[str, Any]] = {
    "as shipped": {},
    "few-shot, one at a time": {"few_shot": 2, "parallel": 1, "timed_rows": 2, "regression_suite": "false"},
    "two at a time, short answers": {"parallel": 2, "max_new_tokens": 80, "timed_rows": 3},
}


def evaluations(options: argparse.Namespace) -> None:
    """Plans and evaluates the demo in several settings, with one adapter."""
    root = options.folder / "demo"
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    for name in ("interactions.jsonl", CONFIG_NAME):
        (root / name).write_bytes(files("journeyman.demo").joinpath(name).read_bytes())
    threads = [f"train.threads={options.threads}", f"evaluate.threads={options.threads}"] if options.threads else []
    found: list[Comparison] = []
    for name, settings in EVALUATIONS.items():
        for made in ("03-plan", "05-evaluation", "evidence"):  # the adapter stays: it does not depend on these settings
            shutil.rmtree(root / made, ignore_errors=True)
        each = [*threads, *(f"evaluate.{key}={value}" for key, value in settings.items())]
        command = [sys.executable, "-m", "journeyman", "evaluate", "--dir", str(root)]
        done = subprocess.run(
            [*command, *(part for one in each for part in ("--set", one))], capture_output=True, text=True, check=False
        )
        if done.returncode:
            print(f"{name}: {done.stderr[-1500:]}", flush=True)
            continue
        recorded = comparisons(root)
        found += recorded
        print(name, *(f"  {line.strip()}" for line in list(history_lines(recorded))[2:]), sep="\n", flush=True)
    print(summary_of_times(found), flush=True)


def chosen(options: argparse.Namespace) -> list[Configuration]:
    """The configurations of this call; without the embedded base, its geometry takes its place."""
    names = options.only or (QUICK if options.quick else [""])
    found = [one for one in CONFIGURATIONS if any(part in one.name for part in names)]
    try:
        find_base("embedded", Path())
    except JourneymanError:
        found = [replace(one, base="135m") if one.base == "embedded" else one for one in found]
    return found


if __name__ == "__main__":
    main()
