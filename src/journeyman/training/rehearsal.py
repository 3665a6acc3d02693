"""What a base computes with a random adapter: made before training, and put to the engine that will serve.

llama.cpp's script lays out the adapters of architectures that we have no table for, and its engine applies them.
Neither says when it leaves something out, so both are tried on an adapter that changes every layer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from journeyman.config import LoraConfig
from journeyman.rendering.renderer import Rendered
from journeyman.training.transformers_engine import parameter_name

_ROWS, _LONGEST = 4, 512
_CHANGE = 0.2
"""How much a matrix changes: the size of its update, as a share of 1 / √in, which is about the size of its elements."""

LogProbabilities = Sequence[Mapping[int, float]]
"""For each text, token → log probability of being the next one."""


@dataclass(frozen=True)
class Rehearsal:
    """Texts, what comes next without and with the adapter, and the adapter's file for the engine."""

    texts: Sequence[Sequence[int]]
    plain: LogProbabilities
    adapted: LogProbabilities
    adapter: Path


def texts_of(rows: Sequence[Rendered]) -> list[list[int]]:
    """The beginnings of some rows, up to the middle of their answers."""
    chosen = rows[:: max(1, len(rows) // _ROWS)][:_ROWS]
    return [row.ids[: min(_LONGEST, row.prompt_tokens + row.trained_tokens // 2)] for row in chosen]


def random_adapter(shapes: Mapping[str, tuple[int, int]], lora: LoraConfig, seed: int) -> dict[str, Tensor]:
    """An adapter under `peft`'s names whose B is random too, so that it changes the model noticeably in every layer.

    Args:
        shapes: full name of each adapted module → (out_features, in_features).
    """
    generator, adapter = torch.Generator().manual_seed(seed), {}
    size = _CHANGE * math.sqrt(3 / lora.rank) * lora.rank / lora.alpha
    for name, (rows, columns) in shapes.items():
        bound = 1 / math.sqrt(columns)
        adapter[parameter_name(name, "A")] = torch.empty(lora.rank, columns).uniform_(
            -bound, bound, generator=generator
        )
        adapter[parameter_name(name, "B")] = torch.randn(rows, lora.rank, generator=generator) * size
    return adapter
