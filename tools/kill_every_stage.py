"""Kills every stage and the server with `kill -9` at random moments, resumes each time, and compares the result.

    python tools/kill_every_stage.py [--kills 100] [--seed 0] [--stages ingest,curate,evaluate,decide,export,serve]

Training has kill_and_resume.py. Each stage is killed again and again while it works, until it finishes between two
kills; its result is compared with that of an undisturbed run, and the stage starts over until it has had its share of
the kills. Files must be equal byte for byte, with these exceptions: compressed rows are compared decompressed (their
frames depend on when commits were made), and times and memory in JSON are ignored. A process that still runs, or a
temporary file that was left behind, is a failure too. Exits with 1 if anything differs.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

sys.path.extend(str(Path(__file__).parents[1] / folder) for folder in ("tests", "tests/helpers"))
import httpx

from conftest import log_row, write_run, write_tiny_gguf
from faults import ENV, adopting, below, comparable, hurried, journeyman, leftovers, start, survivors

SHARES = {"ingest": 25, "curate": 25, "evaluate": 20, "decide": 10, "export": 10, "serve": 10}
FOLDERS = {
    "ingest": "01-interactions", "curate": "02-dataset", "evaluate": "05-evaluation", "decide": "06-decision",
    "export": "07-bundle",
}  # fmt: skip
TOML = "parallel = 1\nregression_suite = false\nthreads = 1\n[roles.coder]\nchecks = ['answered', 'slow.py:slow']\n"
SLOW = "import time\n\ndef slow(answer, check):\n    time.sleep(0.05)\n    return True\n"


@dataclass
class Victim:
    """A run folder in which one stage is killed.

    Attributes:
        workers: whether ingest and curate start worker processes.
        wanted: the files of an undisturbed run, to compare with.
        took_s: how long the stage takes after its first trace on disk; it is killed within that time.
    """

    stage: str
    folder: Path
    workers: bool = False
    wanted: dict[str, object] = field(default_factory=dict)
    took_s: float = 0.0
    kills: int = 0
    ends: int = 0

    @property
    def result(self) -> Path:
        return self.folder / FOLDERS[self.stage]

    def command(self) -> list[str]:
        override = ["--override", "a test"] if self.stage == "export" else []
        return hurried(self.stage, "--dir", self.folder, *override, workers=self.workers)

    def begin_anew(self) -> None:
        shutil.rmtree(self.result, ignore_errors=True)
        if self.stage == "evaluate":
            shutil.rmtree(self.folder / "evidence", ignore_errors=True)

    def begun(self) -> bool:
        if self.stage in ("decide", "export"):
            return (self.folder / f".staged-{self.result.name}").exists()
        return self.result.exists()

    def finish(self) -> None:
        done = subprocess.run(self.command(), env=ENV, capture_output=True, text=True)
        if not (self.result / "manifest.json").is_file():
            raise SystemExit(f"{self.stage} ended with {done.returncode}: {done.stderr}")

    def measure(self) -> None:
        """Runs the stage undisturbed, for its files and its duration."""
        self.begin_anew()
        child = start(self.command())
        while not self.begun() and child.poll() is None:
            time.sleep(0.002)
        begun = time.monotonic()
        said = child.communicate()[0]
        self.took_s = time.monotonic() - begun
        if not (self.result / "manifest.json").is_file():
            raise SystemExit(f"{self.stage} ended with {child.returncode}: {said}")
        self.wanted = comparable(self.result)

    def kill_once(self, moment: random.Random) -> list[str]:
        """Starts the stage and kills it; returns what is wrong afterwards."""
        known, child = below(), start(self.command())
        if moment.random() < 0.8:
            while not self.begun() and child.poll() is None:
                time.sleep(0.002)
        time.sleep(moment.uniform(0.0, self.took_s))
        child.kill()
        child.communicate()
        self.kills += child.returncode == -9
        if child.returncode != -9:  # too late: the machine was busier when took_s was measured
            self.took_s *= 0.8
        wrong = [f"still running: {one}" for one in survivors(known)]
        if (self.result / "manifest.json").is_file() and not (self.result / "unfinished.json").is_file():
            wrong += self.compare()
            self.begin_anew()
        return wrong

    def compare(self) -> list[str]:
        self.ends += 1
        found = comparable(self.result)
        wrong = [f"{self.stage}: {name} differs" for name, one in self.wanted.items() if found.get(name) != one]
        wrong += [
            f"{self.stage}: {name} is unexpected" for name in found if name not in self.wanted and ".html" not in name
        ]
        return wrong + [f"left: {one}" for one in leftovers(self.result)]


def kill_stage(victim: Victim, kills: int, moment: random.Random) -> list[str]:
    """Kills a stage `kills` times, then lets it finish; returns what was wrong."""
    if not victim.wanted:
        victim.measure()
    victim.begin_anew()
    wrong = []
    while victim.kills < kills:
        wrong += victim.kill_once(moment)
    victim.finish()
    wrong += victim.compare()
    kept = [one for one in leftovers(victim.folder) if ".staged" not in one or victim.stage in ("decide", "export")]
    wrong += [f"left: {one}" for one in kept]
    print(f"{victim.stage}: {victim.kills} kills, {victim.ends} results compared, {len(wrong)} faults", flush=True)
    return wrong


def kill_server(folder: Path, kills: int, moment: random.Random) -> list[str]:
    """Kills the server while it loads and while it answers; every server must give the same answer."""
    wrong, answers, done = [], set(), 0
    while done < kills:
        known = below()
        child = start([sys.executable, "-m", "journeyman", "serve", "--dir", str(folder), "--port", "0"])
        assert child.stdout is not None
        try:
            if moment.random() < 0.3:
                time.sleep(moment.uniform(0.0, 2.0))
            else:
                line = child.stdout.readline()
                while "http" not in line and line:
                    line = child.stdout.readline()
                answers.add(_answer(line.split(" on ")[1].split()[0], moment))
        finally:
            child.kill()
            child.communicate()
        done += child.returncode == -9
        wrong += [f"still running: {one}" for one in survivors(known)]
    if len(answers - {""}) > 1:
        wrong.append(f"serve: the answers differ: {answers}")
    print(f"serve: {done} kills, {len(wrong)} faults", flush=True)
    return wrong


def _answer(address: str, moment: random.Random) -> str:
    """The answer to one question; '' if the moment to kill comes before it."""
    body = {"model": "coder", "messages": [{"role": "user", "content": "Task: amber1"}], "max_tokens": 8}
    patience = 60.0 if moment.random() < 0.5 else 0.02
    until = time.monotonic() + 60
    while True:
        try:
            answer = httpx.post(f"{address}/chat/completions", json=body, timeout=patience)
            break
        except httpx.TimeoutException:
            return ""
        except httpx.ConnectError:  # it prints its address before it listens
            if time.monotonic() > until:
                raise
            time.sleep(0.02)
    return json.dumps(answer.json()["choices"][0]["message"], sort_keys=True)


def make_victims(place: Path) -> Callable[[str], Victim]:
    """Two run folders: one with many rows for ingest and curate, one that is run to its end for the other stages."""
    base = write_tiny_gguf(place / "tiny.gguf")
    many = write_run(place / "many", base, [log_row(i, role=f"role{i % 3}") for i in range(4000)])
    few = write_run(place / "few", base, [log_row(i) for i in range(40)], TOML)
    (few / "slow.py").write_text(SLOW)
    journeyman("run", "--dir", few, "--override", "a test", timeout=900)
    return lambda stage: Victim(stage, many if stage in ("ingest", "curate") else few)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--stages", default=",".join(SHARES))
    arguments = parser.parse_args()
    moment, chosen = random.Random(arguments.seed), arguments.stages.split(",")
    whole, wrong = sum(SHARES[name] for name in chosen), []
    with tempfile.TemporaryDirectory() as place, adopting():
        victim = make_victims(Path(place))
        for stage in chosen:
            kills = max(1, round(arguments.kills * SHARES[stage] / whole))
            if stage == "serve":
                wrong += kill_server(Path(place) / "few", kills, moment)
                continue
            one = victim(stage)
            one.workers = stage == "ingest"
            wrong += kill_stage(one, kills, moment)
    print("\n".join(wrong) or "identical")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
