"""ingest and curate on a Ray cluster of one node against this machine's own processes, and what bounds a large cluster.

    python benchmarks/cluster_scale.py [--rows 100000] [--workers 1 2 4]

Writes a synthetic log (see curation_scale.py), then runs both stages in processes of their own: locally with as many
workers as the machine has cores, and on Ray with 1, 2 and 4 workers. The overhead is Ray against local with the same
number of workers; connecting, the check of the nodes and the start of the workers are in it. One more run in a single
process measures the processor time of the two parts for each gigabyte of log: what workers do, and what the one process
that reads and writes does. From these follows how long a log takes with any number of workers (`model` in the result):

    seconds = max(gigabytes × worker_s_per_gb ÷ workers, gigabytes × driver_s_per_gb) + rows × between_s_per_row

where driver_s_per_gb is the processor time of that process in the run on Ray (all its threads) from the first batch of
a pass to its last, and `between` is what is done outside the passes: rows are compared and split. The passes are added
up one by one. The overhead is also stated in processor time of all processes, Ray's own among them. Results go to
benchmarks/results/cluster_scale.json.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

sys.path.extend(str(Path(__file__).parents[1] / folder) for folder in ("tests", "tests/helpers", "benchmarks"))

import psutil
from curation_scale import write_log

from conftest import write_tiny_gguf
from file_hashes import file_hashes
from journeyman.config import Config
from journeyman.curation import passes
from journeyman.models.gguf_file import GgufFile
from journeyman.parallel import Executor, LocalProcesses
from journeyman.protocols import SilentReporter
from journeyman.sources.files import sources_of
from journeyman.stages.curate import curate
from journeyman.stages.ingest import ingest

RESULT = Path(__file__).parent / "results" / "cluster_scale.json"
TERABYTE = 1000.0
CLUSTER = (2, 4, 8, 16, 32, 64, 128)


class Steps(SilentReporter):
    """Wall and processor seconds of each step of this process."""

    def __init__(self) -> None:
        self.wall: dict[str, float] = {}
        self.own: dict[str, float] = {}
        self._name, self._at = "", (0.0, 0.0)

    def begin(self, task: str, total: float, unit: str) -> None:
        now = time.perf_counter(), time.process_time()
        if self._name:
            self.wall[self._name] = self.wall.get(self._name, 0.0) + now[0] - self._at[0]
            self.own[self._name] = self.own.get(self._name, 0.0) + now[1] - self._at[1]
        self._name, self._at = task, now


class Watched:
    """An Executor that notes what the passes cost this process.

    Args:
        executor: does the work; None: this process, and what workers would do is added up instead.

    Attributes:
        wall, own, workers: name of the function → seconds from the first batch to the last, processor seconds of this
            process in them (all its threads), and processor seconds of the function.
    """

    def __init__(self, executor: Executor | None) -> None:
        self._executor = executor
        self.wall: dict[str, float] = {}
        self.own: dict[str, float] = {}
        self.workers: dict[str, float] = {}

    def map_batches(
        self,
        function: Callable[[Any, Any], Any],
        setup: Callable[[], Any],
        batches: Iterable[Any],
        *,
        named: Callable[[Any], str] = lambda batch: "",
        stopping: Callable[[], bool] = lambda: False,
    ) -> Iterator[Any]:
        name, start = function.__name__, (time.perf_counter(), time.process_time())
        if self._executor is not None:
            yield from self._executor.map_batches(function, setup, batches, named=named, stopping=stopping)
        else:
            yield from self._here(function, setup(), batches)
        for table, was, now in zip(
            (self.wall, self.own), start, (time.perf_counter(), time.process_time()), strict=True
        ):
            table[name] = table.get(name, 0.0) + now - was

    def _here(self, function: Callable[[Any, Any], Any], state: Any, batches: Iterable[Any]) -> Iterator[Any]:
        for batch in batches:
            start = time.process_time()
            made = function(state, batch)
            self.workers[function.__name__] = self.workers.get(function.__name__, 0.0) + time.process_time() - start
            yield made


def both_stages(log: Path, base: Path, out: Path, inner: Executor | None) -> dict[str, Any]:
    config, steps, executor = Config(), Steps(), Watched(inner)
    for name in ("ingest", "curate"):
        (out / name).mkdir(parents=True, exist_ok=True)
    ingest(sources_of([log]), config.data, config.redact, out / "ingest", steps, executor=executor)
    curate(out / "ingest" / "interactions.jsonl.zst", config, GgufFile(base), out / "curate", steps, executor)
    steps.begin("", 0, "")
    passes = {"wall": executor.wall, "own": executor.own, "workers": executor.workers}
    return {"wall": steps.wall, "own": steps.own, "passes": passes}


def one(kind: str, workers: str, log: str, base: str, out: str, address: str) -> None:
    """One measured run; prints JSON. Workers are used however small the log is."""
    for stage in (sys.modules["journeyman.stages.ingest"], passes):
        stage._WORTH_WORKERS = 0  # type: ignore[attr-defined]
    start = time.perf_counter()
    inputs = Path(log), Path(base), Path(out)
    if kind == "ray":
        from journeyman.cluster.connecting import connected
        from journeyman.cluster.ray_executor import RayExecutor

        with connected(address), RayExecutor(int(workers)) as executor:
            joined = time.perf_counter() - start
            made = both_stages(*inputs, executor)
            made["connect_s"] = joined
    elif kind == "timed":
        made = both_stages(*inputs, None)
    else:
        made = both_stages(*inputs, LocalProcesses(int(workers)))
    made["s"] = time.perf_counter() - start
    made["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    print(json.dumps(made))


class Processors:
    """Adds up the processor time of all processes below this one, looked at five times a second: Ray does not count the
    workers that ended.

    Attributes:
        seconds: program → processor seconds in this context.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._seen: dict[tuple[int, float], tuple[str, float]] = {}
        self._before: dict[tuple[int, float], float] = {}
        self._ended = threading.Event()

    def __enter__(self) -> Processors:
        self._look()
        self._before = {key: seconds for key, (_, seconds) in self._seen.items()}
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._look()
        for key, (name, seconds) in self._seen.items():
            self.seconds[name] = self.seconds.get(name, 0.0) + seconds - self._before.get(key, 0.0)

    def _watch(self) -> None:
        while not self._ended.wait(0.2):
            self._look()

    def _look(self) -> None:
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.NoSuchProcess, IndexError):
                name, times = _program(process.cmdline()), process.cpu_times()
                self._seen[process.pid, process.create_time()] = name, times.user + times.system


