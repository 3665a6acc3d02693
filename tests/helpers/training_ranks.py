"""A run of several training processes on the CPU, for tests that end some of them.

As a program, `python training_ranks.py BASE DEVICES`, it is such a run: it prints the process ids of its workers, then
takes steps until it is interrupted, or as many as a third argument says. `torchrun` can start it too.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

import psutil
import torch

from journeyman.config import TrainConfig
from journeyman.rendering.renderer import Rendered
from journeyman.training import worker
from journeyman.training.batches import pack
from journeyman.training.engine import KeyedPack, TrainingEngine
from journeyman.training.replica import Replica, on_several_devices


def config(dropout: float = 0.0) -> TrainConfig:
    return TrainConfig.model_validate(
        {
            "epochs": 2, "batch_size": 6, "learning_rate": 3e-3, "warmup_steps": 2, "precision": "float32",
            "lora": {"rank": 3, "alpha": 6, "dropout": dropout},
        }
    )  # fmt: skip


def replica(base: Path, dropout: float = 0.0, *, shard: bool = False) -> Replica:
    return Replica(base=base, config=config(dropout), dtype="float32", recompute=True, shard=shard)


def rows(count: int, seed: int = 0) -> list[Rendered]:
    """Rows with weights of their own; every second one begins with the same tokens."""
    generator = torch.Generator().manual_seed(seed)
    shared = torch.randint(3, 200, (24,), generator=generator).tolist()
    made = []
    for number in range(count):
        own = torch.randint(3, 200, (10 + 7 * number % 29,), generator=generator).tolist()
        before = shared if number % 2 else []
        made.append(Rendered(before + own, len(before) + 4, weight=1.0 + number % 3))
    return made


def step(engine: TrainingEngine, number: int = 0) -> float:
    """One optimizer step on some rows; returns the loss."""
    packs = pack(rows(6, number), 60)
    keyed = [KeyedPack(one, f"{number}/{place}") for place, one in enumerate(packs)]
    loss = engine.accumulate(keyed, sum(one.label_weight for one in packs), lambda _: None).loss
    engine.clip(1.0)
    engine.step(1e-3)
    return loss


def main() -> None:
    if os.environ.get("RANK", "0") != "0":
        worker.main()
        return
    most = int(sys.argv[3]) if len(sys.argv) > 3 else None
    stop = threading.Event()
    signal.signal(signal.SIGINT, lambda *_: stop.set())
    leader = on_several_devices(replica(Path(sys.argv[1])), ["cpu"] * int(sys.argv[2]))
    engine = leader.engine()
    print(*(one.pid for one in psutil.Process().children()), flush=True)
    number = 0
    while not stop.is_set() and number != most:
        loss = step(engine, number)
        number += 1
        if most is not None:
            print(f"loss {loss!r}", flush=True)
    engine.clip(1.0)  # the workers are still there
    leader.close()
    print("closed", flush=True)


if __name__ == "__main__":
    main()
