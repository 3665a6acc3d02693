"""Kills training with `kill -9` at random moments, resumes it, and compares the result with an undisturbed run.

    python tools/kill_and_resume.py [--kills 100] [--seed 0] [--memory recompute]

The model is tiny and has random values; the process, the checkpoints and the files are real. Four kills in five
hit training, at any moment of a step, a validation or a checkpoint; one in five hits the start, while a checkpoint is
read. Exits with 1 if an adapter file differs in one bit or a step is in metrics.jsonl twice.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.extend(str(Path(__file__).parents[1] / folder) for folder in ("tests", "tests/helpers"))
from conftest import log_row, write_tiny_gguf
from journeyman.artifacts import sha256_of

ADAPTERS = ("adapter.gguf", "adapter_model.safetensors")
EPOCHS_PER_KILL = 12
TOML = "[base]\nmodel = 'base.gguf'\n[data]\nsources = ['logs.jsonl']\n[train]\npack_tokens = 256\npatience = 99999\n"


def make_run(folder: Path, settings: str) -> Path:
    folder.mkdir()
    write_tiny_gguf(folder / "base.gguf")
    rows = [json.dumps(log_row(number)) for number in range(40)]
    (folder / "logs.jsonl").write_text("\n".join(rows) + "\n")
    (folder / "journeyman.toml").write_text(TOML + settings)
    subprocess.run(command("plan", folder), check=True, capture_output=True)
    return folder / "04-adapter"


def command(name: str, folder: Path) -> list[str]:
    return [sys.executable, "-m", "journeyman", name, "--dir", str(folder)]


def kill_once(folder: Path, moment: random.Random) -> None:
    """Starts training and kills it before it is done."""
    checkpoints = folder / "04-adapter" / "checkpoints"
    before = set(checkpoints.glob("step-*"))
    with tempfile.TemporaryFile() as said:
        child = subprocess.Popen(command("train", folder), stdout=said, stderr=said)
        if moment.random() < 0.2:
            time.sleep(moment.uniform(0.0, 3.0))
        else:
            while child.poll() is None and not set(checkpoints.glob("step-*")) - before:
                time.sleep(0.002)
            time.sleep(moment.uniform(0.0, 0.4))
        child.kill()
        if child.wait() != -9:
            said.seek(0)
            raise SystemExit(f"ended before it was killed: {said.read().decode()}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--memory", choices=("keep", "recompute", "stream"), default="keep")
    arguments = parser.parse_args()
    moment = random.Random(arguments.seed)
    settings = (
        f"threads = 1\nepochs = {EPOCHS_PER_KILL * arguments.kills}\ncheckpoint_s = 0.03\n"
        f"memory = '{arguments.memory}'\n[train.lora]\nrank = 4\ndropout = 0.1\n"
    )
    with tempfile.TemporaryDirectory() as place:
        whole, parts = (make_run(Path(place) / name, settings) for name in ("whole", "parts"))
        subprocess.run(command("train", whole.parent), check=True, capture_output=True)
        for number in range(arguments.kills):
            kill_once(parts.parent, moment)
            if (number + 1) % 10 == 0:
                print(f"killed {number + 1} times", flush=True)
        subprocess.run(command("train", parts.parent), check=True, capture_output=True)
        steps = [
            [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
            for folder in (whole, parts)
        ]
        same = all(sha256_of(whole / name) == sha256_of(parts / name) for name in ADAPTERS) and steps[0] == steps[1]
    print(f"{arguments.kills} kills, {len(steps[0])} lines of metrics: {'identical' if same else 'DIFFERENT'}")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