def _program(words: list[str]) -> str:
    python = Path(words[0]).name.startswith("python")
    if words[0].startswith("ray::") or (
        python and any("default_worker" in one or "spawn_main" in one for one in words)
    ):
        return "workers"
    if "--one" in words:
        return "driver"
    scripts = [word for word in words if word.endswith(".py")] if python else []
    return Path([words[0], *scripts][-1]).name


def run(kind: str, workers: int, inputs: tuple[Path, Path], folder: Path, address: str = "") -> dict[str, Any]:
    out = folder / f"{kind}-{workers}"
    arguments = [kind, str(workers), *map(str, inputs), str(out), address]
    with Processors() as used:
        done = subprocess.run(
            [sys.executable, __file__, "--one", *arguments],
            capture_output=True,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
    if done.returncode:
        raise SystemExit(done.stderr)
    made: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    made["cpu"] = {name: round(seconds, 2) for name, seconds in used.seconds.items() if seconds > 0.05}
    made["cpu_s"] = sum(made["cpu"].values())
    print(f"{kind:>6} {workers} workers: {made['s']:.1f} s, {made['cpu_s']:.1f} s of processor time", flush=True)
    return {**made, "kind": kind, "workers": workers, "load": os.getloadavg()[0], "hashes": file_hashes(out)}


def model(gigabytes: float, rows: int, timed: dict[str, Any], ray: dict[str, Any]) -> dict[str, Any]:
    """Seconds for each number of workers for a terabyte of such rows; every input is a measured figure."""
    steps = timed["passes"]["workers"]
    worker = {name: seconds / gigabytes for name, seconds in steps.items()}
    driver = {name: ray["passes"]["own"][name] / gigabytes for name in steps}
    between = (sum(timed["wall"].values()) - sum(timed["passes"]["wall"].values())) / rows
    rows_in_all = rows / gigabytes * TERABYTE
    hours = {}
    for workers in CLUSTER:
        passes = sum(max(TERABYTE * worker[name] / workers, TERABYTE * driver[name]) for name in steps)
        hours[workers] = round((passes + between * rows_in_all) / 3600, 1)
    return {
        "worker_s_per_gb": worker, "driver_s_per_gb": driver, "between_s_per_row": between,
        "most_useful_workers": {name: round(worker[name] / driver[name], 1) for name in steps},
        "rows_of_1_tb": round(rows_in_all), "hours_for_1_tb": hours,
    }  # fmt: skip


def main() -> None:
    if sys.argv[1:2] == ["--one"]:
        one(*sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2, 4])
    arguments = parser.parse_args()
    from ray_cluster import ray_cluster

    before, cores = os.getloadavg()[0], len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        inputs = folder / "log.jsonl", write_tiny_gguf(folder / "tiny.gguf")
        write_log(inputs[0], arguments.rows)
        gigabytes = inputs[0].stat().st_size / 1e9
        runs = [run("local", cores, inputs, folder), run("timed", 1, inputs, folder)]
        with ray_cluster(nodes=1, cpus=max([cores, *arguments.workers]), connect=False) as cluster:
            runs += [run("ray", workers, inputs, folder, cluster.address) for workers in arguments.workers]
    equal = all(one.pop("hashes") == runs[0]["hashes"] for one in runs[1:])
    del runs[0]["hashes"]
    local, timed, *rest = runs
    same = next((one for one in rest if one["workers"] == cores), rest[0])
    result = {
        "machine": {"cores": cores, "memory_gb": psutil.virtual_memory().total / 1e9, "load_before": before},
        "rows": arguments.rows, "gigabytes": gigabytes, "equal": equal,
        "overhead_of_ray": round(same["s"] / local["s"] - 1, 3) if same["workers"] == cores else None,
        "overhead_in_cpu": round(same["cpu_s"] / local["cpu_s"] - 1, 3) if same["workers"] == cores else None,
        "model": model(gigabytes, arguments.rows, timed, same), "runs": runs,
    }  # fmt: skip
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps({name: value for name, value in result.items() if name != "runs"}, indent=1))


if __name__ == "__main__":
    main()
