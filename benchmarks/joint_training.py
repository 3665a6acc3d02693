"""Several adapters on one frozen base on a processor: one after another, in one batch, and each on some of the cores.

    python benchmarks/joint_training.py [--adapters 1 2 3 4 8] [--tokens 500 1900] [--memory keep] [--steps 6]

SmolLM2-135M, the loops and engines of journeyman; rows are the demo's answers, concatenated to a quarter of a step's
tokens, give or take 40 %, four rows a step. The adapters have different rows, ranks and learning rates. The table has
the seconds of an optimizer step of every adapter, without the first step, and how many times faster the other ways are;
in brackets the same in time of the processor, which depends less on what else runs. `parted` is the largest relative
difference of a loss: in bfloat16 it is rounding. The choice is journeyman's, without a measurement.

On a GPU (--device cuda) journeyman trains one adapter after another. Here they are also trained at the same time by
threads that each have a stream, which says what that could gain.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, nullcontext
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import psutil
import torch

from journeyman.config import TrainConfig
from journeyman.models.opening import find_base, open_base
from journeyman.protocols import Reporter, SilentReporter
from journeyman.records import Example, Message
from journeyman.rendering.renderer import Rendered, Renderer
from journeyman.training.backends import Backend, DecoderBackend, Gpus, OneMachine, backend_of
from journeyman.training.devices import CUDA, chosen_gpu
from journeyman.training.hardware import keep_freed_memory, use_threads
from journeyman.training.joint_choice import Together, Way
from journeyman.training.joint_training import how_together, train_together
from journeyman.training.loop import Trainer, TrainingJob

RESULTS = Path(__file__).parent / "results"
ROWS_PER_STEP = 4
RANKS, RATES = (16, 8, 32, 4), (5e-4, 1e-3, 2e-4)


def rows_of(renderer: Renderer, count: int, tokens: int, seed: int) -> list[Rendered]:
    """Rows of the demo's answers, of `tokens` tokens on average."""
    lines = files("journeyman.demo").joinpath("interactions.jsonl").read_text().splitlines()
    texts = [json.loads(line)["execution"]["output"] for line in lines if "malformed" not in line]
    random_ = random.Random(seed)
    rows = []
    for number in range(count):
        wanted, answer = random_.randint(int(0.6 * tokens), int(1.4 * tokens)), ""
        while (made := renderer.count(answer)) < wanted - 40:
            answer += (random_.choice(texts) or "")[: 4 * (wanted - 40 - made)] + "\n"
        row = Example(
            id=str(number), role="coder", messages=[Message(role="user", content=f"Write set {number}.")],
            answer=answer, group="g", prompt_tokens=1, answer_tokens=1,
        )  # fmt: skip
        rows.append(renderer.example(row))
    return rows


