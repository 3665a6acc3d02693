"""Kills nodes, replicas and engines under an evaluation on a Ray cluster, and compares every answer with the local one.

    python tools/cluster_evaluation_kills.py [--kills 100] [--minutes 30] [--seed 0]

The cluster has a head and two nodes, all real processes on this machine. Questions are put until enough was killed:
every few seconds the process of a replica, that of an engine or a whole node, with SIGKILL; a killed node comes back.
The summary goes to benchmarks/results/cluster_evaluation_kills.json. Exits with 1 if an answer differs, a question was
kept twice, or an engine is left.
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
from contextlib import suppress
from pathlib import Path
from typing import Any

sys.path.extend(str(Path(__file__).parents[1] / folder) for folder in ("tests", "tests/helpers"))

import psutil
from ray.cluster_utils import Cluster

from conftest import write_tiny_gguf
from journeyman.checksum_lines import read_lines
from journeyman.cluster.ray_engines import running_on_ray
from journeyman.evidence import RESPONSES
from journeyman.inference.dispatch import DispatchProgress, dispatch
from journeyman.inference.engines import running_engine
from journeyman.inference.response_cache import ResponseCache
from journeyman.protocols import EngineSettings, Question, SilentReporter
from journeyman.records import Message
from ray_cluster import add_node, ray_cluster

RESULT = Path(__file__).parents[1] / "benchmarks" / "results" / "cluster_evaluation_kills.json"
QUESTIONS, TOKENS = 40, 700
CONTEXT = 2000


def processes_of(cluster: Cluster) -> dict[str, list[psutil.Process]]:
    """The processes of replicas and of their engines."""
    replicas = []
    for node in cluster.worker_nodes:
        with suppress(psutil.NoSuchProcess):
            raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
            replicas += [one for one in raylet.children() if "ray::Replica" in " ".join(one.cmdline())]
    engines = []
    for replica in replicas:
        with suppress(psutil.NoSuchProcess):
            engines += replica.children()
    return {"replica": replicas, "engine": engines}


class Killer(SilentReporter):
    """Kills something now and then while questions are put; it is told of progress every half second."""

    def __init__(self, cluster: Cluster, seed: int, number: int) -> None:
        self._cluster, self._moment, self._number = cluster, random.Random(seed), number
        self._next = time.monotonic() + 5
        self.killed, self.engines = Counter[str](), set[psutil.Process]()

    def advance(self, done: float, note: str = "") -> None:
        found = processes_of(self._cluster)
        self.engines |= set(found["engine"])
        if self.killed.total() >= self._number or time.monotonic() < self._next or not done:
            return
        kind = self._moment.choice(("replica", "engine", "node"))
        if kind == "node":
            nodes = sorted(self._cluster.worker_nodes, key=lambda node: node.unique_id)
            self._cluster.remove_node(self._moment.choice(nodes), allow_graceful=False)
            add_node(self._cluster)
        elif not found[kind]:
            return
        else:
            with suppress(psutil.NoSuchProcess):
                self._moment.choice(found[kind]).kill()
        self.killed[kind] += 1
        self._next = time.monotonic() + self._moment.uniform(0.5, 4)


def questions(part: int) -> list[Question]:
    numbers = range(part * QUESTIONS, (part + 1) * QUESTIONS)
    return [
        Question(f"r{n}", "coder", "base", [Message(role="user", content=f"Task {n}: amber")], TOKENS) for n in numbers
    ]


def kills(folder: Path, number: int, seed: int, until: float) -> dict[str, Any]:
    """Puts questions until `number` processes were killed, all to one engine."""
    base = write_tiny_gguf(folder / "base.gguf", context=CONTEXT)
    settings = EngineSettings(base, {}, CONTEXT, 1, 0.0, 1)
    answers, asked, equal, part = ResponseCache(folder), 0, 0, 0
    with ray_cluster(nodes=2) as cluster:
        killer = Killer(cluster, seed, number)
        with running_on_ray(settings, killer) as engine:
            while killer.killed.total() < number and time.monotonic() < until:
                mine = questions(part)
                found = dispatch(mine, engine, answers, 1, DispatchProgress(killer, len(mine)))
                with running_engine(settings) as local:
                    equal += sum(
                        local.generate(one).text == far.text for one, far in zip(mine, found.predictions, strict=True)
                    )
                asked, part = asked + len(mine), part + 1
                print(f"{asked} asked, {equal} equal, killed {dict(killer.killed)}", flush=True)
        _, alive = psutil.wait_procs(killer.engines, timeout=10)
        left = [one for one in alive if one.status() != psutil.STATUS_ZOMBIE]
    keys = Counter(line.content["key"] for line in read_lines(folder / RESPONSES)[0] if line.content)
    return {
        "killed": dict(killer.killed),
        "questions": asked,
        "equal": equal,
        "kept": keys.total(),
        "engines_left": len(left),
        "passed": equal == asked == keys.total() == len(keys) and not left,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--minutes", type=float, default=30, help="no further questions are put after this")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        result = kills(Path(place), arguments.kills, arguments.seed, start + 60 * arguments.minutes)
    result |= {"minutes": round((time.monotonic() - start) / 60, 1), "load": os.getloadavg()[0]}
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))
    return 0 if result["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
