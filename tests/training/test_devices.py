"""Which GPU is chosen, and what is said if one cannot be used: with stand-ins, because tests run without a GPU."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from journeyman.config import TrainConfig
from journeyman.errors import InputError, NoGo
from journeyman.models.geometry import Experts, Geometry
from journeyman.reasons import planning
from journeyman.sizing.memory import MemoryWay
from journeyman.training import devices, placement
from journeyman.training.devices import Gpu, Survey, chosen_gpu, survey
from journeyman.training.placement import Workload, memory_on_gpu, place

QWEN = Geometry("qwen2", 28, 3584, 28, 4, 128, 18944, 152064, 32768, 1e6, 1e-6, tied_head=False)
BIG = Gpu(0, "NVIDIA H200", 150_000_000_000, 149_000_000_000, (9, 0))
SMALL = Gpu(1, "NVIDIA L4", 24_000_000_000, 23_000_000_000, (8, 9))
OLD = Gpu(0, "Tesla T4", 16_000_000_000, 15_000_000_000, (7, 5))


class _Cuda:
    """torch.cuda of a machine with some cards."""

    OutOfMemoryError = torch.OutOfMemoryError

    def __init__(self, cards: list[Gpu], fails: str = "", taken: str = "") -> None:
        self._cards, self._fails, self._taken = cards, fails, taken

    def init(self) -> None:
        if self._fails:
            raise RuntimeError(self._fails)

    def device_count(self) -> int:
        return len(self._cards)

    def get_device_properties(self, index: int) -> Any:
        card = self._cards[index]
        if self._taken:
            raise RuntimeError(self._taken)
        return SimpleNamespace(name=card.name, major=card.capability[0], minor=card.capability[1])

    def mem_get_info(self, index: int) -> tuple[int, int]:
        return self._cards[index].free_bytes, self._cards[index].total_bytes


def _machine(patch: pytest.MonkeyPatch, cuda: _Cuda, triton: bool = True) -> None:
    patch.setattr(torch.version, "cuda", "13.0")
    patch.setattr(torch, "cuda", cuda)
    patch.setattr(torch, "zeros", lambda *_, **__: None)
    patch.setattr(importlib.util, "find_spec", lambda name: object() if triton else None)


def test_the_gpu_with_most_free_memory_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    _machine(monkeypatch, _Cuda([replace(SMALL, index=0), replace(BIG, index=1)]))
    assert [one.name for one in survey().gpus] == ["NVIDIA H200", "NVIDIA L4"]
    found = chosen_gpu("auto")
    assert found is not None and found.index == 1 and found.bfloat16
    other = chosen_gpu("cuda:0")
    assert other is not None and other.name == "NVIDIA L4"
    assert chosen_gpu("cpu") is None
    with pytest.raises(InputError, match=r"'cuda:7': there is no such GPU; there is cuda:1 .NVIDIA H200., cuda:0"):
        chosen_gpu("cuda:7")


@pytest.mark.parametrize(
    ("cuda", "triton", "says"),
    [
        (_Cuda([BIG], fails="Found no NVIDIA driver on your system. Please check"), True, "Found no NVIDIA driver"),
        (_Cuda([BIG], fails="The NVIDIA driver on your system is too old (found version 11040). Please update"), True,
         r"too old \(found version 11040\)"),
        (_Cuda([BIG], taken="CUDA-capable device(s) is/are busy or unavailable\nmore"), True,
         "GPU 0 cannot be used: CUDA-capable device.*busy"),
        (_Cuda([BIG]), False, "triton, in which the GPU's kernels are written, is not installed"),
        (_Cuda([]), True, "no NVIDIA GPU was found"),
        (_Cuda([OLD]), True, "cuda:0 .Tesla T4. has no bfloat16"),
    ],
)  # fmt: skip
def test_a_gpu_that_cannot_be_used_is_one_sentence(
    cuda: _Cuda, triton: bool, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _machine(monkeypatch, cuda, triton)
    with pytest.raises(InputError, match=says) as refused:
        chosen_gpu("cuda")
    assert "\n" not in refused.value.what and refused.value.remedy
    assert chosen_gpu("auto") is None


def test_an_old_card_is_used_for_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    _machine(monkeypatch, _Cuda([OLD]))
    assert chosen_gpu("auto", "bfloat16") is None
    found = chosen_gpu("auto", "float32")
    assert found is not None and found.name == "Tesla T4"


def test_a_torch_without_cuda_beside_a_gpu_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(devices, "_has_nvidia_gpu", lambda: True)
    assert "built without CUDA" in survey().problem and "torch-backend" in survey().remedy
    monkeypatch.setattr(devices, "_has_nvidia_gpu", lambda: False)
    assert survey() == Survey()
    with pytest.raises(InputError, match="no NVIDIA GPU was found"):
        chosen_gpu("cuda")


def _work(**changes: Any) -> Workload:
    return Workload(**{"sizes": QWEN, "trainable": 40_000_000, "longest_row": 700, "step_tokens": 8400, **changes})


def _config(**settings: Any) -> TrainConfig:
    return TrainConfig.model_validate({"batch_size": 16, **settings})


def _on(patch: pytest.MonkeyPatch, *gpus: Gpu, problem: str = "") -> None:
    found = Survey(gpus, problem)
    patch.setattr(devices, "survey", lambda: found)
    patch.setattr(placement, "survey", lambda: found)
    patch.setattr(placement, "gpu_rates", lambda dtype, device: (7e5, 4.3e12))


@pytest.mark.parametrize(
    ("free_gb", "stored_gb", "way"), [(140, 0, "keep"), (30, 5, "keep"), (20, 5, "recompute"), (12, 5, "stream")]
)
def test_the_memory_mode_fits_the_card(free_gb: float, stored_gb: float, way: MemoryWay) -> None:
    gpu = replace(BIG, free_bytes=int(free_gb * 1e9))
    found = memory_on_gpu(_work(stored_bytes=int(stored_gb * 1e9)), _config(), gpu)
    assert found.way == way and found.bytes < free_gb * 1e9 and found.pack_tokens >= 700


def test_less_memory_gives_smaller_packs_and_then_a_refusal() -> None:
    packs = [memory_on_gpu(_work(), _config(memory="keep"), replace(BIG, free_bytes=gb * 10**9)).pack_tokens
             for gb in (140, 60, 40, 24)]  # fmt: skip
    assert packs == sorted(packs, reverse=True) and packs[0] == 11200 and packs[-1] < 2000
    with pytest.raises(NoGo, match=r"does not fit in 9.5 GB .*recompute 1\d") as refused:
        memory_on_gpu(_work(), _config(), replace(BIG, free_bytes=10**10))
    assert "NVIDIA H200, 10.0 of 150.0 GB free" in refused.value.remedy


def test_auto_goes_to_the_processor_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    small = replace(QWEN, layers=2, hidden=64, heads=4, kv_heads=2, head_dim=16, ffn=128, vocab=512)
    mixture = replace(small, architecture="qwen3moe", experts=Experts(4, 2))
    _on(monkeypatch, replace(BIG, free_bytes=2 * 10**8))
    found = place(_work(sizes=small, trainable=1000), _config())
    assert found.gpu is None and isinstance(found.notes[0], planning.GpuTooSmall)
    _on(monkeypatch, BIG)
    found = place(_work(sizes=mixture, trainable=1000), _config())
    assert found.gpu is None and found.notes == [planning.BaseNotOnGpu("a mixture of experts")]
    with pytest.raises(InputError, match="'cuda': the base is a mixture of experts"):
        place(_work(sizes=mixture, trainable=1000), _config(device="cuda"))
    _on(monkeypatch, OLD)
    found = place(_work(sizes=small, trainable=1000), _config())
    assert found.gpu is None and isinstance(found.notes[0], planning.GpuWithoutBfloat16)
    _on(monkeypatch, problem="the driver is broken")
    found = place(_work(sizes=small, trainable=1000), _config())
    assert found.gpu is None and isinstance(found.notes[0], planning.GpuNotUsable)
    _on(monkeypatch)
    assert place(_work(sizes=small, trainable=1000), _config()).notes == []


def test_the_gpu_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    _on(monkeypatch, BIG)
    found = place(_work(), _config())
    assert found.gpu == BIG and found.memory.way == "keep" and found.dtype == torch.bfloat16 and found.gflops == 7e5
    assert place(_work(), _config(precision="float32")).dtype == torch.float32


def test_several_gpus_are_those_with_most_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    cards = [replace(BIG, index=n, free_bytes=BIG.free_bytes - n) for n in range(4)]
    _on(monkeypatch, *cards)
    assert devices.several_gpus(cards[2], 3) == [cards[2], cards[0], cards[1]]
    with pytest.raises(InputError, match=r"train.gpus = 5: there is only NVIDIA H200") as refused:
        place(_work(), _config(gpus=5))
    assert "train.gpus = 4" in refused.value.remedy
    alone, together = (place(_work(), _config(gpus=count)) for count in (1, 2))
    assert together.gpus == cards[:2] and not together.sharded
    assert together.memory.pack_tokens == 5600, "each has half of the 16 rows"
    seconds = [one.seconds(_work(), _config(), 10**7, 1000) for one in (alone, together)]
    assert seconds[1] == pytest.approx(seconds[0] / 2, rel=0.02)
    _on(monkeypatch)
    with pytest.raises(InputError, match=r"train.gpus = 2, but no NVIDIA GPU was found. Set train.gpus = 1"):
        place(_work(), _config(gpus=2))
    with pytest.raises(InputError, match=r"train.gpus = 2, but train.device = 'cpu'"):
        place(_work(), _config(gpus=2, device="cpu"))


def test_a_base_that_fits_on_no_card_is_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    wide = replace(QWEN, layers=64, hidden=5120, heads=40, kv_heads=8, ffn=27648)
    card = Gpu(0, "NVIDIA A100", 68_000_000_000, 66_000_000_000, (8, 0))
    _on(monkeypatch, card, replace(card, index=1))
    found = place(_work(sizes=wide), _config(gpus=2))
    assert found.sharded and found.memory.way == "recompute" and found.memory.group_tokens > found.memory.pack_tokens
    for settings in ({}, {"gpus": 2, "memory": "keep"}):
        found = place(_work(sizes=wide), _config(device="cuda", **settings))
        assert found.misfit is not None and found.memory == found.misfit.least and found.gpus


def test_with_dropout_a_step_has_a_pack_for_each_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    _on(monkeypatch, BIG, replace(BIG, index=1))
    found = place(_work(), _config(gpus=2, lora={"dropout": 0.1}))
    assert found.memory.pack_tokens == 4096
