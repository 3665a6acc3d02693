"""Does `journeyman search` find a better recipe than the default, within a stated budget?

    python benchmarks/search.py [--seeds 3] [--jobs 1] [--budget 10m] [--tasks demo,office] [--base FILE]
                                [--device auto] [--threads 2] [--recipe default] [--folder /tmp/journeyman-search]

For each task set (the demo's data, and benchmarks/office_tasks.py) and each seed, which decides the split, the
training and the search: curates, searches within the budget, and then trains the default, what is recommended, and the
best other recipe, recommended or not, on all training rows. Only then, and only here, the held-out test rows are asked
to all of them, through the engine that serves. Prints a Markdown table; results: benchmarks/results/search.json.

On two cores a seed takes the budget and about ten minutes; 15 minutes allow one or two candidates there, 35 about ten.
Finished seeds in the folder are not repeated, and an interrupted one resumes. `--recipe default` has [train] unset;
`--recipe demo` takes the demo's own [train], which a person had tuned.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from pathlib import Path
from typing import Any

import office_tasks
import psutil

from journeyman.api.searching import run_search
from journeyman.artifacts import read_rows
from journeyman.config import load_config
from journeyman.protocols import SilentReporter
from journeyman.records import Example, Score
from journeyman.runs import SEALED, Run
from journeyman.search.space import applied
from journeyman.search.trying import described
from journeyman.trials.answering import Arm, score_rows, tuned
from journeyman.trials.rows import rows_of
from journeyman.trials.training import train_trial

RESULT = Path(__file__).parent / "results" / "search.json"
TASKS = ("demo", "office")


class Printing(SilentReporter):
    def say(self, text: str) -> None:
        print(f"  {text}", file=sys.stderr, flush=True)


def make(folder: Path, task: str, recipe: str) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    demo = files("journeyman.demo")
    config = demo.joinpath("journeyman.toml").read_text()
    train = tomllib.loads(config)["train"] if recipe == "demo" else {}
    if task == "demo":
        (folder / "interactions.jsonl").write_bytes(demo.joinpath("interactions.jsonl").read_bytes())
        roles = config[config.index("[roles.coder]") : config.index("[train]")]
    else:
        office_tasks.write(folder / "interactions.jsonl")
        roles = office_tasks.CONFIG
    (folder / "journeyman.toml").write_text(
        '[data]\nsources = ["interactions.jsonl"]\n[curate]\nval_share = 0.2\ntest_share = 0.3\n'
        '[curate.rules]\ntruncated = "drop"\n'
        + roles
        + "\n[train]\n"
        + "".join(f"{key} = {json.dumps(value)}\n" for key, value in dotted(train).items())
        + f"\n[evaluate]\nmax_new_tokens = {200 if task == 'demo' else 96}\nfew_shot = 0\ncontext = 1024\n"
        "parallel = 8\n[plan]\nmeasure_s = 0\n"
    )


def dotted(section: dict[str, Any], above: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in section.items():
        found |= dotted(value, f"{above}{key}.") if isinstance(value, dict) else {above + key: value}
    return found


def one(given: argparse.Namespace, task: str, seed: int) -> dict[str, Any]:
    folder = given.folder / f"{task}-{seed}"
    if not (folder / "journeyman.toml").is_file():  # otherwise it was interrupted, and resumes
        make(folder, task, given.recipe)
    settings = [f"curate.seed={seed}", f"train.seed={seed}", f"search.seed={seed}", f'search.budget="{given.budget}"']
    settings += [f'train.device="{given.device}"', f"evaluate.threads={given.threads}"]
    settings += [f"train.threads={given.threads}"]
    settings += [f"base.model={json.dumps(given.base)}"] if given.base else []
    settings += given.set
    begun, reporter = time.monotonic(), Printing()
    found = run_search(folder, settings, reporter)
    searched_s = time.monotonic() - begun
    run = Run(folder, load_config(folder / "journeyman.toml", settings))
    rows, state = rows_of(run), found.state
    test = list(read_rows(run.file("curate", SEALED), Example))
    numbers = {0} | ({state.found.number, state.found.best or 0} if state.found is not None else set())
    changes = {trial.number: trial.changes for trial in found.trials}
    arms = []
    for number in sorted(numbers):
        config = applied(run.config.train, changes[number])
        _, adapters = train_trial(run, config, rows, folder / "benchmark" / str(number), reporter)
        arms.append(Arm(tuned(str(number)), test, adapters))
    scores = score_rows(run, arms, folder / "benchmark" / "answers", reporter)

    def passed(number: int) -> dict[str, bool]:
        return {score.id: score.outcome == "pass" for score in scores[tuned(str(number))]}

    default = passed(0)
    number, best = (state.found.number, state.found.best or 0) if state.found is not None else (0, 0)
    return {
        "task": task, "seed": seed, "state": state.state, "searched_s": searched_s,
        "rows": {"train": len(rows.train), "val": len(rows.val), "test": len(test)},
        "trials": len(found.trials), "rungs": [rung.model_dump() for rung in state.rungs],
        "default": sum(default.values()),
        "found": sum(passed(number).values()), "found_changes": dict(changes[number]),
        "best_other": sum(passed(best).values()), "best_other_changes": dict(changes[best]),
        "found_wins": sum(now and not default[row] for row, now in passed(number).items()),
        "found_losses": sum(default[row] and not now for row, now in passed(number).items()),
        "roles": {
            name: by_role(scores[tuned(str(which))])
            for name, which in (("default", 0), ("found", number), ("best_other", best))
        },
        "told": found.told(),
    }  # fmt: skip


def by_role(scores: list[Score]) -> dict[str, str]:
    roles = sorted({score.role for score in scores})
    return {
        role: f"{sum(s.outcome == 'pass' for s in scores if s.role == role)}/{sum(s.role == role for s in scores)}"
        for role in roles
    }


def in_processes(given: argparse.Namespace) -> list[dict[str, Any]]:
    """Each task and seed in a process of its own, `--jobs` at a time."""

    def run(which: tuple[str, int]) -> dict[str, Any]:
        task, seed = which
        out = given.folder / f"{task}-{seed}.json"
        if out.is_file():
            return json.loads(out.read_text())
        options = [f"--{key}={getattr(given, key)}" for key in ("budget", "device", "threads", "recipe", "folder")]
        options += [f"--base={given.base}"] if given.base else []
        options += [f"--set={one}" for one in given.set]
        log = given.folder / f"{task}-{seed}.log"
        with log.open("wb") as heard:
            command = [sys.executable, __file__, "--one", f"{task}:{seed}", *options]
            ended = subprocess.run(command, stdout=heard, stderr=heard)
        if ended.returncode:
            print(f"{task} {seed} failed: see {log}", file=sys.stderr, flush=True)
            return {"task": task, "seed": seed, "failed": log.read_text().splitlines()[-1:]}
        return json.loads(out.read_text())

    which = [(task, seed) for seed in range(given.seeds) for task in given.tasks.split(",")]
    given.folder.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(given.jobs) as pool:
        return list(pool.map(run, which))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--budget", default="10m")
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--base", default="")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--recipe", choices=("default", "demo"), default="default")
    parser.add_argument("--set", action="append", default=[], help="more settings, such as evaluate.unsafe_exec=true")
    parser.add_argument("--folder", type=Path, default=Path("/tmp/journeyman-search"))
    parser.add_argument("--result", type=Path, default=RESULT)
    parser.add_argument("--one", default="", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        task, _, seed = given.one.partition(":")
        made = one(given, task, int(seed))
        (given.folder / f"{task}-{seed}.json").write_text(json.dumps(made))
        return
    begun = time.monotonic()
    results = in_processes(given)
    seconds = time.monotonic() - begun
    print(f"budget {given.budget} for each search, {given.jobs} at a time, {seconds:.0f} s in all\n")
    print("| task | seed | train / val / test | trials | default | found | recipe | best other, recommended or not |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for made in results:
        if "failed" in made:
            print(f"| {made['task']} | {made['seed']} | | | | | failed | |")
            continue
        sizes, n = made["rows"], made["rows"]["test"]
        print(
            f"| {made['task']} | {made['seed']} | {sizes['train']} / {sizes['val']} / {n} | {made['trials']} "
            f"| {made['default']}/{n} | {made['found']}/{n} | {described(made['found_changes'])} "
            f"| {made['best_other']}/{n}: {described(made['best_other_changes'])} |"
        )
    for task in given.tasks.split(","):
        mine = [made for made in results if made["task"] == task and "failed" not in made]
        if mine:
            total = sum(made["rows"]["test"] for made in mine)
            rates = {key: sum(made[key] for made in mine) / total for key in ("default", "found", "best_other")}
            print(f"\n{task}: " + ", ".join(f"{key} {rate:.1%}" for key, rate in rates.items()))
    given.result.parent.mkdir(exist_ok=True)
    about = {"cores": psutil.cpu_count(logical=False), "device": given.device, "budget": given.budget}
    about |= {"jobs": given.jobs, "threads": given.threads, "recipe": given.recipe, "seconds": seconds}
    given.result.write_text(json.dumps({**about, "results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
