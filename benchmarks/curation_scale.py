"""Time and memory of ingest and curate for 10 thousand, 100 thousand and a million interactions.

    python benchmarks/curation_scale.py [ROWS ...] [--folder /tmp/journeyman-scale]

Writes synthetic logs of about 3 kB per row in the format `interactions`: prose and code with a mixed vocabulary, 15 %
of the tasks repeated, 5 % repeated with one more word, 20 % of the answers truncated, 3 % failed, 2 % with a secret or
an address, 2 % with reasoning. Then runs `journeyman curate` on them in a separate process and samples the total
resident memory of that process and its workers five times a second. Results and a description of the machine go to
benchmarks/results/curation_scale.json.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import psutil

ROLES = {"coder": 0.5, "tester": 0.2, "researcher": 0.15, "coordinator": 0.1, "reviewer": 0.05}
SYLLABLES = [
    "ba",
    "ce",
    "di",
    "fo",
    "gu",
    "ha",
    "je",
    "ki",
    "lo",
    "mu",
    "na",
    "pe",
    "qui",
    "ro",
    "su",
    "ta",
    "ve",
    "wi",
    "xo",
    "zy",
    "ar",
    "en",
    "il",
    "or",
    "un",
]
RESULT = Path(__file__).parent / "results" / "curation_scale.json"


def vocabulary(random_: random.Random) -> list[str]:
    words = {"".join(random_.choices(SYLLABLES, k=random_.randint(1, 4))) for _ in range(40_000)}
    return sorted(words)


def paragraphs(random_: random.Random, words: list[str]) -> list[str]:
    """Sentences whose words have very unequal frequencies, and small functions."""
    weights = [1 / (rank + 3) for rank in range(len(words))]
    made = []
    for number in range(4_000):
        if number % 3:
            sentences = (random_.choices(words, weights, k=random_.randint(6, 16)) for _ in range(4))
            made.append(" ".join(" ".join(s).capitalize() + "." for s in sentences))
        else:
            names = random_.choices(words, weights, k=8)
            body = "\n".join(f"    {n} = {m}({number % 97}, {n}_{number % 13})" for n, m in pairwise(names))
            made.append(
                f"```python\ndef {names[0]}_{number}({names[1]}, {names[2]}=None):\n{body}\n    return {names[3]}\n```"
            )
    return made


def interactions(rows: int, seed: int = 0) -> Iterator[dict[str, object]]:
    random_ = random.Random(seed)
    words = vocabulary(random_)
    texts = paragraphs(random_, words)
    tasks: list[str] = []
    roles, shares = list(ROLES), list(ROLES.values())
    for number in range(rows):
        role = random_.choices(roles, shares)[0]
        dice = random_.random()
        if dice < 0.15 and tasks:
            task = tasks[random_.randrange(len(tasks))]
        elif dice < 0.20 and tasks:
            task = tasks[random_.randrange(len(tasks))] + " " + words[number % len(words)]
        else:
            task = "Task: " + " ".join(random_.choices(words, k=random_.randint(20, 50)))
            if len(tasks) < 50_000:
                tasks.append(task)
        answer = "\n\n".join(random_.choices(texts, k=random_.randint(3, 8)))
        dice = random_.random()
        limit = 2000
        if dice < 0.20:
            answer = answer[: len(answer) * 2 // 3]
        elif dice < 0.22:
            answer = "<think>\nLet me see.\n</think>\n\n" + answer
        elif dice < 0.23:
            answer += f"\n\nAsk amy.{number}@{words[number % 500]}corp.com."
        elif dice < 0.24:
            answer += f"\n\nAPI_KEY={random_.randbytes(16).hex()}A1"
        failed = random_.random() < 0.03
        yield {
            "id": f"row-{number}",
            "timestamp": f"2025-{1 + number % 12:02}-{1 + number % 28:02}T{number % 24:02}:00:00Z",
            "task": {"task_id": f"task_{number % 9}", "description": task, "priority": number % 3},
            "agent": {"role": role, "capabilities": [f"{role}-{c}" for c in ("plan", "write", "check", "mend")]},
            "llm": {"provider": "teacher", "model": "big", "config": {"temperature": 0.7, "max_tokens": limit}},
            "execution": {
                "status": "failure" if failed else "success",
                "duration_ms": 2_000 + number % 30_000,
                "input_messages": [
                    {"role": "system", "content": f"You are a {role} agent. Complete the task using your expertise."},
                    {"role": "user", "content": task},
                ],
                "output": "" if failed else answer,
                "errors": ["timed out"] if failed else [],
                "error_details": None,
            },
            "context": {"history_length": 0, "orchestrator": "simple", "session_id": f"session-{number // 4}"},
        }  # fmt: skip


def write_log(path: Path, rows: int) -> None:
    with path.open("w", encoding="utf-8") as file:
        for row in interactions(rows):
            file.write(json.dumps(row) + "\n")


def measured(command: list[str]) -> tuple[float, float, dict[str, float]]:
    """Runs a command: seconds, peak gigabytes of the process tree, and the seconds that it reports for each stage."""
    start, peak, said = time.perf_counter(), 0, {}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    tree = psutil.Process(process.pid)
    while process.poll() is None:
        peak = max(peak, _resident(tree))
        time.sleep(0.2)
    seconds = time.perf_counter() - start
    text = process.stderr.read() if process.stderr else ""
    if process.returncode:
        raise SystemExit(text)
    for line in text.splitlines():
        parts = line.split()
        if len(parts) > 5 and parts[1] in ("ingest", "curate") and parts[2] == "made":
            said[parts[1]] = float(parts[4])
    return seconds, peak / 1e9, said


def _resident(process: psutil.Process) -> int:
    total = 0
    for one in [process, *_children(process)]:
        try:
            total += one.memory_info().rss
        except psutil.Error:
            continue
    return total


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.Error:
        return []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", type=int, default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--folder", type=Path, default=Path("/tmp/journeyman-scale"))
    arguments = parser.parse_args()
    results = []
    print(f"{'rows':>9} {'GB':>6} {'ingest s':>9} {'curate s':>9} {'total s':>9} {'peak GB':>8} {'kept':>8}")
    for rows in arguments.rows:
        shutil.rmtree(arguments.folder, ignore_errors=True)
        arguments.folder.mkdir(parents=True)
        log = arguments.folder / "log.jsonl"
        write_log(log, rows)
        (arguments.folder / "journeyman.toml").write_text('[data]\nsources = ["log.jsonl"]\n')
        command = [sys.executable, "-m", "journeyman", "curate", "--dir", str(arguments.folder)]
        seconds, peak, stages = measured(command)
        manifest = json.loads((arguments.folder / "02-dataset" / "manifest.json").read_text())["result"]
        size = log.stat().st_size / 1e9
        results.append(
            {"rows": rows, "gigabytes": size, "seconds": seconds, "peak_gb": peak, **stages, "kept": manifest["kept"]}
        )
        print(
            f"{rows:>9,} {size:>6.2f} {stages['ingest']:>9.1f} {stages['curate']:>9.1f} {seconds:>9.1f} {peak:>8.2f} "
            f"{manifest['kept']:>8,}",
            flush=True,
        )
        shutil.rmtree(arguments.folder)
    RESULT.parent.mkdir(exist_ok=True)
    machine = {"cores": psutil.cpu_count(logical=False), "memory_gb": psutil.virtual_memory().total / 1e9}
    RESULT.write_text(json.dumps({"machine": machine, "results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
