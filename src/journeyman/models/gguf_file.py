"""Reads GGUF files: metadata, and tensors that are dequantized on request.

Source: the GGUF specification, version 3 (ggml-org/ggml, docs/gguf.md). Version 2 has the same layout.
The header is parsed here, with every count bounded by the file's size, because a hostile header must cause an error
and not an endless loop; dequantization comes from the `gguf` package. Files that llama.cpp refuses (ggml/src/gguf.cpp)
are refused here as well, because it serves them: duplicate names, an alignment that is not a power of two, tensors
that are not contiguous.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize
from numpy.typing import NDArray

from journeyman.errors import InputError
from journeyman.foreign import plain
from journeyman.model_files import hash_of_model
from journeyman.models.base import BaseRef, PeftBase, StoredBlocks, TokenizerData
from journeyman.models.geometry import Geometry
from journeyman.models.gguf_geometry import geometry_of
from journeyman.models.gguf_split import Header, read_parts
from journeyman.models.gguf_tokenizer import tokenizer_data_of
from journeyman.models.rounding import Intervals, intervals

_MAGIC = b"GGUF"
_MAX_ENTRIES = 1 << 20
_SCALARS = {
    0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d",
}  # fmt: skip
_STRING, _ARRAY = 8, 9
_KINDS = {
    0: "u8", 1: "i8", 2: "u16", 3: "i16", 4: "u32", 5: "i32", 6: "f32", 7: "bool", 8: "str", 10: "u64", 11: "i64",
    12: "f64",
}  # fmt: skip
_MOST_NAME = 63
_ENDS = ("tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id")
"""Keys of further tokens at which llama.cpp stops (src/llama-vocab.cpp)."""


@dataclass(frozen=True)
class TensorInfo:
    """A tensor's place: the number of its file in `GgufFile.parts`, and the offset there in bytes.

    `shape` is in row-major order: (out_features, in_features) for a matrix.
    """

    name: str
    shape: tuple[int, ...]
    kind: GGMLQuantizationType
    offset: int
    nbytes: int
    part: int = 0


class GgufFile:
    """A GGUF file, or the first one of a split model, opened for reading; implements Base.

    Attributes:
        parts: the files of a split model, in order; otherwise only `path`.
        metadata: every key of the header; arrays are lists.
        kinds: key → the type of its value, such as u32, str or [str].
        tensors: name → TensorInfo, in file order.

    Raises:
        InputError: the file or a part is missing, is not GGUF, or does not have the size that its header implies; or a
            part belongs to another model.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.parts, (self.metadata, self.kinds, self.tensors) = read_parts(path, _header_of)

    @property
    def sha256(self) -> str:
        return hash_of_model(self.path)

    @cached_property
    def geometry(self) -> Geometry:
        """See geometry_of."""
        return geometry_of(self)

    @property
    def peft(self) -> PeftBase:
        return PeftBase(self.path.name)

    @property
    def interleaved(self) -> bool:
        return self.geometry.family.rotates_pairs

    @property
    def tokenizer(self) -> TokenizerData:
        return tokenizer_data_of(self.metadata)

    def ref(self) -> BaseRef:
        return BaseRef(self.path)

    def shape(self, name: str) -> tuple[int, ...]:
        return self.info(name).shape

    def storage(self, name: str) -> str:
        return self.info(name).kind.name

    def info(self, name: str) -> TensorInfo:
        """A tensor's place; raises InputError if there is no such tensor."""
        if name not in self.tensors:
            raise InputError(f"{self.path}: tensor {name!r} is missing", "Use a complete GGUF of a supported model")
        return self.tensors[name]

    def tensor(self, name: str) -> np.ndarray[Any, np.dtype[np.float32]]:
        """The values of a tensor as float32, in the shape of its TensorInfo."""
        shape = self.info(name).shape
        return self.rows(name, 0, int(np.prod(shape[:-1]))).reshape(shape)

    def rows(self, name: str, start: int, stop: int) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Rows `start` to `stop` (along the last axis) of a tensor as float32; thread-safe."""
        info = self.info(name)
        raw = self._raw_rows(info, start, stop)
        try:
            values = dequantize(raw, info.kind)
        except NotImplementedError as error:
            raise InputError(
                f"{self.path}: tensor {name!r} has type {info.kind.name}, which cannot be dequantized",
                "Use a GGUF in F16, BF16, Q8_0, Q4_0/1, Q5_0/1 or a K quantization",
            ) from error
        return np.asarray(values, dtype=np.float32)

    def bfloat16_rows(self, name: str, start: int, stop: int) -> NDArray[np.uint16] | None:
        info = self.info(name)
        return self._raw_rows(info, start, stop).view("<u2") if info.kind == GGMLQuantizationType.BF16 else None

    def blocks(self, name: str) -> StoredBlocks | None:
        info = self.info(name)
        values, size = GGML_QUANT_SIZES[info.kind]
        if values == 1:
            return None
        row_bytes = info.shape[-1] // values * size
        return StoredBlocks(info.kind.name, self.parts[info.part], info.offset, info.nbytes // row_bytes, row_bytes)

    def originals(self, name: str, start: int, stop: int) -> Intervals | None:
        info = self.info(name)
        by_importance = any(key.startswith("quantize.imatrix") for key in self.metadata)
        return intervals(self._raw_rows(info, start, stop), info.kind, by_importance=by_importance)

    def _raw_rows(self, info: TensorInfo, start: int, stop: int) -> NDArray[np.uint8]:
        """Rows as stored, (rows, bytes)."""
        block, block_bytes = GGML_QUANT_SIZES[info.kind]
        row_bytes = info.shape[-1] // block * block_bytes
        # Read instead of mapped, because pages of a mapped file would count as this process's memory.
        path, size = self.parts[info.part], (stop - start) * row_bytes
        raw = np.fromfile(path, np.uint8, size, offset=info.offset + start * row_bytes)
        if raw.size != size:
            raise InputError(f"{path}: truncated while being read, in tensor {info.name!r}", "Copy the file again")
        return raw.reshape(stop - start, row_bytes)


def _header_of(path: Path) -> Header:
    if not path.is_file():
        raise InputError(f"{path}: no such model file", "Set base.model in journeyman.toml to a .gguf file")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: an empty file, not GGUF", "Download or copy the file again")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        return _read_header(_Cursor(mapped, path))


class _Cursor:
    """Reads little-endian values; raises InputError at the end of the data."""

    def __init__(self, data: mmap.mmap, path: Path) -> None:
        self.data = data
        self.path = path
        self.at = 0
        self._size = len(data)

    def take(self, size: int) -> bytes:
        at = self.at
        self.at = end = at + size
        if size < 0 or end > self._size:
            raise InputError(f"{self.path}: the header ends early at byte {at}", "Download or copy the file again")
        return self.data[at:end]

    def scalar(self, code: str) -> Any:
        return struct.unpack("<" + code, self.take(struct.calcsize("<" + code)))[0]

    def string(self) -> str:
        size = int.from_bytes(self.take(8), "little")
        return self.take(size).decode("utf-8", errors="replace")

    def value(self) -> tuple[str, Any]:
        """The type of the next value, and the value."""
        kind = self.scalar("I")
        if kind == _STRING:
            return "str", self.string()
        if kind != _ARRAY:
            return _KINDS.get(kind, ""), self.scalar(self._code(kind))
        item, count = self.scalar("I"), self.scalar("Q")
        if item == _STRING:
            self._bound(count, 8)
            return "[str]", [self.string() for _ in range(count)]
        if item == _ARRAY:
            raise InputError(f"{self.path}: nested arrays in the header at byte {self.at}", "Use another GGUF file")
        code = self._code(item)
        self._bound(count, struct.calcsize("<" + code))
        values = list(struct.unpack(f"<{count}{code}", self.take(count * struct.calcsize("<" + code))))
        return f"[{_KINDS[item]}]", values

    def _code(self, kind: int) -> str:
        if kind not in _SCALARS:
            raise InputError(f"{self.path}: unknown value type {kind} at byte {self.at}", "Use another GGUF file")
        return _SCALARS[kind]

    def _bound(self, count: int, item_bytes: int) -> None:
        if count > (self._size - self.at) // item_bytes:
            raise InputError(
                f"{self.path}: an array of {count} items at byte {self.at} does not fit in the file",
                "Download or copy the file again",
            )


def _read_header(cursor: _Cursor) -> Header:
    if cursor.take(4) != _MAGIC:
        raise InputError(f"{cursor.path}: not a GGUF file", "Set base.model in journeyman.toml to a .gguf file")
    version, tensor_count, entry_count = cursor.scalar("I"), cursor.scalar("Q"), cursor.scalar("Q")
    if version not in (2, 3):
        raise InputError(f"{cursor.path}: GGUF version {version} is not supported", "Convert the model again")
    if max(tensor_count, entry_count) > _MAX_ENTRIES:
        raise InputError(f"{cursor.path}: {entry_count} keys and {tensor_count} tensors", "Use another GGUF file")
    metadata: dict[str, Any] = {}
    kinds: dict[str, str] = {}
    for _ in range(entry_count):
        key = cursor.string()
        if key in metadata:
            raise InputError(
                f"{cursor.path}: key {plain(key, 80)!r} appears twice in the header", "Use another GGUF file"
            )
        kinds[key], metadata[key] = cursor.value()
    heads = [_tensor_head(cursor) for _ in range(tensor_count)]
    alignment = metadata.get("general.alignment", 32)
    if kinds.get("general.alignment", "u32") != "u32" or alignment.bit_count() != 1 or alignment > 1 << 20:
        raise InputError(f"{cursor.path}: alignment {alignment!r}", "Use another GGUF file")
    return Header(metadata, kinds, _placed(cursor, heads, alignment))


def _placed(cursor: _Cursor, heads: Sequence[TensorInfo], alignment: int) -> dict[str, TensorInfo]:
    """The tensors with their places in the file; they must be contiguous from the header's end to the file's end."""
    start = -(-cursor.at // alignment) * alignment
    size, at, end = len(cursor.data), start, cursor.at
    tensors: dict[str, TensorInfo] = {}
    for head in heads:
        if head.name in tensors:
            raise InputError(f"{cursor.path}: tensor {plain(head.name, 80)!r} appears twice", "Use another GGUF file")
        if start + head.offset != at:
            raise InputError(
                f"{cursor.path}: tensor {plain(head.name, 80)!r} is at byte {start + head.offset}, not at the end of "
                f"the previous one, {at}",
                "Download or convert the file again",
            )
        tensors[head.name] = replace(head, offset=at)
        end = at + head.nbytes
        at += -(-head.nbytes // alignment) * alignment
    if not end <= size <= max(at, end):
        short = f"{end - size:,} bytes are missing" if size < end else f"{size - at:,} bytes follow the last one"
        raise InputError(
            f"{cursor.path}: {size:,} bytes, but its {len(tensors)} tensors need {end:,}: {short}",
            "Download or copy the file again",
        )
    return tensors


def _tensor_head(cursor: _Cursor) -> TensorInfo:
    """Name, shape and type of a tensor; `offset` counts from the end of the header."""
    name, dimensions = cursor.string(), cursor.scalar("I")
    shown = repr(plain(name, 80))
    if not 1 <= dimensions <= 4 or len(name.encode()) > _MOST_NAME:
        raise InputError(f"{cursor.path}: tensor {shown} has {dimensions} dimensions", "Use another GGUF file")
    shape = tuple(reversed([cursor.scalar("Q") for _ in range(dimensions)]))
    kind, offset = cursor.scalar("I"), cursor.scalar("Q")
    try:
        block, block_bytes = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
    except (ValueError, KeyError) as error:
        raise InputError(f"{cursor.path}: tensor {shown} has unknown type {kind}", "Use another GGUF file") from error
    elements = int(np.prod(shape, dtype=object))
    if shape[-1] % block or not 0 < elements < 1 << 62:
        raise InputError(f"{cursor.path}: tensor {shown} has the shape {shape}", "Use another GGUF file")
    return TensorInfo(name, shape, GGMLQuantizationType(kind), offset, elements // block * block_bytes)
