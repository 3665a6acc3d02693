"""Kills nodes and workers of a Ray cluster under training, and compares every loss with those of a run without it.

    python tools/cluster_training_kills.py [--kills 20] [--steps 400] [--seed 0]

The cluster has a head and two nodes, all real processes on this machine. Every few seconds the process of a training
worker or a whole node is killed with SIGKILL, also while workers start; a killed node comes back. The summary goes to
benchmarks/results/cluster_training_kills.json. Exits with 1 if a loss differs by more than 1e-6 of its value, or fewer
processes were killed than asked for.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

sys.path.extend(str(Path(__file__).parents[1] / folder) for folder in ("tests", "tests/helpers"))

import psutil
from ray.cluster_utils import Cluster

import training_ranks
from conftest import write_tiny_gguf
from journeyman.cluster import ray_training
from journeyman.config import TrainConfig
from journeyman.models.opening import open_base
from journeyman.protocols import SilentReporter
from journeyman.training import backends
from journeyman.training.backends import Backend
from journeyman.training.loop import TrainingJob
from journeyman.training.persisting import train_to_the_end
from ray_cluster import add_node, ray_cluster

RESULT = Path(__file__).parents[1] / "benchmarks" / "results" / "cluster_training_kills.json"
EQUAL, ROWS = 1e-6, 30


class Reporter(SilentReporter):
    """Prints lines, with the time."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def say(self, text: str) -> None:
        print(f"{time.monotonic() - self._start:6.1f} {text}", flush=True)


class Killer:
    """Kills until it has killed enough, or the training is over. Ray wants the main thread for new nodes."""

    def __init__(self, cluster: Cluster, kills: int, seed: int) -> None:
        self._cluster, self._kills, self._moment = cluster, kills, random.Random(seed)
        self.killed = Counter[str]()

    def kill_during(self, training: Future[Any]) -> None:
        while self.killed.total() < self._kills and not training.done():
            time.sleep(self._moment.uniform(0.5, 8))
            if self._moment.random() < 0.25:
                nodes = sorted(self._cluster.worker_nodes, key=lambda node: node.unique_id)
                self._cluster.remove_node(self._moment.choice(nodes), allow_graceful=False)
                add_node(self._cluster)
                self.killed["node"] += 1
            elif workers := self._workers():
                with suppress(psutil.NoSuchProcess):
                    self._moment.choice(workers).kill()
                    self.killed["worker"] += 1

    def _workers(self) -> list[psutil.Process]:
        found = []
        for node in self._cluster.worker_nodes:
            with suppress(psutil.NoSuchProcess):
                raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
                found += [one for one in raylet.children() if "ray::TrainingWorker" in " ".join(one.cmdline())]
        return found


def losses(backend: Backend, config: TrainConfig, folder: Path) -> list[float]:
    """Trains; the loss of every step."""
    job = TrainingJob(training_ranks.rows(ROWS), [], config, "kills", folder / "checkpoints", 50, 60)
    train_to_the_end(backend, job, Reporter())
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


def kills(folder: Path, number: int, steps: int, seed: int) -> dict[str, Any]:
    base = open_base(write_tiny_gguf(folder / "base.gguf", seed=3))
    some = training_ranks.config(0.1)
    epochs = max(1, steps * some.rows_per_step // ROWS)
    changes = {"epochs": epochs, "checkpoint_steps": 5, "patience": epochs * 9, "threads": 1}
    config = some.model_copy(update=changes)
    expected = losses(backends.backend_of(base, config, "keep"), config, folder / "here")
    with ray_cluster(nodes=2) as cluster:
        killer = Killer(cluster, number, seed)
        with (
            closing(ray_training.backend_of(base, config, "keep", None, None, Reporter())) as backend,
            ThreadPoolExecutor(1) as thread,
        ):
            training = thread.submit(losses, backend, config, folder / "ray")
            killer.kill_during(training)
            made = training.result()
    apart = max(abs(one - other) / other for one, other in zip(made, expected, strict=True))
    enough = killer.killed.total() >= number
    return {"steps": len(made), "killed": dict(killer.killed), "apart": apart, "passed": enough and apart < EQUAL}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        result = kills(Path(place), arguments.kills, arguments.steps, arguments.seed)
    result |= {"minutes": round((time.monotonic() - start) / 60, 1), "load": os.getloadavg()[0]}
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))
    return 0 if result["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
