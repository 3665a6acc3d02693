"""Memory and time of what curate does with all rows at once: near-duplicates, repeats, groups, split, leak check.

    python benchmarks/global_steps.py [ROWS ...] [--ray 2] [--folder /tmp/journeyman-global]

Writes the columns of synthetic rows without a log: tasks of 60 to 150 words, 10 % repeated, 5 % with a few words
changed, whose bands agree as often as MinHash makes them agree. Then runs the steps in a process of their own: locally,
and with --ray on a cluster of one node with so many workers. Reports seconds
(of the clock, and of this process's processor), the highest resident memory and the highest anonymous memory, which the
system cannot give to others as it can the pages of mapped files. SKIP_RULES="misrouted" leaves out rules, such as this
one, which takes most of the time. Results go to benchmarks/results/global_steps.json.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

sys.path.extend(str(Path(__file__).parents[1] / folder) for folder in ("tests", "tests/helpers"))

import numpy as np
import psutil

from journeyman.config import Config
from journeyman.curation.columns import ROW, mapped_array
from journeyman.curation.duplicates import Words
from journeyman.curation.leak_check import separate
from journeyman.curation.lint import _repetition
from journeyman.curation.log import Log
from journeyman.curation.passes import BAND_FILES
from journeyman.curation.selection import choose
from journeyman.parallel import LOCAL, Executor
from journeyman.protocols import SilentReporter

RESULT = Path(__file__).parent / "results" / "global_steps.json"
ROLES = ["coder", "tester", "researcher", "coordinator", "reviewer"]
_CHUNK, _VOCABULARY = 250_000, 40_000
_SHORTEST, _LONGEST, _MOST_CHANGED = 60, 150, 6


def write_columns(folder: Path, count: int) -> None:
    """The columns of `count` rows as the first pass leaves them; a row is a copy of one of the same 250,000 rows."""
    random = np.random.default_rng(0)
    vocabulary = random.integers(0, 1 << 32, _VOCABULARY, dtype=np.uint64).astype(np.uint32)
    files = {name: (folder / name).open("wb") for name in ("rows", "words.u4", *BAND_FILES)}
    for start in range(0, count, _CHUNK):
        size = min(_CHUNK, count - start)
        rows = np.zeros(size, dtype=ROW)
        lengths = random.integers(_SHORTEST, _LONGEST + 1, size)
        tasks = random.integers(1, 1 << 63, size, dtype=np.uint64)
        bands = random.integers(0, 1 << 32, (size, len(BAND_FILES)), dtype=np.uint64).astype(np.uint32)
        texts = vocabulary[(random.random((size, _LONGEST)) ** 2 * _VOCABULARY).astype(np.int64)]
        dice, source = random.random(size), random.integers(0, size, size)
        copied = (dice < 0.15) & (dice[source] >= 0.15)
        near = copied & (dice < 0.05)
        texts[copied], lengths[copied] = texts[source[copied]], lengths[source[copied]]
        tasks[copied & ~near] = tasks[source[copied & ~near]]
        changed = random.integers(1, _MOST_CHANGED + 1, size)
        for number in range(_MOST_CHANGED):
            more = np.flatnonzero(near & (changed > number))
            texts[more, 3 + 7 * number] = random.integers(0, 1 << 32, len(more))
        lost = np.where(near, 3 * changed, 0)
        agree = ((lengths - 2 - lost) / (lengths - 2 + lost)) ** 4
        same = copied[:, None] & (random.random(bands.shape) < agree[:, None])
        bands = np.where(same, bands[source], bands)
        rows["task"], rows["words"] = tasks, lengths
        rows["role"] = random.choice(len(ROLES), size, p=[0.5, 0.2, 0.15, 0.1, 0.05])
        rows["line"], rows["session"] = np.arange(start, start + size), np.arange(start, start + size) // 4 + 1
        for name in ("id", "answer", "tail"):
            rows[name] = random.integers(1, 1 << 63, size)
        rows["system"], rows["turns"], rows["done"], rows["time"] = rows["role"] + 1, 2, True, np.nan
        rows["cut"] = random.random(size) < 0.2
        files["rows"].write(rows.tobytes())
        files["words.u4"].write(texts[np.arange(_LONGEST) < lengths[:, None]].tobytes())
        for number, name in enumerate(BAND_FILES):
            files[name].write(bands[:, number].tobytes())
    for file in files.values():
        file.close()


class Memory(threading.Thread):
    """Watches this process.

    Attributes:
        resident, anonymous: the most bytes so far.
    """

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.resident = self.anonymous = 0

    def run(self) -> None:
        while True:
            lines = Path("/proc/self/status").read_text().splitlines()
            now = {
                line.split(":")[0]: int(line.split()[1]) << 10 for line in lines if line.startswith(("VmRSS", "RssA"))
            }
            self.resident = max(self.resident, now["VmRSS"])
            self.anonymous = max(self.anonymous, now["RssAnon"])
            time.sleep(0.02)


def global_steps(folder: Path, executor: Executor) -> dict[str, Any]:
    """Seconds of each step, bytes, and a hash of everything that the steps decide."""
    memory, config = Memory(), Config()
    memory.start()
    time.sleep(0.1)
    before, steps, at = memory.anonymous, {}, (time.perf_counter(), time.process_time())

    def done(step: str) -> None:
        nonlocal at
        now = time.perf_counter(), time.process_time()
        steps[step], at = [round(b - a, 1) for a, b in zip(at, now, strict=True)], now
        print(f"{step}: {steps[step]} s, {memory.anonymous / 1e6:.0f} MB", file=sys.stderr, flush=True)

    if skipped := os.environ.get("SKIP_RULES", ""):
        config = Config.model_validate({"curate": {"rules": dict.fromkeys(skipped.split(), "keep")}})
    rows = mapped_array(folder / "rows", ROW)
    log = Log(rows, Words(folder / "words.u4", rows["words"]), ROLES, ["log"], {})
    choice = choose(log, [folder / name for name in BAND_FILES], config.curate, executor, SilentReporter())
    done("compare")
    left = np.flatnonzero((rows["rule"] == 0) & (choice.rule == 0))
    split, _ = separate(log, choice, left, config.curate, executor, SilentReporter())
    done("split and leak check")
    leaks = _repetition(log, config).random_split_leaks
    done("random splits")
    decided = (choice.groups.astype(np.int64), choice.rule, choice.about.astype(np.int64), choice.weights, split)
    noted = [np.array([row for row in range(len(rows)) if values[row] >= 0]) for values in choice.noted.values()]
    digest = hashlib.sha256(b"".join(one.tobytes() for one in (*decided, *noted)) + str(leaks).encode())
    return {
        "rows": len(rows), "kept": len(left), "steps": steps,
        "s": sum(s for s, _ in steps.values()), "own_s": sum(s for _, s in steps.values()),
        "resident_mb": memory.resident // 1_000_000, "anonymous_mb": memory.anonymous // 1_000_000,
        "anonymous_bytes_a_row": round((memory.anonymous - before) / len(rows), 1), "sha256": digest.hexdigest(),
    }  # fmt: skip


def one(folder: str, address: str, workers: str) -> None:
    """One measured run; prints JSON."""
    if not address:
        print(json.dumps(global_steps(Path(folder), LOCAL)))
        return
    from journeyman.cluster.connecting import connected
    from journeyman.cluster.ray_executor import RayExecutor

    with connected(address, lambda text: None):
        print(json.dumps(global_steps(Path(folder), RayExecutor(int(workers)))))


def run(folder: Path, address: str = "", workers: int = 0) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, __file__, "--one", str(folder), address, str(workers)],
        stdout=subprocess.PIPE, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    made = json.loads(done.stdout.splitlines()[-1])
    where, names = "Ray" if address else "local", ("s", "own_s", "resident_mb", "anonymous_mb", "anonymous_bytes_a_row")
    print(f"{made['rows']:>10,} {where:>5}", *(f"{name} {made[name]:.1f}" for name in names), flush=True)
    return {**made, "ray_workers": workers, "load": os.getloadavg()[0]}


def main() -> None:
    if sys.argv[1:2] == ["--one"]:
        one(*sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", type=int, default=[100_000, 1_000_000])
    parser.add_argument("--ray", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=Path("/tmp/journeyman-global"))
    arguments = parser.parse_args()
    results = []
    for count in arguments.rows:
        shutil.rmtree(arguments.folder, ignore_errors=True)
        arguments.folder.mkdir(parents=True)
        write_columns(arguments.folder, count)
        results.append(run(arguments.folder))
        if arguments.ray:
            from ray_cluster import ray_cluster

            with ray_cluster(nodes=1, cpus=arguments.ray, connect=False) as cluster:
                results.append(run(arguments.folder, cluster.address, arguments.ray))
            assert results[-1]["sha256"] == results[-2]["sha256"]
        shutil.rmtree(arguments.folder)
    machine = {"cores": len(os.sched_getaffinity(0)), "memory_gb": psutil.virtual_memory().total / 1e9}
    RESULT.write_text(json.dumps({"machine": machine, "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
