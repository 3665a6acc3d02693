"""Kills nodes and workers of a Ray cluster under ingest and curate, and compares every file of the result.

    python tools/cluster_kills.py [--kills 100] [--rows 4000] [--seed 0] [--minutes 30] [--cases head,slow,spill,full]

The cluster has a head and three nodes, all real processes on this machine. The stages run in a process of their own, as
a user's command does, again and again until enough was killed: every few seconds a worker process or a whole node, with
SIGKILL; a killed node comes back. Then the cases: a head that is killed and started again, a node that runs a tenth of
the time, an object store that is too small, with and without room on the disk. What was run replaces its part of
benchmarks/results/cluster_kills.json. Exits with 1 if a file differs in one byte or a case ends differently.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

sys.path.extend(str(Path(__file__).parents[1] / folder) for folder in ("tests", "tests/helpers", "benchmarks"))

import psutil
import ray
from curation_scale import interactions
from ray.cluster_utils import Cluster

from conftest import write_tiny_gguf
from file_hashes import file_hashes
from journeyman.cluster.machines import machines_of
from journeyman.config import ClusterConfig, Config
from journeyman.curation import passes, row_batches
from journeyman.errors import JourneymanError
from journeyman.models.gguf_file import GgufFile
from journeyman.protocols import SilentReporter
from journeyman.sources.files import sources_of
from journeyman.stages.curate import curate
from journeyman.stages.ingest import ingest
from ray_cluster import STORE, add_node, ray_cluster

RESULT = Path(__file__).parents[1] / "benchmarks" / "results" / "cluster_kills.json"
NODES, BATCH, LARGE = 3, 60_000, 4 << 20
"""LARGE: bytes of batches that do not travel in the calls but through the object stores."""
ROOM = 1 << 20
"""Bytes that are left in a full object store."""


class Inputs:
    """A log and a base, and the hashes of what this machine makes of them without a cluster."""

    def __init__(self, folder: Path, rows: int) -> None:
        self.folder, self.made = folder, 0
        self.log, self.base = folder / "log.jsonl", write_tiny_gguf(folder / "tiny.gguf")
        with self.log.open("w") as file:
            for row in interactions(rows):
                file.write(json.dumps(row) + "\n")
        start = time.monotonic()
        here = Command(self, None)
        assert here.ended() == (0, ""), here.said()
        self.local_s, self.local = time.monotonic() - start, file_hashes(here.out)

    def fresh(self) -> Path:
        self.made += 1
        return self.folder / f"run-{self.made}"

    def judged(self, command: Command) -> dict[str, Any]:
        """How a command ended; waits for it."""
        code, error = command.ended()
        return {"exit_code": code, "error": error, "equal": code == 0 and file_hashes(command.out) == self.local}


class Command:
    """The two stages in a process of their own; `out` is a folder of an earlier one that it resumes."""

    def __init__(self, inputs: Inputs, address: str | None, out: Path | None = None, batch: int = BATCH) -> None:
        self.out = out or inputs.fresh()
        self.out.mkdir(exist_ok=True)
        self._log = self.out.with_suffix(".txt")
        arguments = ["--drive", str(inputs.log), str(inputs.base), str(self.out), address or "", str(batch)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        with self._log.open("w") as said:
            self.process = subprocess.Popen(
                [sys.executable, __file__, *arguments], stdout=said, stderr=said, env=environment
            )
        self.ended_at = 0.0

    @property
    def runs(self) -> bool:
        return self.process.poll() is None

    def said(self) -> str:
        return self._log.read_text()

    def wait_for_ray(self) -> None:
        """Until it is connected and begins, or it ended."""
        while self.runs and "Ray: " not in self.said():
            time.sleep(0.05)

    def ended(self) -> tuple[int, str]:
        """Exit code, and the error."""
        code = self.process.wait(600)
        self.ended_at = time.monotonic()
        said = self.said()
        return code, next(
            (one for one in said.splitlines() if one.startswith(("ERROR ", "error: "))), said[-2000:] if code else ""
        )


def drive(log: str, base: str, out: str, address: str, batch: str) -> int:
    """What a Command runs. A stage that an earlier command finished is not run again."""
    for stage in (sys.modules["journeyman.stages.ingest"], passes):
        stage._WORTH_WORKERS = 0  # type: ignore[attr-defined]
    sys.modules["journeyman.stages.ingest"]._BATCH_BYTES = row_batches.BATCH_BYTES = int(batch)  # type: ignore[attr-defined]
    config, place, reporter = Config(), Path(out), SilentReporter()
    for name in ("ingest", "curate"):
        (place / name).mkdir(exist_ok=True)
    try:
        with machines_of(ClusterConfig(address=address or None), print) as machines:
            if not (place / "ingest.json").exists():
                sources = sources_of([Path(log)])
                read = ingest(
                    sources, config.data, config.redact, place / "ingest", reporter, executor=machines.executor
                )
                (place / "ingest.json").write_text(read.model_dump_json())
            rows = place / "ingest" / "interactions.jsonl.zst"
            made = curate(rows, config, GgufFile(Path(base)), place / "curate", reporter, machines.executor)
            (place / "curate.json").write_text(made.model_dump_json())
    except JourneymanError as error:
        print(f"ERROR {error.code}: {error}", flush=True)
        return error.exit_code
    return 0


def workers_of(cluster: Cluster) -> list[psutil.Process]:
    """The processes of our workers, which have a name while they work."""
    raylets = [node.all_processes["raylet"][0].process.pid for node in cluster.worker_nodes]
    found = []
    for raylet in raylets:
        with suppress(psutil.NoSuchProcess):
            found += [one for one in psutil.Process(raylet).children() if "ray::RowWorker" in " ".join(one.cmdline())]
    return found


def kill_one(cluster: Cluster, moment: random.Random) -> str | None:
    """Kills a worker or a node; returns what it was, None if there was nothing to kill."""
    if moment.random() < 0.5:
        cluster.remove_node(moment.choice(sorted(cluster.worker_nodes, key=id)), allow_graceful=False)
        add_node(cluster)
        return "node"
    workers = workers_of(cluster)
    if not workers:
        return None
    with suppress(psutil.NoSuchProcess):
        moment.choice(workers).kill()
        return "worker"
    return None


def kills(inputs: Inputs, number: int, seed: int, until: float) -> dict[str, Any]:
    """Runs commands until `number` workers and nodes were killed under them."""
    moment, killed, runs = random.Random(seed), Counter[str](), []
    with ray_cluster(NODES, connect=False) as cluster:
        while killed.total() < number and time.monotonic() < until:
            begun, before = time.monotonic(), killed.total()
            command = Command(inputs, cluster.address)
            command.wait_for_ray()
            while command.runs and killed.total() < number:
                time.sleep(moment.uniform(0.5, 3.0))
                if command.runs and (one := kill_one(cluster, moment)):
                    killed[one] += 1
            runs.append(
                {**inputs.judged(command), "kills": killed.total() - before, "s": round(time.monotonic() - begun, 1)}
            )
            print(json.dumps(runs[-1]), flush=True)
    passed = bool(runs) and all(run["equal"] for run in runs)
    return {
        "killed": dict(killed),
        "runs": len(runs),
        "equal": sum(run["equal"] for run in runs),
        "passed": passed,
        "each": runs,
    }


def head(inputs: Inputs) -> dict[str, Any]:
    """The head is killed, and stays away or comes back as another one: one error, and the next command resumes."""
    ways = {}
    for comes_back in (False, True):
        with ray_cluster(NODES, connect=False) as cluster:
            command = Command(inputs, cluster.address)
            command.wait_for_ray()
            time.sleep(5)
            killed_at = time.monotonic()
            cluster.head_node.kill_gcs_server(check_alive=False)
            if comes_back:
                time.sleep(1)
                cluster.head_node.start_gcs_server()
            first = inputs.judged(command)
            noticed_s = round(command.ended_at - killed_at, 1)
        with ray_cluster(NODES, connect=False) as cluster:
            again = inputs.judged(Command(inputs, cluster.address, command.out))
        told = first["exit_code"] != 0 and "it resumes" in first["error"]
        ways["comes back" if comes_back else "stays away"] = {
            "first": first, "noticed_s": noticed_s, "again": again, "passed": told and again["equal"],
        }  # fmt: skip
    return {**ways, "passed": all(way["passed"] for way in ways.values())}


def slow(inputs: Inputs) -> dict[str, Any]:
    """One node's workers are stopped for 0.9 s of each second."""
    with ray_cluster(NODES, connect=False) as cluster:
        command, stopped = Command(inputs, cluster.address), 0
        command.wait_for_ray()
        while command.runs:
            held = workers_of(cluster)[:1]
            for how, for_s in (("suspend", 0.9), ("resume", 0.1)):
                for one in held:
                    with suppress(psutil.NoSuchProcess):
                        getattr(one, how)()
                        stopped += 1
                time.sleep(for_s)
        ended = inputs.judged(command)
    return {**ended, "stopped": stopped // 2, "passed": ended["equal"]}


def spill(inputs: Inputs) -> dict[str, Any]:
    """An object store with less room than the batches under way take: what does not fit goes to the disk."""
    with ray_cluster(NODES) as cluster:
        held = ray.put(b"0" * (STORE - ROOM))
        ended = inputs.judged(Command(inputs, cluster.address, batch=LARGE))
        del held
    return {**ended, "passed": ended["equal"]}


def full(inputs: Inputs) -> dict[str, Any]:
    """The same on a disk that Ray takes for full: one error if it cannot go on, and the command resumes with room."""
    no_room = {"local_fs_capacity_threshold": 0.001, "local_fs_monitor_interval_ms": 100}
    with ray_cluster(NODES, system=no_room) as cluster:
        held = ray.put(b"0" * (STORE - ROOM))
        command = Command(inputs, cluster.address, batch=LARGE)
        first = inputs.judged(command)
        del held
    with ray_cluster(NODES, connect=False) as cluster:
        again = inputs.judged(Command(inputs, cluster.address, command.out))
    told = first["exit_code"] == 1 and first["error"].startswith("ERROR ")
    return {"first": first, "again": again, "passed": (told or first["equal"]) and again["equal"]}


CASES: dict[str, Callable[[Inputs], dict[str, Any]]] = {"head": head, "slow": slow, "spill": spill, "full": full}


def main() -> int:
    if sys.argv[1:2] == ["--drive"]:
        return drive(*sys.argv[2:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--rows", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=30, help="no further run of the kills is started after this")
    parser.add_argument("--cases", default=",".join(CASES), help="of head, slow, spill, full; '' for none")
    arguments = parser.parse_args()
    until = time.monotonic() + 60 * arguments.minutes
    with tempfile.TemporaryDirectory() as place:
        inputs = Inputs(Path(place), arguments.rows)
        result: dict[str, Any] = {
            "rows": arguments.rows, "log_bytes": inputs.log.stat().st_size, "nodes": NODES, "batch_bytes": BATCH,
            "local_s": round(inputs.local_s, 1), "load": os.getloadavg()[0], "files": len(inputs.local),
        }  # fmt: skip
        if arguments.kills:
            result["kills"] = kills(inputs, arguments.kills, arguments.seed, until)
        for name in filter(None, arguments.cases.split(",")):
            result[name] = CASES[name](inputs)
            print(name, json.dumps(result[name]), flush=True)
    before = json.loads(RESULT.read_text()) if RESULT.is_file() else {}
    RESULT.write_text(json.dumps({**before, **result}, indent=1) + "\n")
    print(json.dumps(result, indent=1))
    return 0 if all(part["passed"] for part in result.values() if isinstance(part, dict)) else 1


if __name__ == "__main__":
    sys.exit(main())