def jobs_of(renderer: Renderer, count: int, steps: int, tokens: int, folder: Path) -> dict[str, TrainingJob]:
    made = {}
    for number in range(count):
        config = TrainConfig.model_validate(
            {
                "epochs": 1, "batch_size": ROWS_PER_STEP, "learning_rate": RATES[number % len(RATES)],
                "lora": {"rank": RANKS[number % len(RANKS)]},
            }
        )  # fmt: skip
        rows = rows_of(renderer, steps * ROWS_PER_STEP, tokens // ROWS_PER_STEP, number)
        made[str(number)] = TrainingJob(rows, [], config, "f", folder / str(number) / "checkpoints", group_tokens=2048)
    return made


def trained(jobs: Mapping[str, TrainingJob]) -> Callable[[Backend, str, Reporter], list[float]]:
    """Trains a job, and returns the loss of each step."""

    def train(backend: Backend, name: str, reporter: Reporter) -> list[float]:
        job = jobs[name]
        with closing(backend.engine()) as engine:
            Trainer(job, engine, reporter).run()
        lines = (job.folder.parent / "metrics.jsonl").read_text().splitlines()
        return [json.loads(line)["loss"] for line in lines if '"loss"' in line]

    return train


Losses = dict[str, list[float]]
How = Callable[[Any, Mapping[str, TrainingJob]], Losses]


def one_after_another(backend: OneMachine, jobs: Mapping[str, TrainingJob]) -> Losses:
    train = trained(jobs)
    return {name: train(backend.with_config(job.config), name, SilentReporter()) for name, job in jobs.items()}  # type: ignore[arg-type]


def at_once(way: Way, backend: Any, jobs: Mapping[str, TrainingJob]) -> Losses:
    """On the processor: in one batch, or each on some of the cores, as many at a time as there are cores."""
    if len(jobs) == 1:
        return one_after_another(backend, jobs)
    count = len(jobs) if way == "batch" else min(len(jobs), max(2, torch.get_num_threads()))
    choice = Together(count, way, 1 << 30, 1.0, 0)
    return train_together(backend, jobs, choice, SilentReporter(), trained(jobs))


def in_streams(backend: OneMachine, jobs: Mapping[str, TrainingJob]) -> Losses:
    """On a GPU, each by a thread with a stream."""
    train = trained(jobs)

    def in_stream(name: str) -> list[float]:
        on_gpu = torch.cuda.is_available()
        with torch.cuda.stream(torch.cuda.Stream()) if on_gpu else nullcontext():
            return train(backend.with_config(jobs[name].config), name, SilentReporter())  # type: ignore[arg-type]

    with ThreadPoolExecutor(len(jobs)) as pool:
        return dict(zip(jobs, pool.map(in_stream, jobs), strict=True))


def timed(how: How, backend: OneMachine, jobs: Mapping[str, TrainingJob]) -> tuple[list[float], Losses]:
    """Seconds, seconds of the processor, and new pages of memory; and losses."""

    def now() -> list[float]:
        return [time.perf_counter(), time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_minflt]

    start = now()
    losses = how(backend, jobs)
    return [after - before for after, before in zip(now(), start, strict=True)], losses


def measure(
    backend: Any, renderer: Renderer, ways: Mapping[str, How], count: int, steps: int, tokens: int
) -> dict[str, Any]:
    """Seconds of a step of all adapters in each way: of all steps, less those of one step, which allocates memory."""
    found: dict[str, Any] = {"adapters": count, "step_tokens": tokens}
    expected: Losses = {}
    for way, how in {"one by one": one_after_another, **ways}.items():
        took = []
        for number in (1, steps):
            with tempfile.TemporaryDirectory() as folder:
                jobs = jobs_of(renderer, count, number, tokens, Path(folder))
                figures, losses = timed(how, backend, jobs)
            took.append(figures)
        seconds, cpu, pages = ((all_steps - one) / (steps - 1) for one, all_steps in zip(*took, strict=True))
        expected = expected or losses
        pairs = [pair for name in losses for pair in zip(losses[name], expected[name], strict=True)]
        parted = max(abs(a - b) / b for a, b in pairs)
        found[way] = {"seconds": seconds, "cpu_seconds": cpu, "new_pages": pages, "parted": parted}
    if isinstance(backend, DecoderBackend):
        with tempfile.TemporaryDirectory() as folder:
            choice = how_together(backend, list(jobs_of(renderer, count, steps, tokens, Path(folder)).values()))
        found["choice"] = {"at_once": choice.at_once, "way": choice.way, "predicted": choice.speedup}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--adapters", type=int, nargs="+", default=[1, 2, 3, 4, 8])
    parser.add_argument("--tokens", type=int, nargs="+", default=[500, 1900], help="tokens of an optimizer step")
    parser.add_argument("--memory", choices=["keep", "recompute", "stream"], default="keep")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--base", type=Path, help="a GGUF file instead of the embedded base")
    arguments = parser.parse_args()
    keep_freed_memory()
    use_threads(arguments.threads)
    base = open_base(arguments.base or find_base("embedded", Path()))
    config, memory = TrainConfig(), arguments.memory
    gpu = chosen_gpu(CUDA, "auto") if arguments.device == "cuda" else None
    backend = backend_of(base, config, memory, gpus=None if gpu is None else Gpus([gpu]))
    assert isinstance(backend, OneMachine)
    on_processor = {"batch": partial(at_once, "batch"), "cores": partial(at_once, "cores")}
    ways = on_processor if gpu is None else {"streams": in_streams}
    if memory == "stream" and gpu is None:
        del ways["cores"]  # the layers that are in memory belong to one pass
    renderer = Renderer(base)
    measure(backend, renderer, ways, 1, 2, 100)  # what happens once in a process
    results = run(backend, renderer, ways, arguments)
    RESULTS.mkdir(exist_ok=True)
    machine = {
        "cores": psutil.cpu_count(logical=False), "memory_gb": psutil.virtual_memory().total / 1e9,
        "gpu": None if gpu is None else gpu.line(), "threads": torch.get_num_threads(), "load": psutil.getloadavg()[0],
    }  # fmt: skip
    about = {"machine": machine, "torch": torch.__version__, "memory": memory, "steps": arguments.steps}
    file = RESULTS / f"joint_training-{arguments.device}-{memory}.json"
    file.write_text(json.dumps({**about, "results": results}, indent=2) + "\n")


def run(
    backend: Any, renderer: Renderer, ways: Mapping[str, How], arguments: argparse.Namespace
) -> Sequence[dict[str, Any]]:
    print("tokens adapters  one by one" + "".join(f"{way:>24}  parted" for way in ways) + "  choice")
    results = []
    for tokens in arguments.tokens:
        for count in arguments.adapters:
            one = measure(backend, renderer, ways, count, arguments.steps, tokens)
            results.append(one)
            alone = one["one by one"]
            line = f"{tokens:>6} {count:>8} {alone['seconds']:>9.2f} s"
            for way in ways:
                ratio, of_cpu = (alone[key] / one[way][key] for key in ("seconds", "cpu_seconds"))
                line += f"{one[way]['seconds']:>8.2f} s {ratio:>5.2f} x ({of_cpu:.2f}) {one[way]['parted']:>7.0e}"
            if choice := one.get("choice"):
                line += f"  {choice['at_once']} by {choice['way']}, predicted {choice['predicted']:.2f} x"
            print(line, flush=True)
    return results


if __name__ == "__main__":
    main()
