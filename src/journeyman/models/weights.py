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
from journeyman.models.families import gguf_parts
from journeyman.models.geometry import Factors, Geometry
from journeyman.models.mixture import Router

ReadMatrix = Callable[[Sequence[str], Callable[[Tensor], Tensor]], Any]
"""Reads the tensors of a module, whose names it gets, as one matrix with its rows reordered by a function."""

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


def load_decoder(file: Base, dtype: torch.dtype, *, stream: bool = False, factors: Factors | None = None) -> Decoder:
    """The decoder of a base, computing in `dtype`.

    Args:
        stream: leave the weights quantized in the file and dequantize them layer by layer; the values are the same.
        factors: the rotary divisors that it will be served with (Geometry.factors), if the base has two sets.
    """
    geometry = file.geometry.with_factors(factors)
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


def load_layers(
    file: Base, geometry: Geometry, dtype: torch.dtype, read_matrix: ReadMatrix | None = None
) -> Iterator[LayerWeights]:
    """The layers of a base, one after the other.

    Args:
        read_matrix: makes the matrices of LayerWeights.linear; None: they are dequantized.
    """
    return (_load_layer(file, geometry, index, dtype, read_matrix) for index in range(geometry.layers))


def read_tensor(file: Base, name: str, dtype: torch.dtype) -> Tensor:
    """A tensor in `dtype`, dequantized in pieces by several threads."""
    return _read_parts(file, (name,), dtype)


def _read_parts(file: Base, names: Sequence[str], dtype: torch.dtype) -> Tensor:
    """Tensors whose rows are put together: matrices, stacks of matrices, or vectors."""
    shapes = [file.shape(name) for name in names]
    if len(shapes[0]) == 1:
        return torch.cat([torch.from_numpy(file.tensor(name)) for name in names]).to(dtype)
    *stack, _, columns = shapes[0]
    rows = [shape[-2] for shape in shapes]
    out = torch.empty((*stack, sum(rows), columns), dtype=dtype)
    step = max(1, _PIECE // columns)
    pieces = [
        (matrix[start : start + step], name, number * count + start)
        for name, count, part in zip(names, rows, torch.split(out, rows, dim=-2), strict=True)
        for number, matrix in enumerate(part.view(-1, count, columns) if len(names) == 1 else part)
        for start in range(0, count, step)
    ]

    def fill(piece: tuple[Tensor, str, int]) -> None:
        place, name, start = piece
        bits = file.bfloat16_rows(name, start, start + len(place))
        if bits is None:
            place.copy_(torch.from_numpy(file.rows(name, start, start + len(place))))
        else:  # half the work of going through float32, with the same values
            place.copy_(torch.from_numpy(bits.view(np.int16)).view(torch.bfloat16))

    with ThreadPoolExecutor(_READERS) as pool:
        list(pool.map(fill, pieces))
    return out


def _load_layer(
    file: Base, geometry: Geometry, index: int, dtype: torch.dtype, read_matrix: ReadMatrix | None = None
) -> LayerWeights:
    def read(name: str) -> Tensor:
        return read_tensor(file, f"blk.{index}.{name}", dtype)

    def dequantized(names: Sequence[str], reordered: Callable[[Tensor], Tensor]) -> Tensor:
        return reordered(_read_parts(file, names, dtype))

    linear, bias = {}, {}
    for module in geometry.modules:

        def in_halves(rows: Tensor, module: str = module) -> Tensor:
            return to_half_split(rows, module, geometry) if file.interleaved else rows

        names = [f"blk.{index}.{name}" for name in gguf_parts(module)]
        linear[module] = (read_matrix or dequantized)([f"{name}.weight" for name in names], in_halves)
        if module in geometry.biases:
            parts = [torch.from_numpy(file.tensor(f"{name}.bias")) for name in names]
            bias[module] = in_halves(torch.cat(parts, dim=-1).to(dtype))
    norms: dict[str, Any] = {ours: read(f"{name}.weight") for ours, name in geometry.family.norms.items()}
    if geometry.family.qk_norm != "none":
        norms |= {"q_norm": read("attn_q_norm.weight"), "k_norm": read("attn_k_norm.weight")}
    return LayerWeights(
        linear,
        bias,
        **norms,
        alternate=geometry.is_alternate(index),
        router=_router(file, geometry, index) if geometry.experts is not None else None,
        sinks=read("attn_sinks.weight") if geometry.family.sinks else None,
    )


def _router(file: Base, geometry: Geometry, index: int) -> Router:
    name = f"blk.{index}.ffn_gate_inp"
    has_bias = geometry.mixture is not None and geometry.mixture.biases
    bias_N = read_tensor(file, f"{name}.bias", torch.float32) if has_bias else None
    return Router(read_tensor(file, f"{name}.weight", torch.float32), bias_N)


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
