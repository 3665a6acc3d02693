"""What a training worker returns, without a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray")

import training_ranks
from conftest import write_tiny_gguf
from journeyman.cluster.shipping import Shipment
from journeyman.cluster.training_worker import TrainingWorker
from journeyman.training.calls import Call


class _Engine:
    """Tells the user something in its first call."""

    def __init__(self, notes: list[str]) -> None:
        self._notes, self._calls = notes, 0

    def clip(self, most: float) -> float:
        self._calls += 1
        if self._calls == 1:
            self._notes.append("out of GPU memory: less from here on")
        return most / 2

    def memory_bytes(self) -> int:
        return 7


def _worker(folder: Path) -> Any:
    base = write_tiny_gguf(folder / "tiny.gguf")
    made: Any = TrainingWorker(training_ranks.replica(base), Shipment(base), 1)
    made._engine = _Engine(made._notes)
    return made


def test_what_the_engine_says_comes_back_once(tmp_path: Path) -> None:
    worker, call = _worker(tmp_path), Call("clip", number=3.0).encoded()
    first, second = worker.call(1, call), worker.call(2, call)
    assert (first.result, first.memory, list(first.notes)) == (1.5, 7, ["out of GPU memory: less from here on"])
    assert list(second.notes) == []


def test_only_the_first_rank_answers(tmp_path: Path) -> None:
    worker, call = _worker(tmp_path), Call("clip", number=3.0).encoded()
    worker._rank = 1
    assert worker.call(1, call) is None
