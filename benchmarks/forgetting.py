"""What tuning costs of a base's general abilities, and what prevents that.

    python benchmarks/forgetting.py [--device cuda] [--seeds 3] [--jobs 4] [--variants off,own-0.25,rate/2]
        [--base FILE] [--log PATH [--config FILE]] [--set KEY=VALUE] [--folder /tmp/journeyman-forgetting]

Trains the demo's rows (or those of another log) with the project's own stages, once for each variant and seed, and puts
the validation rows and the regression suite to the adapter through the serving engine. The held-out test rows are not
read. Variants:
    off         the recipe as it is, without anything against forgetting
    own-0.25    beside the rows, general rows with the base's own answers, as this share of their number
    kl-0.25x2   the same rows, but with 2 times KL(base || tuned) on the answers' tokens; on the processor only
    rate/2      the learning rate divided by 2
    rank/4      the rank divided by 4
    epochs-1    one epoch less, where the recipe has more than one
    attention   an adapter on the attention projections alone
Parts may be joined with "+": own-0.25+rate/2. A part KEY=VALUE sets a key of [train].
Prints a Markdown table, and writes the figures of each run to FOLDER/results; runs that are there are not repeated.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

from kl_engine import MARK, KlBackend

from journeyman.artifacts import ADAPTER_FILE, read_rows, write_rows
from journeyman.config import CONFIG_NAME, Config, load_config
from journeyman.general_rows import general_file
from journeyman.inference.arm_runner import ArmRunner, Inputs
from journeyman.inference.own_answers import own_answers, prompts_to_ask
from journeyman.manifests import AdapterManifest, DatasetManifest, EvaluationManifest, PlanManifest
from journeyman.pipeline import run_pipeline
from journeyman.processors import usable_cores
from journeyman.protocols import SilentReporter
from journeyman.records import EVERY_ROLE, Example
from journeyman.rendering.renderer import Renderer
from journeyman.retention import GeneralPrompt
from journeyman.runs import PLACES, Run
from journeyman.stages.evaluate import evaluate
from journeyman.stages.train import train

VARIANTS = (
    "off", "own-0.1", "own-0.25", "own-0.5", "own-1", "rate/2", "rate/4", "rank/4", "attention", "epochs-1",
    "own-0.25+rate/2", "own-0.5+rate/2",
)  # fmt: skip
_QUIET = SilentReporter()
_ALL_PROMPTS = 10_000


class Talking(SilentReporter):
    def say(self, text: str) -> None:
        print(f"  {text}", file=sys.stderr, flush=True)


def settings_of(variant: str, config: Config) -> list[str] | None:
    """The overrides of a variant; None: it makes no difference to this recipe."""
    train, found = config.train, ["train.retention.share=0"]
    for part in variant.split("+"):
        kind, value = part.partition("-" if part.startswith(("own-", "kl-")) else "/")[::2]
        if part == "off":
            pass
        elif kind == "own":
            found.append(f"train.retention.share={value}")
        elif kind == "kl":
            found += [f"train.retention.share={value.partition('x')[0]}", "train.device=cpu"]
        elif kind == "rate":
            found.append(f"train.learning_rate={train.learning_rate / float(value)}")
        elif kind == "rank":
            found.append(f"train.lora.rank={max(1, train.lora.rank // int(value))}")
            found.append(f"train.lora.alpha={train.lora.alpha / int(value)}")
        elif part == "attention":
            found.append('train.lora.targets=["q_proj", "k_proj", "v_proj", "o_proj"]')
        elif part == "epochs-1":
            if train.epochs == 1:
                return None
            found.append(f"train.epochs={train.epochs - 1}")
        elif "=" in part:
            found.append(f"train.{part}")
        else:
            raise SystemExit(f"unknown variant {part!r}")
    return found


def prepare(arguments: argparse.Namespace) -> None:
    """Curates the rows once, and has the base answer everything that every run asks it."""
    folder = arguments.folder / "prepared"
    folder.mkdir(parents=True, exist_ok=True)
    demo = files("journeyman.demo")
    config = arguments.config.read_bytes() if arguments.config else demo.joinpath(CONFIG_NAME).read_bytes()
    (folder / CONFIG_NAME).write_bytes(config)
    if arguments.log is None:
        (folder / "interactions.jsonl").write_bytes(demo.joinpath("interactions.jsonl").read_bytes())
    run = Run(folder, load_config(folder / CONFIG_NAME, common(arguments)))
    list(run_pipeline(run, "curate", Talking()))
    run.make_served(_QUIET)
    rows = list(read_rows(run.file("curate", "val.jsonl"), Example))
    retention = run.config.train.retention
    prompts = prompts_to_ask(retention, _ALL_PROMPTS, 0, run.renderer, run.root)
    shares = [found for place in range(arguments.jobs) if (found := prompts[place :: arguments.jobs])]

    def answer(share: list[GeneralPrompt]) -> list[Example]:
        """With as many threads as a run has, because they are part of what answers are found by."""
        return own_answers(
            share, retention, run.config.evaluate, run.served[0], Renderer(run.base), run.root, Talking()
        )  # fmt: skip

    start = time.perf_counter()
    ArmRunner(inputs_of(run, {}), rows, run.config.evaluate, run.renderer, _QUIET).ask()
    asked = time.perf_counter()
    with ThreadPoolExecutor(len(shares)) as pool:
        made = [row for found in pool.map(answer, shares) for row in found]
    answered = time.perf_counter()
    write(folder / "prepared.json", {
        "base_s": asked - start, "prompts": len(prompts), "answers_s": answered - asked,
        "answer_tokens": sum(row.answer_tokens for row in made), "cut": sum(not row.ends for row in made),
    })  # fmt: skip


def common(arguments: argparse.Namespace) -> list[str]:
    """Overrides of every run."""
    threads = max(1, arguments.cores // arguments.jobs)
    found = [f"train.device={arguments.device}", f"train.threads={threads}", f"evaluate.threads={threads}"]
    found += ["evaluate.few_shot=0", "evaluate.timed_rows=1"]
    if arguments.base is not None:
        found.append(f'base.model="{arguments.base.absolute()}"')
    if arguments.log is not None:
        found.append(f'data.sources=["{arguments.log.absolute()}"]')
    return found + arguments.set


def inputs_of(run: Run, adapters: dict[str, Path]) -> Inputs:
    """The validation rows take the place of the test rows."""
    return Inputs(run.file("curate", "val.jsonl"), run.file("curate", "train.jsonl"), adapters, run.served, run.root)


def measure(arguments: argparse.Namespace, variant: str, seed: int) -> None:
    """Trains and evaluates one variant with one seed."""
    prepared, name = arguments.folder / "prepared", f"{variant.replace('/', ':')}-{seed}"
    folder = arguments.folder / "runs" / name
    shutil.rmtree(folder, ignore_errors=True)
    keep = ("evidence", PLACES["ingest"].folder, PLACES["curate"].folder)
    folder.mkdir(parents=True)
    for one in keep:
        shutil.copytree(prepared / one, folder / one)
    for one in prepared.glob("*.jsonl"):
        shutil.copy(one, folder)
    shutil.copy(prepared / CONFIG_NAME, folder)
    own = settings_of(variant, load_config(folder / CONFIG_NAME, common(arguments)))
    assert own is not None
    run = Run(folder, load_config(folder / CONFIG_NAME, [*common(arguments), *own, f"train.seed={seed}"]))
    divergence = kl_weight(variant)
    if divergence is None:
        list(run_pipeline(run, "train", Talking()))
        trained, place = run.result("train", AdapterManifest), run.folder("train")
    else:
        place = folder / "kl"
        trained = train_by_kl(run, divergence, place)
    adapters = {role: place / one.folder / ADAPTER_FILE for role, one in trained.adapters.items()}
    out = folder / "validation"
    out.mkdir()
    plan = run.result("plan", PlanManifest)
    start = time.perf_counter()
    found = evaluate(inputs_of(run, adapters), plan, run.config.evaluate, run.renderer, out, _QUIET)
    write(result_file(arguments, variant, seed), {
        "variant": variant, "seed": seed, "device": trained.engine, "steps": plan.total_steps,
        "rows": plan.general_rows, "train_s": trained.train_s, "evaluate_s": time.perf_counter() - start,
        "tokens": trained.tokens, "loss": statistics.mean(one.best_loss or 0.0 for one in trained.adapters.values()),
        **figures(found),
    })  # fmt: skip


def kl_weight(variant: str) -> float | None:
    """The weight of the divergence from the base; None: it is not used."""
    found = [part for part in variant.split("+") if part.startswith("kl-")]
    return float(found[0].partition("x")[2] or 1) if found else None


def train_by_kl(run: Run, weight: float, out: Path) -> AdapterManifest:
    """The stage `train`, with another engine."""
    out.mkdir()
    list(run_pipeline(run, "plan", Talking()))
    config, splits = run.config, run.result("curate", DatasetManifest).splits
    general = general_file(run, config.train, {role: one.train for role, one in splits.items()}, out, Talking())
    assert general is not None
    write_rows(general, [row.model_copy(update={"weight": MARK}) for row in list(read_rows(general, Example))])
    return train(
        run.file("curate", "train.jsonl"), run.file("curate", "val.jsonl"), run.result("plan", PlanManifest),
        config.train, run.base, run.factors, "kl", out, _QUIET, run.served[0], general,
        backend_of=partial(KlBackend, weight=weight),
    )  # fmt: skip


def figures(found: EvaluationManifest) -> dict[str, Any]:
    """Successes on the validation rows and in the regression suite."""

    def passed(arm: str) -> dict[str, list[int]]:
        rates = {role: one.arms[arm].success for role, one in found.roles.items()}
        return {role: [rate.passed, rate.n] for role, rate in rates.items() if rate is not None}

    suite: dict[str, list[int]] = {}
    for parts in found.regressions.values():
        for part, one in parts.items():
            before = suite.get(part, [0, 0, 0])
            suite[part] = [before[0] + one.base, before[1] + one.tuned, before[2] + one.n]
    return {"base": passed("base"), "tuned": passed("tuned"), "suite": suite}


def result_file(arguments: argparse.Namespace, variant: str, seed: int) -> Path:
    return Path(arguments.folder) / "results" / f"{variant.replace('/', ':')}-{seed}.json"


def write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1) + "\n")


def table(arguments: argparse.Namespace, variants: Sequence[str]) -> str:
    """The figures as a Markdown table: means over the seeds."""
    read = [json.loads(path.read_text()) for path in sorted((arguments.folder / "results").glob("*.json"))]
    prepared = json.loads((arguments.folder / "prepared" / "prepared.json").read_text())
    roles = list(dict.fromkeys(role for one in read for role in one["tuned"] if role != EVERY_ROLE))
    parts = list(dict.fromkeys(part for one in read for part in one["suite"]))
    head = ["variant", "seeds", "steps", "success", *roles, *parts, "worst general", "training"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]

    def share(runs: list[dict[str, Any]], arm: str, role: str) -> str:
        passed, n = (sum(one[arm].get(role, [0, 0])[place] for one in runs) for place in (0, 1))
        return f"{passed / n:.0%}" if n else "not known"

    def suite(runs: list[dict[str, Any]], part: str, place: int) -> str:
        found = [one["suite"][part] for one in runs]
        return f"{statistics.mean(one[place] for one in found):.1f} of {found[0][2]}"

    for variant in variants:
        runs = [one for one in read if one["variant"] == variant]
        if not runs:
            continue
        if len(lines) == 2:
            cells = [share(runs[:1], "base", role) for role in (EVERY_ROLE, *roles)]
            cells += [suite(runs[:1], part, 0) for part in parts]
            lines.append(f"| the base, not tuned | | | {' | '.join(cells)} | | |")
        cells = [variant, str(len(runs)), str(runs[0]["steps"])]
        cells += [share(runs, "tuned", role) for role in (EVERY_ROLE, *roles)]
        cells += [suite(runs, part, 1) for part in parts]
        cells += [str(min(one["suite"][parts[0]][1] for one in runs)) if parts else ""]
        cells.append(f"{statistics.mean(one['train_s'] for one in runs):.0f} s")
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "", f"Answers of the base: {prepared['prompts']} prompts in {prepared['answers_s']:.0f} s, "
        f"{prepared['answer_tokens']:,} tokens, {prepared['cut']} cut off at the limit. "
        f"Trained on: {read[0]['device'] if read else 'nothing yet'}.",
    ]  # fmt: skip
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("/tmp/journeyman-forgetting"))
    parser.add_argument("--device", default="auto")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=1, help="runs at the same time, which share the cores")
    parser.add_argument("--cores", type=int, default=max(1, int(usable_cores())))
    parser.add_argument("--variants", default=",".join(VARIANTS), help="separated by commas")
    parser.add_argument("--base", type=Path, help="a GGUF file instead of the config's base")
    parser.add_argument("--log", type=Path, help="another log than the demo's; with --config if it has roles")
    parser.add_argument("--config", type=Path, help="a config file instead of the demo's")
    parser.add_argument("--set", action="append", default=[], help="KEY=VALUE, for every run")
    parser.add_argument("--one", nargs=2, metavar=("VARIANT", "SEED"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        measure(arguments, arguments.one[0], int(arguments.one[1]))
        return
    if not (arguments.folder / "prepared" / "prepared.json").is_file():
        prepare(arguments)
    config = load_config(arguments.folder / "prepared" / CONFIG_NAME, common(arguments))
    variants = [one for one in arguments.variants.split(",") if settings_of(one, config) is not None]
    todo = [
        (variant, seed)
        for seed in range(arguments.seeds)
        for variant in variants
        if not result_file(arguments, variant, seed).is_file()
    ]
    running: list[tuple[str, subprocess.Popen[bytes]]] = []
    while todo or running:
        while todo and len(running) < arguments.jobs:
            variant, seed = todo.pop(0)
            command = [sys.executable, __file__, *sys.argv[1:], "--one", variant, str(seed)]
            running.append((f"{variant}, seed {seed}", subprocess.Popen(command)))
        time.sleep(0.5)
        for named, process in [one for one in running if one[1].poll() is not None]:
            running.remove((named, process))
            print(f"{named}: {'done' if process.returncode == 0 else f'FAILED ({process.returncode})'}", flush=True)
    print(table(arguments, variants))


if __name__ == "__main__":
    main()
