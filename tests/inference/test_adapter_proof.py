"""An engine that computes something else than training is found out, before anything is trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch

from conftest import write_tiny_gguf
from journeyman.config import LoraConfig
from journeyman.errors import EngineError
from journeyman.inference.adapter_proof import prove_adapter
from journeyman.models.gguf_file import GgufFile
from journeyman.models.weights import load_decoder
from journeyman.training.export import write_gguf
from journeyman.training.lora import Adapter
from journeyman.training.rehearsal import random_adapter

LORA = LoraConfig(rank=8, alpha=16)
TEXTS = [[3 + (7 * number + place * 13) % 200 for place in range(24)] for number in range(4)]


class _Rehearsed:
    """A base, a random adapter, and what our own decoder computes with both."""

    def __init__(self, folder: Path, **base: object) -> None:
        self.file = write_tiny_gguf(folder / "base.gguf", **base)  # type: ignore[arg-type]
        decoder = load_decoder(GgufFile(self.file), torch.float32)
        self.adapter, self.folder = Adapter(decoder.geometry, LORA, 0), folder
        parameters = self.adapter.parameters
        names = [name.removesuffix(".lora_A.weight") for name in parameters if name.endswith(".lora_A.weight")]
        shapes = {
            name.removeprefix("base_model.model."): (
                len(parameters[f"{name}.lora_B.weight"]), parameters[f"{name}.lora_A.weight"].shape[1],
            )
            for name in names
        }  # fmt: skip
        self.adapter.load(random_adapter(shapes, LORA, 0))
        self.plain, self.adapted = (
            [self._next(decoder, ids, lora) for ids in TEXTS] for lora in (None, self.adapter.layers())
        )

    def _next(self, decoder: object, ids: list[int], lora: object) -> Mapping[int, float]:
        with torch.no_grad():
            logits = decoder.logits(torch.tensor(ids), [len(ids)], lora)[-1]  # type: ignore[attr-defined]
        return dict(enumerate(logits.log_softmax(-1).tolist()))

    def proven(self, served: Path | None = None) -> tuple[float, float]:
        write_gguf(self.adapter, self.folder / "adapter.gguf")
        return prove_adapter(served or self.file, self.folder / "adapter.gguf", TEXTS, self.plain, self.adapted, 1)


@pytest.fixture
def rehearsed(tmp_path: Path) -> _Rehearsed:
    return _Rehearsed(tmp_path)


def test_what_is_the_same_is_proven(rehearsed: _Rehearsed) -> None:
    plain, adapted = rehearsed.proven()
    assert plain < 0.01 and adapted < 0.02
    effects = [abs(one[token] - two[token]) for one, two in zip(rehearsed.plain, rehearsed.adapted, strict=True)
               for token in sorted(two, key=two.__getitem__)[-10:]]  # fmt: skip
    assert sum(effects) / len(effects) > 0.5, "the adapter changes the model noticeably"


def test_a_file_of_another_base_is_found_out(rehearsed: _Rehearsed, tmp_path: Path) -> None:
    other = write_tiny_gguf(tmp_path / "other.gguf", seed=9)
    with pytest.raises(EngineError, match=r"does not compute what transformers computes from this base.*by \d+\.\d\d"):
        rehearsed.proven(other)


def _without(module: str) -> Callable[[dict[str, torch.Tensor]], None]:
    def change(parameters: dict[str, torch.Tensor]) -> None:
        for name, value in parameters.items():
            if f".{module}.lora_B" in name:
                value.zero_()

    return change


def _half(parameters: dict[str, torch.Tensor]) -> None:
    for name, value in parameters.items():
        if ".lora_B" in name:
            value.mul_(0.5)


def _other_order(parameters: dict[str, torch.Tensor]) -> None:
    """As if rotary pairs were halves."""
    for name, value in parameters.items():
        if "q_proj.lora_B" in name or "k_proj.lora_B" in name:
            value.copy_(value.view(-1, 2, 4, value.shape[1]).transpose(1, 2).reshape(value.shape))


CHANGES = {
    "without values": _without("v_proj"), "without gates": _without("gate_proj"), "without outputs": _without("o_proj"),
    "half the scale": _half, "another order of rows": _other_order,
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_an_adapter_that_is_applied_otherwise_is_found_out(change: str, rehearsed: _Rehearsed) -> None:
    with torch.no_grad():
        CHANGES[change](rehearsed.adapter.parameters)
    with pytest.raises(EngineError, match="with an adapter, the engine does not compute what transformers and peft"):
        rehearsed.proven()
