"""What do `journeyman iterate` and `journeyman cross-validate` give, and what do they cost?

    python benchmarks/iterate.py [--seeds 3] [--budget 30m] [--looks 3] [--folds 5] [--tasks demo,office] [--base FILE]
                                 [--device auto] [--threads 2] [--set KEY=VALUE] [--folder /tmp/journeyman-iterate]

For each task set (see benchmarks/search.py) and each seed, which decides split and training: cross-validates a weak
recipe (an eighth of the default learning rate, one epoch), makes the run with it, and iterates. Prints a Markdown
table: cross-validated success with its interval, held-out success and verdict before and after, what was tried and
what the looks showed; results: benchmarks/results/iterate.json. An interrupted benchmark resumes in its folder.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from journeyman.api.cross_validating import CrossValidate
from journeyman.api.iterating import Iterate
from journeyman.config import load_config
from journeyman.errors import JourneymanError
from journeyman.iterating.ledger import Ledger, Looked, Tried
from journeyman.iterating.telling import settings_text
from journeyman.manifests import DecisionManifest, EvaluationManifest, Rate
from journeyman.pipeline import run_pipeline
from journeyman.records import EVERY_ROLE, TUNED
from journeyman.runs import Run
from search import TASKS, Printing, make

RESULT = Path(__file__).parent / "results" / "iterate.json"
WEAK = ["train.learning_rate=6.25e-5", "train.epochs=1"]


def one(given: argparse.Namespace, task: str, seed: int) -> dict[str, Any]:
    folder, reporter = given.folder / f"{task}-{seed}", Printing()
    if not (folder / "journeyman.toml").is_file():
        make(folder, task, "default")
    settings = [f"curate.seed={seed}", f"train.seed={seed}", f'train.device="{given.device}"', *WEAK]
    settings += [f"evaluate.threads={given.threads}", *([f"base.model={json.dumps(given.base)}"] if given.base else [])]
    settings += given.set
    begun = time.monotonic()
    folds, _ = CrossValidate(folder, given.folds, settings).run(reporter)
    folds_s = time.monotonic() - begun
    run = Run(folder, load_config(folder / "journeyman.toml", settings))
    if not Ledger(folder).entries:
        for _ in run_pipeline(run, "decide", reporter):
            pass
    kept = folder / "before.json"
    if not kept.is_file():
        kept.write_text(json.dumps(held_out(run)))
    begun = time.monotonic()
    ended = Iterate(folder, given.budget, given.looks, settings).run(reporter)
    entries = Ledger(folder).entries
    return {
        "task": task, "seed": seed, "folds": shown(folds.roles[EVERY_ROLE].arms[TUNED].success), "folds_s": folds_s,
        "before": json.loads(kept.read_text()), "after": held_out(run), "iterating_s": time.monotonic() - begun,
        "ended": ended.reason.sentence(), "settings": ended.settings,
        "tried": [(settings_text(one.change), one.outcome) for one in entries if isinstance(one, Tried)],
        "looks": [(one.look, one.passed, one.rows, one.verdict) for one in entries if isinstance(one, Looked)],
    }  # fmt: skip


def held_out(run: Run) -> dict[str, Any]:
    decision, evaluation = run.result("decide", DecisionManifest), run.result("evaluate", EvaluationManifest)
    return {
        "success": shown(evaluation.roles[EVERY_ROLE].arms[decision.ships].success), "verdict": decision.verdict,
        "confidence": evaluation.confidence,
    }  # fmt: skip


def shown(rate: Rate | None) -> str:
    return "not known" if rate is None else f"{rate.passed}/{rate.n} ({rate.low:.0%} to {rate.high:.0%})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--budget", default="30m")
    parser.add_argument("--looks", type=int, default=3)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--base", default="")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--set", action="append", default=[], help="more settings, such as decide.min_success=0.5")
    parser.add_argument("--folder", type=Path, default=Path("/tmp/journeyman-iterate"))
    parser.add_argument("--result", type=Path, default=RESULT)
    given = parser.parse_args()
    results = []
    print("| task | seed | folds | held out, before | after | looks | tried | ended |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for task, seed in [(task, seed) for task in given.tasks.split(",") for seed in range(given.seeds)]:
        try:
            made = one(given, task, seed)
        except JourneymanError as error:
            print(f"| {task} | {seed} | failed: {error} | | | | | |", flush=True)
            print(error, file=sys.stderr)
            continue
        results.append(made)
        given.result.parent.mkdir(parents=True, exist_ok=True)
        given.result.write_text(json.dumps(results, indent=1))
        tried = "; ".join(f"{what}: {outcome.replace('_', ' ')}" for what, outcome in made["tried"])
        print(
            f"| {task} | {seed} | {made['folds']} in {made['folds_s']:.0f} s | {made['before']['success']}, "
            f"{made['before']['verdict']} | {made['after']['success']}, {made['after']['verdict']} "
            f"| {len(made['looks'])} | {tried} in {made['iterating_s']:.0f} s | {made['ended']} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
