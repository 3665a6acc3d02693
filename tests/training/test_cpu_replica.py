"""The CPU's engine as one of several computes what the engine for one process does, and its gradient is one tensor."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from conftest import write_tiny_gguf
from journeyman.models.gguf_file import GgufFile
from journeyman.models.weights import load_decoder
from journeyman.training.batches import pack
from journeyman.training.cpu import CpuEngine
from journeyman.training.cpu_replica import CpuReplica
from journeyman.training.engine import KeyedPack
from training_ranks import config, rows, step


def _both(folder: Path) -> tuple[CpuEngine, CpuReplica]:
    decoder = load_decoder(GgufFile(write_tiny_gguf(folder / "m.gguf")), torch.float32)
    return CpuEngine(decoder, config()), CpuReplica(decoder, config())


def _keyed(number: int) -> list[KeyedPack]:
    return [KeyedPack(one, f"{number}/{place}") for place, one in enumerate(pack(rows(6, number), 60))]


def test_alone_it_computes_the_same_bits(tmp_path: Path) -> None:
    one, replica = _both(tmp_path)
    assert one.identity() == replica.identity()
    for number in range(3):
        assert step(one, number) == step(replica, number)
    for engine in (one, replica):
        engine.accumulate(_keyed(3), 50.0, lambda _: None)
    expected, state = one.state(), replica.state()
    assert expected.keys() == state.keys()
    assert all(torch.equal(value, state[name]) for name, value in expected.items())


def test_its_flat_gradient_is_the_gradient(tmp_path: Path) -> None:
    one, replica = _both(tmp_path)
    for engine in (one, replica):
        engine.accumulate(_keyed(0), 50.0, lambda _: None)
        engine.accumulate(_keyed(1), 50.0, lambda _: None)
    assert replica.begun
    replica.gradient.mul_(3.0)
    assert replica.clip(1e9) == pytest.approx(3 * one.clip(1e9), rel=1e-6)
    replica.gradient.zero_()
    replica.begun = False
    assert not any(name.startswith("gradient/") for name in replica.state())
    replica.begun = True  # the share of a process without rows, to which the others' is added
    replica.gradient.fill_(1.0)
    assert all(
        torch.equal(value, torch.ones_like(value)) for name, value in replica.state().items() if "gradient/" in name
    )


@pytest.mark.parametrize("begun", [True, False])
def test_an_error_leaves_its_gradient_as_it_was(tmp_path: Path, begun: bool) -> None:
    _, replica = _both(tmp_path)
    if begun:
        replica.accumulate(_keyed(0), 50.0, lambda _: None)
    before = replica.gradient.clone()

    def stop(_: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        replica.accumulate(_keyed(1), 50.0, stop)
    assert replica.begun == begun
    assert torch.equal(replica.gradient, before)
    replica.accumulate(_keyed(1), 50.0, lambda _: None)
    assert not torch.equal(replica.gradient, before)


def test_it_resumes_in_the_middle_of_a_step(tmp_path: Path) -> None:
    one, replica = _both(tmp_path)
    step(one)
    one.accumulate(_keyed(1), 50.0, lambda _: None)
    replica.load_state({name: value.clone() for name, value in one.state().items()})
    for engine in (one, replica):
        engine.accumulate(_keyed(2), 50.0, lambda _: None)
        engine.clip(1.0)
        engine.step(1e-3)
    assert all(torch.equal(value, replica.adapter()[name]) for name, value in one.adapter().items())
    assert not replica.begun
    replica.load_state({name: value.clone() for name, value in one.state().items()})
    assert not replica.begun
    assert not replica.gradient.any()
