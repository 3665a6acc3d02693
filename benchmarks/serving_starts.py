"""Does `journeyman serve` start and stop a thousand times without a hang, and does it leave no engine behind?

    python benchmarks/serving_starts.py [--starts 1000]

A bundle with a tiny model of random values. The server is stopped in five ways, in turn: SIGTERM and SIGINT without
work, SIGTERM during a streamed answer, SIGTERM while it starts, and SIGKILL. A start hangs if it takes more than a
minute, a stop if it takes longer than `serve.shutdown_s` and five seconds. After each stop, no process of it may be
left; the engine of a server that was killed has five seconds to notice.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import psutil
from serving_port import report, tiny_model

from journeyman.artifacts import hash_of_file, write_json
from journeyman.config import ServeConfig
from journeyman.lineage import files_below, write_manifest
from journeyman.manifests import BundleManifest, Stamp

START_S, LEFT_S = 60.0, 5.0
STOP_S = ServeConfig().shutdown_s + 5
MARK = "JOURNEYMAN_SERVING_STARTS"
WAYS = ("SIGTERM", "SIGINT", "SIGTERM during an answer", "SIGTERM during the start", "SIGKILL")


def write_bundle(place: Path) -> Path:
    place.mkdir()
    tiny_model(place / "base.gguf")
    write_json(place / "prompts.json", {})
    stamp = Stamp(
        stage="export", version=2, journeyman="0", fingerprint="0", inputs={}, created="now",
        files={name: hash_of_file(place / name) for name in files_below(place)},
    )  # fmt: skip
    bundle = BundleManifest(
        roles=["coder"], override=None, base_sha256="", adapter_sha256={}, adapter_files={}, base_file="base.gguf",
        base_path="base.gguf", system_prompts={}, redact={}, verdicts={"coder": "deploy"},
        settings={"context": 4096, "max_new_tokens": 64, "temperature": 0.0, "threads": 1, "parallel": 1},
    )  # fmt: skip
    write_manifest(place, stamp, bundle)
    return place


class Server:
    """A started `journeyman serve`, whose processes carry a mark of their own."""

    def __init__(self, bundle: Path, number: int) -> None:
        self._mark = f"{os.getpid()}-{number}"
        self.begun = time.perf_counter()
        self.lines: list[str] = []
        self._ready = threading.Event()
        self.url = ""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "journeyman", "serve", "--dir", str(bundle), "--port", "0"],
            env={**os.environ, MARK: self._mark}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr
        for line in self.process.stderr:
            self.lines.append(line.rstrip())
            if found := re.search(r"serving .* on (http://\S+)", line):
                self.url = found[1]
                self._ready.set()
        self._ready.set()

    def is_ready(self) -> bool:
        return self._ready.wait(START_S) and self.url != ""

    def ends(self) -> bool:
        try:
            self.process.wait(timeout=STOP_S)
        except subprocess.TimeoutExpired:
            return False
        return True

    def left(self) -> list[psutil.Process]:
        """Its processes that still run."""
        found = []
        for one in psutil.process_iter():
            try:
                if one.environ().get(MARK) == self._mark and one.status() != psutil.STATUS_ZOMBIE:
                    found.append(one)
            except psutil.Error:
                continue
        return found

    def clean_up(self) -> int:
        """Waits for its last processes, kills those that stay, and returns their number."""
        until = time.perf_counter() + LEFT_S
        while (left := self.left()) and time.perf_counter() < until:
            time.sleep(0.05)
        for one in left:
            one.kill()
        self.process.wait()
        self._reader.join()
        return len(left)


def read_slowly(url: str, begun: threading.Event) -> None:
    body = {"model": "coder", "messages": [{"role": "user", "content": "x"}], "max_tokens": 3000, "stream": True}
    try:
        with httpx.stream("POST", f"{url}/chat/completions", json=body, timeout=STOP_S) as answer:
            for _ in answer.iter_lines():
                begun.set()
    except httpx.HTTPError:
        pass
    finally:
        begun.set()


def once(bundle: Path, number: int, found: Counter[str], times: dict[str, list[float]], chance: random.Random) -> str:
    """One start and stop; returns what went wrong."""
    way = WAYS[number % len(WAYS)]
    server, asking = Server(bundle, number), None
    wrong = ""
    if way == "SIGTERM during the start":
        time.sleep(chance.random() * (statistics.median(times["start"]) if times["start"] else 1.0))
    elif not server.is_ready():
        wrong = "the start hangs or fails"
    else:
        times["start"].append(time.perf_counter() - server.begun)
        if way == "SIGTERM during an answer":
            begun = threading.Event()
            asking = threading.Thread(target=read_slowly, args=(server.url, begun))
            asking.start()
            begun.wait()
        elif httpx.get(server.url.removesuffix("/v1") + "/ready", timeout=STOP_S).status_code != 200:
            wrong = "it is not ready"
    stopped = time.perf_counter()
    server.process.send_signal(getattr(signal, way.split()[0]))
    if not server.ends():
        wrong = wrong or "the stop hangs"
    elif way != "SIGKILL":
        times["stop"].append(time.perf_counter() - stopped)
    if left := server.clean_up():
        wrong = wrong or f"{left} processes are left"
    if asking is not None:
        asking.join()
    found[way] += 1
    found[f"{way}: exit code {server.process.returncode}"] += 1
    return wrong and f"{number}, {way}: {wrong}; {server.lines[-3:]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--starts", type=int, default=1000)
    args = parser.parse_args()
    found, times, wrong = Counter[str](), {"start": list[float](), "stop": list[float]()}, list[str]()
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        bundle, chance = write_bundle(Path(folder) / "bundle"), random.Random(0)
        for number in range(args.starts):
            if problem := once(bundle, number, found, times, chance):
                wrong.append(problem)
                print(problem, file=sys.stderr, flush=True)
    result: dict[str, Any] = {
        "starts": args.starts, "seconds": round(time.perf_counter() - begun, 1), "processor": os.cpu_count(),
        "wrong": len(wrong), "examples": wrong[:20], "ways": dict(sorted(found.items())),
    }  # fmt: skip
    for name, seconds in times.items():
        result[f"{name}_p50_s"] = round(statistics.median(seconds), 3)
        result[f"{name}_max_s"] = round(max(seconds), 3)
    report("serving_starts", result)


if __name__ == "__main__":
    main()
