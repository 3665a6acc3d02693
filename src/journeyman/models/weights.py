"""Loads the frozen weights of a decoder from its base, in the layout of `transformers`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from journeyman.models.base import Base
from journeyman.models.decoder import Decoder, LayerWeights
from journeyman.models.families import gguf_name
from journeyman.models.geometry import Geometry

_READERS = min(4, os.cpu_count() or 1)
_PIECE = 1 << 19
"""Elements dequantized at a time, so that intermediate values stay in the processor's cache."""


@dataclass
class ResidentWeights:
    """Weights that are all dequantized in memory. `head_VD` is the embedding itself if the two are tied."""

    embedding_VD: Tensor
    layers: Sequence[LayerWeights]
    norm: Tensor
    head_VD: Tensor

    def embed(self, ids_T: Tensor) -> Tensor:
        return F.embedding(ids_T, self.embedding_VD)


class StreamedWeights:
    """Weights that stay quantized in the file; a layer is dequantized when it is accessed.

    For bases whose dequantized weights do not fit in memory; two layers are in memory at a time.
    """

    def __init__(self, file: Base, geometry: Geometry, dtype: torch.dtype) -> None:
        self._file, self._dtype = file, dtype
        self._head = "token_embd.weight" if geometry.tied_head else "output.weight"
        self.layers = _LayersOnDemand(lambda index: _load_layer(file, geometry, index, dtype), geometry.layers)
        self.norm = read_tensor(file, "output_norm.weight", dtype)

    def embed(self, ids_T: Tensor) -> Tensor:
        distinct, places_T = torch.unique(ids_T, return_inverse=True)
        rows = [self._file.rows("token_embd.weight", one, one + 1) for one in distinct.tolist()]
        return torch.from_numpy(np.concatenate(rows)).to(self._dtype)[places_T]

    @property
    def head_VD(self) -> Tensor:
        return read_tensor(self._file, self._head, self._dtype)


class _LayersOnDemand(Sequence[LayerWeights]):
    """Keeps the layer accessed last and prefetches its neighbor: layers are accessed upwards, then downwards."""

    def __init__(self, load: Callable[[int], LayerWeights], count: int) -> None:
        self._load, self._count = load, count
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="dequantize")
        self._made: dict[int, Future[LayerWeights]] = {}
        self._last = -1

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> LayerWeights:  # type: ignore[override]  # slices are never taken
        if not 0 <= index < self._count:
            raise IndexError(index)
        upwards = index < self._count - 1 and (index > self._last or index == 0)
        wanted = {index, min(index + 1, self._count - 1) if upwards else max(index - 1, 0)}
        self._made = {number: future for number, future in self._made.items() if number in wanted}
        for number in sorted(wanted, key=lambda n: abs(n - index)):
            if number not in self._made:
                self._made[number] = self._thread.submit(self._load, number)
        self._last = index
        return self._made[index].result()


def load_decoder(file: Base, dtype: torch.dtype, *, stream: bool = False) -> Decoder:
    """The decoder of a base, computing in `dtype`.

    Args:
        stream: leave the weights quantized in the file and dequantize them layer by layer; the values are the same.
    """
    geometry = file.geometry
    if stream:
        return Decoder(geometry, StreamedWeights(file, geometry, dtype))
    embedding = read_tensor(file, "token_embd.weight", dtype)
    weights = ResidentWeights(
        embedding_VD=embedding,
        layers=list(load_layers(file, geometry, dtype)),
        norm=read_tensor(file, "output_norm.weight", dtype),
        head_VD=embedding if geometry.tied_head else read_tensor(file, "output.weight", dtype),
    )
    return Decoder(geometry, weights)


def load_layers(file: Base, geometry: Geometry, dtype: torch.dtype) -> Iterator[LayerWeights]:
    """The layers of a base, one after the other."""
    return (_load_layer(file, geometry, index, dtype) for index in range(geometry.layers))


def read_tensor(file: Base, name: str, dtype: torch.dtype) -> Tensor:
    """A tensor in `dtype`, dequantized in pieces by several threads."""
    shape = file.shape(name)
    if len(shape) == 1:
        return torch.from_numpy(file.tensor(name)).to(dtype)
    out = torch.empty(shape, dtype=dtype)
    step = max(1, _PIECE // shape[-1])

    def fill(start: int) -> None:
        stop = min(start + step, shape[0])
        out[start:stop] = torch.from_numpy(file.rows(name, start, stop))

    with ThreadPoolExecutor(_READERS) as pool:
        list(pool.map(fill, range(0, shape[0], step)))
    return out


def _load_layer(file: Base, geometry: Geometry, index: int, dtype: torch.dtype) -> LayerWeights:
    def read(name: str) -> Tensor:
        return read_tensor(file, f"blk.{index}.{name}", dtype)

    linear, bias = {}, {}
    for module in geometry.modules:
        name = gguf_name(module)
        linear[module] = to_half_split(read(f"{name}.weight"), module, geometry)
        if module in geometry.biases:
            bias[module] = to_half_split(read(f"{name}.bias"), module, geometry)
    norms: dict[str, Any] = {ours: read(f"{name}.weight") for ours, name in geometry.family.norms.items()}
    if geometry.family.qk_norm != "none":
        norms |= {"q_norm": read("attn_q_norm.weight"), "k_norm": read("attn_k_norm.weight")}
    return LayerWeights(linear, bias, **norms, alternate=geometry.is_alternate(index))


def to_half_split(rows: Tensor, module: str, geometry: Geometry) -> Tensor:
    """Reorders the rows of q and k from GGUF's interleaved rotary pairs to halves; others pass unchanged."""
    heads = _rotary_heads(module, geometry)
    if heads == 0:
        return rows
    return rows.reshape(heads, -1, 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape).contiguous()


def to_interleaved(rows: Tensor, module: str, geometry: Geometry) -> Tensor:
    """The inverse of `to_half_split`, for the B matrices of a GGUF adapter."""
    heads = _rotary_heads(module, geometry)
    if heads == 0:
        return rows
    return rows.reshape(heads, 2, -1, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape).contiguous()


def _rotary_heads(module: str, geometry: Geometry) -> int:
    if not geometry.family.rotates_pairs:
        return 0
    return {"q_proj": geometry.heads, "k_proj": geometry.kv_heads}.get(module, 0)
