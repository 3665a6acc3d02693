"""Log probabilities of given texts, token by token, by the decoder that was trained: what a server is compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from journeyman.config import TrainConfig
from journeyman.models.base import Base
from journeyman.models.decoder import Decoder, LayerLora
from journeyman.models.loss import chunk_rows
from journeyman.models.weights import load_decoder
from journeyman.training.export import load_peft
from journeyman.training.hardware import compute_dtype, keep_freed_memory, use_threads
from journeyman.training.lora import Adapter

Text = tuple[str, Sequence[int]]
"""The name of an adapter, and token ids."""


def base_and_tuned(
    base: Base, config: TrainConfig, folders: Mapping[str, Path], texts: Sequence[Text]
) -> list[tuple[list[float], list[float]]]:
    """For each text, the log probability of every token but the first: by the base alone, and with the adapter.

    Args:
        folders: adapter → its folder in peft's format.
    """
    keep_freed_memory()
    use_threads(config.threads)
    decoder = load_decoder(base, compute_dtype(config.precision), stream=True)
    adapters = {name: _lora(decoder, base, config, folders[name]) for name in {name for name, _ in texts}}
    return [(_of(decoder, ids, None), _of(decoder, ids, adapters[name])) for name, ids in texts]


def _lora(decoder: Decoder, base: Base, config: TrainConfig, folder: Path) -> list[LayerLora]:
    adapter = Adapter(decoder.geometry, config.lora, config.seed)
    load_peft(adapter, base.peft, folder)
    return adapter.layers()


@torch.no_grad()
def _of(decoder: Decoder, ids: Sequence[int], lora: list[LayerLora] | None) -> list[float]:
    ids_T, head_VD = torch.tensor(ids), decoder.weights.head_VD
    hidden_TD = decoder.hidden_states(ids_T, [len(ids)], lora)
    chunk, found = chunk_rows(len(head_VD)), []
    for start in range(0, len(ids) - 1, chunk):
        next_L = ids_T[start + 1 : start + chunk + 1]
        logits_LV = _capped(F.linear(hidden_TD[start : start + len(next_L)], head_VD).float(), decoder)
        found += logits_LV.log_softmax(-1).gather(1, next_L[:, None])[:, 0].tolist()
    return found


def _capped(logits: Tensor, decoder: Decoder) -> Tensor:
    cap = decoder.geometry.logit_cap
    return logits if cap is None else torch.tanh(logits / cap) * cap
