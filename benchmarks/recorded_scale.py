"""What gigabytes of records cost: starting the recorder, `--check`, `run --from-recorded`'s copy, `monitor`.

python benchmarks/recorded_scale.py [--gb 10] [--folder DIR] [--out results/recorded_scale.json]

Rows of about 10 kB, as the recorder writes them, in its own files: closed at 64 MiB and compressed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from journeyman.checksum_lines import sealed
from journeyman.gateway.row_files import RowFiles

_WORDS = [f"word{number}" for number in range(5_000)]


def _row(number: int, dice: random.Random) -> bytes:
    text = " ".join(dice.choices(_WORDS, k=600))
    answer = {"choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}]}
    turns = [{"role": "system", "content": "You are a coder."}, {"role": "user", "content": f"{number} {text[:4000]}"}]
    return sealed({
        "recorded": 1, "seq": number, "assigned": number, "outcome": "complete",
        "time": "2026-11-30T12:00:00.000+00:00",
        "role": "coder", "conversation": f"c{number // 5}", "provider": "api.example.com", "model": "m",
        "method": "POST", "path": "/v1/chat/completions", "status": 200, "first_ms": 300, "duration_ms": 2_000,
        "tokens": {"prompt": 900, "answer": 600}, "request": {"model": "m", "messages": turns}, "response": answer,
    })  # fmt: skip


def _fill(folder: Path, most_bytes: int) -> tuple[int, int]:
    """Rows and bytes written, before compression."""
    folder.mkdir(parents=True, exist_ok=True)
    files, dice, number, size = RowFiles(folder, 64 << 20), random.Random(0), 0, 0
    while size < most_bytes:
        number += 1
        line = _row(number, dice)
        files.append(line)
        size += len(line)
    files.close()
    return number, size


def _timed(code: str) -> dict[str, float]:
    """Seconds and peak memory of Python code in a process of its own."""
    program = f"import resource, time\nbegan = time.perf_counter()\n{code}\n" + (
        "print(time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    seconds, mib = done.stdout.split()[-2:]
    return {"s": round(float(seconds), 2), "peak_mib": round(float(mib), 1)}


def main() -> None:
    asked = argparse.ArgumentParser()
    asked.add_argument("--gb", type=float, default=10.0)
    asked.add_argument("--folder", type=Path)
    asked.add_argument("--out", type=Path)
    given = asked.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as place:
        run = Path(place)
        (run / "journeyman.toml").write_text('[record]\nupstream = "http://127.0.0.1:9"\nport = 0\n')
        began = time.perf_counter()
        rows, size = _fill(run / "recorded", int(given.gb * 1e9))
        result: dict[str, Any] = {
            "rows": rows, "gb": round(size / 1e9, 2), "written_s": round(time.perf_counter() - began, 1),
            "gb_on_disk": round(sum(one.stat().st_size for one in (run / "recorded").iterdir()) / 1e9, 2),
            "load": os.getloadavg()[0],
        }  # fmt: skip
        head = f"from pathlib import Path\nrun = Path({str(run)!r})\n"
        result["recorder's start"] = _timed(
            head + "from journeyman.api.recording import recording\nwith recording(run) as one:\n    pass"
        )
        result["check"] = _timed(
            head + "from journeyman.api.recording import checked\nfound = checked(run)\n"
            f"assert found.difference == 0 and sum(found.rows.values()) == {rows}"
        )
        result["copy for --from-recorded"] = _timed(
            head + "from journeyman.api.routing import gathered\nfrom journeyman.config import config_in\n"
            f"assert gathered(run, config_in(run)).rows == {rows}"
        )
        result["monitor"] = _timed(head + "from journeyman.api.monitoring import Monitor\nMonitor(run).look()")
    result["peak_mib_of_writing"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)
    text = json.dumps(result, indent=1)
    print(text)
    if given.out:
        given.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
