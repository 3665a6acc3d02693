"""What to do with answers that were truncated at max_tokens: drop them, or train them without their end?

    python benchmarks/truncated_answers.py [--share 0.5] [--seeds 1] [--folder /tmp/journeyman-truncated]

Takes the demo's data and truncates a share of the training answers at a random place. Then trains the demo's recipe on
    whole              all answers as they were: the unattainable ideal
    drop               only the answers that were not truncated
    keep_without_end   the truncated ones too, without a terminator
    keep               the truncated ones too, with a terminator after the cut: what happens if nobody notices
and measures, on validation and test rows that were never truncated, the validation loss, and through llama.cpp how many
answers end on their own and how many pass their checks. Results: benchmarks/results/truncated_answers.json.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
from importlib.resources import files
from pathlib import Path

import psutil

from journeyman.artifacts import ADAPTER_FILE, read_rows, write_rows
from journeyman.config import load_config
from journeyman.inference.arm_runner import Inputs
from journeyman.manifests import PlanManifest
from journeyman.pipeline import Run, run_pipeline
from journeyman.protocols import SilentReporter
from journeyman.records import Example, Prediction, Score
from journeyman.rendering.renderer import Renderer
from journeyman.runs import SEALED
from journeyman.stages.evaluate import evaluate
from journeyman.stages.train import train

ARMS = ("whole", "drop", "keep_without_end", "keep")
RESULT = Path(__file__).parent / "results" / "truncated_answers.json"


def cut(row: Example, renderer: Renderer, random_: random.Random, *, ends: bool) -> Example:
    """The row with its answer truncated to 30 to 80 % of its tokens."""
    ids = renderer.encode(row.answer)
    answer = renderer.decode(ids[: max(1, round(len(ids) * random_.uniform(0.3, 0.8)))])
    tokens = len(renderer.encode(answer)) + ends
    return row.model_copy(update={"answer": answer, "ends": ends, "answer_tokens": tokens})


def rows_of_arm(arm: str, rows: list[Example], renderer: Renderer, share: float, seed: int) -> list[Example]:
    random_ = random.Random(seed)
    made = []
    for row in rows:
        is_cut, cutter = random_.random() < share, random.Random(f"{seed}/{row.id}")
        if arm == "whole" or not is_cut:
            made.append(row)
        elif arm != "drop":
            made.append(cut(row, renderer, cutter, ends=arm == "keep"))
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", type=float, default=0.5)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=Path("/tmp/journeyman-truncated"))
    arguments = parser.parse_args()
    shutil.rmtree(arguments.folder, ignore_errors=True)
    arguments.folder.mkdir(parents=True)
    for name in ("interactions.jsonl", "journeyman.toml"):
        (arguments.folder / name).write_bytes(files("journeyman.demo").joinpath(name).read_bytes())
    run = Run(arguments.folder, load_config(arguments.folder / "journeyman.toml"))
    list(run_pipeline(run, "plan", SilentReporter()))
    plan, data = run.result("plan", PlanManifest), run.folder("curate")
    rows = list(read_rows(data / "train.jsonl", Example))
    results = []
    print(f"{'arm':<18} {'rows':>5} {'tokens':>7} {'val loss':>9} {'ended':>8} {'passed':>8} {'of':>4}")
    for seed in range(arguments.seeds):
        for arm in ARMS:
            out = arguments.folder / f"{arm}-{seed}"
            out.mkdir()
            chosen = rows_of_arm(arm, rows, run.renderer, arguments.share, seed)
            write_rows(out / "train.jsonl", chosen)
            config = run.config.train.model_copy(update={"seed": seed})
            made = train(
                out / "train.jsonl", data / "val.jsonl", plan, config, run.base, run.factors, arm, out, SilentReporter()
            )
            sealed, adapters = run.file("curate", SEALED), {"all": out / ADAPTER_FILE}
            asked = Inputs(sealed, out / "train.jsonl", adapters, run.served, run.root)
            evaluate(asked, plan, run.config.evaluate, run.renderer, out, SilentReporter())
            answers = [p for p in read_rows(out / "predictions.jsonl", Prediction) if p.arm == "tuned"]
            verdicts = [v for v in read_rows(out / "scores.jsonl", Score) if v.arm == "tuned"]
            result = {
                "arm": arm,
                "seed": seed,
                "share": arguments.share,
                "rows": len(chosen),
                "tokens": made.tokens,
                "validation_loss": made.adapters["all"].best_loss,
                "ended": sum(p.finish_reason == "stop" for p in answers),
                "passed": sum(v.outcome == "pass" for v in verdicts),
                "tested": len(answers),
            }
            results.append(result)
            print(
                f"{arm:<18} {result['rows']:>5} {result['tokens']:>7} {result['validation_loss']:>9.4f} "
                f"{result['ended']:>8} {result['passed']:>8} {result['tested']:>4}",
                flush=True,
            )
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps({"cores": psutil.cpu_count(logical=False), "results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
