"""The plan says when adapters may be trained at the same time, because its figures are those of one after another."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from conftest import write_tiny_gguf
from journeyman.config import Config, parse_config
from journeyman.models.gguf_file import GgufFile
from journeyman.reasons import planning
from journeyman.sizing.memory_choice import MemoryChoice
from journeyman.stages.plan_at_once import at_once_notes
from journeyman.training.placement import Placement, Workload


@pytest.fixture(autouse=True)
def two_threads() -> object:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def _notes(folder: Path, adapters: int, **train: object) -> list[object]:
    geometry = replace(GgufFile(write_tiny_gguf(folder / "m.gguf")).geometry, layers=30, hidden=576)
    work = Workload(geometry, 1000, longest_row=100, step_tokens=400)
    placed = Placement((), torch.float32, 390.0, MemoryChoice("keep", 512, 512, 10**9))
    settings: Config = parse_config({"train": {"max_memory_gb": 6.0, **train}}, "x")
    return list(at_once_notes(work, settings, placed, [100] * adapters))


def test_adapters_of_roles_and_their_memory(tmp_path: Path) -> None:
    (note,) = _notes(tmp_path, 5)
    assert isinstance(note, planning.AdaptersAtOnce)
    assert (note.adapters, note.at_once) == (5, 2)
    assert 0.5 < note.memory_gb < 6
    assert "5 adapters are trained 2 at a time" in note.sentence()


def test_adapters_of_very_different_sizes_are_no_faster_at_the_same_time(tmp_path: Path) -> None:
    geometry = replace(GgufFile(write_tiny_gguf(tmp_path / "m.gguf")).geometry, layers=30, hidden=576)
    work = Workload(geometry, 1000, longest_row=100, step_tokens=400)
    placed = Placement((), torch.float32, 390.0, MemoryChoice("keep", 512, 512, 10**9))
    assert list(at_once_notes(work, parse_config({}, "x"), placed, [1000, 10])) == []


@pytest.mark.parametrize(("adapters", "train"), [(1, {}), (5, {"deterministic": True}), (5, {"max_memory_gb": 0.1})])
def test_nothing_is_said_where_they_are_trained_one_after_another(
    adapters: int, train: dict[str, object], tmp_path: Path
) -> None:
    assert _notes(tmp_path, adapters, **train) == []
