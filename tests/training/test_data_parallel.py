"""What one of several processes does when another has no memory left, stops, or has other numbers than it should."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import write_tiny_gguf
from journeyman.errors import WorkerDied
from journeyman.models.gguf_file import GgufFile
from journeyman.models.gpu.loading import load_on_gpu
from journeyman.training.batches import pack
from journeyman.training.data_parallel import DataParallelEngine, OtherStopped
from journeyman.training.engine import KeyedPack, TrainingEngine
from journeyman.training.gpu import GpuEngine
from training_ranks import config, rows

Numbers = Callable[[list[float]], list[float]]


class _TwoRanks:
    """Rank 0 of two, of which the other sends what the test makes of this one's numbers."""

    rank, count = 0, 2

    def __init__(self, other: Numbers) -> None:
        self.other = other

    def exchange(self, numbers: Sequence[float]) -> list[list[float]]:
        return [list(numbers), self.other(list(numbers))]

    def sum_(self, tensor: torch.Tensor) -> None: ...

    def sum_on_first_(self, tensor: torch.Tensor) -> None: ...


def _local(folder: Path) -> GpuEngine:
    file = GgufFile(write_tiny_gguf(folder / "m.gguf"))
    return GpuEngine(load_on_gpu(file, torch.float32, torch.device("cpu")), config())


def _engine(folder: Path, other: Numbers = lambda numbers: numbers) -> tuple[DataParallelEngine, GpuEngine, Any]:
    local, ranks = _local(folder), _TwoRanks(other)
    return DataParallelEngine(local, ranks), local, ranks  # type: ignore[arg-type]


def _keyed() -> list[KeyedPack]:
    return [KeyedPack(one, str(number)) for number, one in enumerate(pack(rows(6), 60))]


def _silent(_: float) -> None: ...


@pytest.mark.parametrize(("outcome", "raised"), [(1, OtherStopped), (2, torch.OutOfMemoryError), (3, OtherStopped)])
@pytest.mark.parametrize("begun", [True, False])
def test_another_rank_that_fails_takes_the_gradients_back(
    tmp_path: Path, outcome: int, raised: type[Exception], begun: bool
) -> None:
    engine, local, ranks = _engine(tmp_path)
    if begun:
        engine.accumulate(_keyed(), 1.0, _silent)
    before = local.gradient.clone()
    ranks.other = lambda numbers: [0.0, 0.0, outcome, 0]
    with pytest.raises(raised):
        engine.accumulate(_keyed(), 1.0, _silent)
    assert local.begun == begun
    assert torch.equal(local.gradient, before)
    with pytest.raises(raised):
        engine.evaluate([one.pack for one in _keyed()], _silent)


def test_an_error_of_its_own_is_raised_after_the_others_know(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[list[float]] = []
    engine, local, ranks = _engine(tmp_path)
    ranks.other = lambda numbers: sent.append(numbers) or [0.0, 0.0, 0, 0]

    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError("no memory")

    monkeypatch.setattr(local, "accumulate", full)
    with pytest.raises(torch.OutOfMemoryError):
        engine.accumulate(_keyed(), 1.0, _silent)
    assert sent == [[0.0, 0.0, 2, 0]]


def test_other_bits_in_the_adapter_are_noticed(tmp_path: Path) -> None:
    engine, _, ranks = _engine(tmp_path)
    ranks.other = lambda numbers: [numbers[0] + 1, *numbers[1:]] if len(numbers) == 2 else numbers
    with pytest.raises(WorkerDied, match=r"ranks \[1\] do not have the same adapter"):
        for _ in range(50):
            engine.step(1e-3)


def test_engines_of_two_kinds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WorkerDied, match=r"ranks \[1\] do not have the same adapter"):
        _engine(tmp_path, lambda numbers: [*numbers[:-1], numbers[-1] + 1])


def test_progress_is_that_of_all(tmp_path: Path) -> None:
    heard: list[float] = []
    engine, _, _ = _engine(tmp_path)
    engine.accumulate(_keyed(), 1.0, heard.append)
    assert heard == sorted(heard)
    assert heard[-1] == sum(one.pack.row_tokens for one in _keyed())


def test_what_engines_say_is_told_once(tmp_path: Path) -> None:
    said: list[str] = []
    local = _local(tmp_path)
    ranks, notes = _TwoRanks(lambda numbers: numbers), ["less here"]
    engine = DataParallelEngine(local, ranks, notes=notes, say=said.append)  # type: ignore[arg-type]
    for _ in range(2):
        engine.accumulate(_keyed(), 1.0, _silent)
    assert said == ["less here", "out of memory on the device of rank 1: from here on, it computes with less"]


def test_it_has_what_the_training_loop_needs() -> None:
    needed = {name for name in vars(TrainingEngine) if not name.startswith("_")}
    assert needed <= set(dir(DataParallelEngine))
