"""Writes a GGUF file with the adapter merged into its weights: W + s B A.

journeyman serves adapters separately from their base. A merged file is for programs that cannot; it is another file
than the one that was evaluated, and `evaluate --bisect` shows the effect on the answers.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType, LlamaFileType
from gguf.quants import quantize
from torch import Tensor

from journeyman.artifacts import complete_or_absent, remove_quietly
from journeyman.errors import InputError
from journeyman.model_files import parts_of
from journeyman.models.base import Base
from journeyman.models.quantizing import QUANTIZED, QUANTIZER, quantize_file, quantizer
from journeyman.training.export import adapter_in_gguf
from journeyman.training.lora import Adapter

_ALPHA = "adapter.lora.alpha"
WRITABLE = {
    kind.name: kind
    for kind in (
        GGMLQuantizationType.F32, GGMLQuantizationType.F16, GGMLQuantizationType.BF16, GGMLQuantizationType.Q8_0,
        GGMLQuantizationType.Q5_1, GGMLQuantizationType.Q5_0, GGMLQuantizationType.Q4_1, GGMLQuantizationType.Q4_0,
    )
}  # fmt: skip
"""Formats that the package gguf writes. It reads K quantizations, and writes none."""

_FINE = ("F32", "F16", "BF16", "Q8_0")

Updates = Mapping[str, tuple[Tensor, Tensor]]
"""Name of a matrix in GGUF → A and B; stacked for experts."""


def write_merged(base: Base, adapter: Adapter, kind: GGMLQuantizationType, path: Path) -> None:
    """Merges an adapter of our own decoder: see merge."""
    merge(base, adapter_in_gguf(adapter), adapter.config.alpha / adapter.config.rank, kind, path)


def write_merged_file(base: Base, adapter: Path, kind: str, path: Path) -> None:
    """Merges a GGUF adapter: see merge.

    Formats that are not WRITABLE are made of a merged file by llama-quantize, which quantizes all matrices.

    Raises:
        DiskError, InputError: as merge and quantize_file do.
    """
    if kind in WRITABLE:
        merge(base, *read_adapter(adapter), WRITABLE[kind], path)
        return
    between = path.with_name(f".{path.name}.F16.{os.getpid()}.tmp")
    try:
        merge(base, *read_adapter(adapter), GGMLQuantizationType.F16, between)
        with complete_or_absent(path) as staged:
            quantize_file(between, kind, staged)
    finally:
        remove_quietly(between)


def refuse_unwritable(kind: str) -> None:
    """Refuses a format that cannot be written on this machine.

    Raises:
        InputError: there is no such format, or llama-quantize is not on PATH.
    """
    if kind not in WRITABLE and (kind not in QUANTIZED or quantizer() is None):
        made = f"needs llama.cpp's {QUANTIZER} on PATH" if kind in QUANTIZED else "is not a format"
        raise InputError(f"{kind}: {made}", f"Install llama.cpp's programs, or choose one of {', '.join(WRITABLE)}")


def read_adapter(path: Path) -> tuple[Updates, float]:
    """The matrices of a GGUF adapter, and the scale of their product.

    Source: ggml-org/llama.cpp, src/llama-adapter.h (`get_scale`).

    Raises:
        InputError: a matrix has no counterpart.
    """
    reader = gguf.GGUFReader(path)
    tensors = {tensor.name: torch.from_numpy(np.array(tensor.data, dtype=np.float32)) for tensor in reader.tensors}
    names = {name.rsplit(".lora_", 1)[0] for name in tensors}
    if tensors.keys() != {f"{name}.lora_{side}" for name in names for side in "ab"} or not names:
        raise InputError(f"{path}: not an adapter with A and B for each matrix", "Train again: journeyman run --redo")
    updates = {name: (tensors[f"{name}.lora_a"], tensors[f"{name}.lora_b"]) for name in sorted(names)}
    alpha = float(reader.fields[_ALPHA].contents())
    ranks = {a.shape[-2] for a, _ in updates.values()}
    if len(ranks) != 1:
        raise InputError(f"{path}: its matrices have the ranks {sorted(ranks)}", "Train again: journeyman run --redo")
    return updates, alpha / ranks.pop()


def merge(base: Base, updates: Updates, scale: float, kind: GGMLQuantizationType, path: Path) -> None:
    """Merges in float32 and stores the merged matrices as `kind`; everything else is copied from the base.

    Matrices whose rows do not consist of whole blocks of `kind` are stored as F16, as llama.cpp does. The file is
    complete or absent.

    Raises:
        DiskError: the disk is full or the folder cannot be written to.
        InputError: the base lacks a matrix of the adapter.
    """
    with complete_or_absent(path) as staged:
        _merge(base, updates, scale, kind, staged)


def _merge(base: Base, updates: Updates, scale: float, kind: GGMLQuantizationType, path: Path) -> None:
    readers = [gguf.GGUFReader(path) for path in parts_of(base.path)]
    names = {tensor.name for reader in readers for tensor in reader.tensors}
    if missing := sorted(updates.keys() - names):
        raise InputError(f"{base.path}: has no {missing[0]}, which the adapter changes", "Use the adapter's own base")
    writer = gguf.GGUFWriter(path, str(readers[0].fields[gguf.Keys.General.ARCHITECTURE].contents()))
    for field in readers[0].fields.values():
        if field.name.startswith(("GGUF.", "split.")) or field.name == gguf.Keys.General.ARCHITECTURE:
            continue
        if field.name == gguf.Keys.General.FILE_TYPE:
            writer.add_file_type(_file_type(kind))
            continue
        of_items = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), field.types[0], sub_type=of_items)
    for tensor in (tensor for reader in readers for tensor in reader.tensors):
        if tensor.name not in updates:
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
            continue
        a, b = updates[tensor.name]
        merged = (base.tensor(tensor.name) + scale * (b @ a).numpy()).astype(np.float32)
        stored = kind if merged.shape[-1] % gguf.GGML_QUANT_SIZES[kind][0] == 0 else GGMLQuantizationType.F16
        writer.add_tensor(tensor.name, quantize(merged, stored), raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def format_like(base: Base, adapter: Path) -> str:
    """The format of most numbers that an adapter changes, if it can be written here; otherwise Q8_0."""
    updates, _ = read_adapter(adapter)
    numbers: Counter[str] = Counter()
    for name in updates:
        numbers[base.storage(name)] += math.prod(base.shape(name))
    (most, _), *_ = numbers.most_common(1)
    return most if most in WRITABLE else GGMLQuantizationType.Q8_0.name


def merged_format(base: Base, adapter: Path) -> str:
    """The format of merged weights if the user chooses none: the base's, but at least 8 bits.

    Rounding to fewer bits once more moves weights as far as a small adapter does. Of six golden answers of SmolLM2 135M
    with random adapters, F16 and Q8_0 changed tokens only where two were about equally likely, and Q4_1 more than that
    in one.
    """
    like = format_like(base, adapter)
    return like if like in _FINE else GGMLQuantizationType.Q8_0.name


def _file_type(kind: GGMLQuantizationType) -> LlamaFileType:
    """What general.file_type says of a file whose matrices have mostly this format."""
    return LlamaFileType.ALL_F32 if kind == GGMLQuantizationType.F32 else LlamaFileType[f"MOSTLY_{kind.name}"]
