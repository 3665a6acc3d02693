"""The calls that the training loop makes to its engine, as bytes, for the processes that compute it together.

A call is safetensors: its tensors, and its other arguments as JSON in one more tensor.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from journeyman.training.batches import Pack
from journeyman.training.data_parallel import DataParallelEngine
from journeyman.training.engine import Heard, KeyedPack, LossSum

_TENSORS = ("ids_T", "source_L", "labels_L", "weights_L")
_HEADER = "call"


@dataclass(frozen=True)
class Call:
    """A call.

    Attributes:
        name: a method of DataParallelEngine.
        packs: of `accumulate` and `evaluate`, which ignores their keys.
        number: the divisor, norm or learning rate.
        tensors: of `load_state`.
    """

    name: str
    packs: Sequence[KeyedPack] = ()
    number: float = 0.0
    tensors: Mapping[str, Tensor] = field(default_factory=dict)

    def encoded(self) -> bytes:
        about = [
            {"key": p.key, "pack": {name: getattr(p.pack, name) for name in ("lengths", "prefixes", "row_tokens")}}
            for p in self.packs
        ]
        header = json.dumps({"call": self.name, "number": self.number, "packs": about}).encode()
        sent = {f"tensor/{name}": value.contiguous() for name, value in self.tensors.items()}
        sent |= {f"{number}/{name}": getattr(p.pack, name) for number, p in enumerate(self.packs) for name in _TENSORS}
        return save(sent | {_HEADER: torch.frombuffer(bytearray(header), dtype=torch.uint8)})

    @classmethod
    def decoded(cls, blob: bytes) -> Call:
        tensors = load(blob)
        header: dict[str, Any] = json.loads(tensors.pop(_HEADER).numpy().tobytes())
        packs = []
        for number, one in enumerate(header["packs"]):
            content: dict[str, Any] = {name: tensors[f"{number}/{name}"] for name in _TENSORS}
            packs.append(KeyedPack(Pack(**content, **one["pack"]), one["key"]))
        others = {name.removeprefix("tensor/"): value for name, value in tensors.items() if name.startswith("tensor/")}
        return cls(header["call"], packs, header["number"], others)

    def of(self, engine: DataParallelEngine, heard: Heard) -> LossSum | float | dict[str, Tensor] | None:
        """Makes the call; see engine.TrainingEngine."""
        match self.name:
            case "accumulate":
                return engine.accumulate(self.packs, self.number, heard)
            case "clip":
                return engine.clip(self.number)
            case "step":
                engine.step(self.number)
            case "evaluate":
                return engine.evaluate([one.pack for one in self.packs], heard)
            case "adapter":
                return engine.adapter()
            case "gather_gradient":
                engine.gather_gradient()
            case "state":
                return engine.state()
            case "load_state":
                engine.load_state(self.tensors)
            case _:
                raise AssertionError(f"unknown call {self.name}")
        return None
