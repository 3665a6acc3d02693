"""Reads safetensors files: the header, and raw values by rows.

Source of the format: huggingface/safetensors, README.md ("Format"). The header is parsed here and not by the library,
because every tensor is checked against the file's size before anything is read, and because values are read instead of
mapped: pages of a mapped file would count as this process's memory.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from journeyman.errors import InputError
from journeyman.foreign import plain

DTYPES: Mapping[str, np.dtype[Any]] = {
    name: np.dtype(kind)
    for name, kind in {
        "BOOL": "u1", "U8": "u1", "I8": "i1", "U16": "<u2", "I16": "<i2", "U32": "<u4", "I32": "<i4", "U64": "<u8",
        "I64": "<i8", "F16": "<f2", "F32": "<f4", "F64": "<f8", "BF16": "<u2", "F8_E4M3": "u1", "F8_E5M2": "u1",
        "F8_E8M0": "u1",
    }.items()
}  # fmt: skip
"""Type in the header → the type in which values are read; numpy has no bfloat16 and no float8, so these are bits."""

_MOST_HEADER = 32 << 20
"""In bytes. The format allows 100 MB; headers of real models, experts included, have less than 10."""
_MOST_DIMENSIONS = 8
_AGAIN = "Download or copy the file again"


@dataclass(frozen=True)
class StoredTensor:
    """A tensor's place: `offset` counts bytes from the beginning of the file."""

    name: str
    path: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int

    def raw_rows(self, start: int, stop: int) -> NDArray[Any]:
        """Rows `start` to `stop` along the last axis, as stored (see DTYPES), (rows, columns); thread-safe.

        Raises:
            InputError: the file became shorter.
        """
        kind, columns = DTYPES[self.dtype], self.shape[-1] if self.shape else 1
        count = (stop - start) * columns
        found = np.fromfile(self.path, kind, count, offset=self.offset + start * columns * kind.itemsize)
        if found.size != count:
            raise InputError(f"{self.path}: truncated while being read, in tensor {plain(self.name, 120)!r}", _AGAIN)
        return found.reshape(stop - start, columns)

    def raw(self) -> NDArray[Any]:
        """All values, as stored, in the tensor's shape."""
        return self.raw_rows(0, math.prod(self.shape[:-1])).reshape(self.shape)


def read_header(path: Path) -> dict[str, StoredTensor]:
    """The tensors of a safetensors file, in the order of their data.

    Raises:
        InputError: no such file; it is not safetensors; or the header does not describe exactly the bytes that follow.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file", "Download or copy all files of the model again")
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        _refuse_other_files(path, start + file.read(120), size)
        length = int.from_bytes(start, "little")
        if length > size - 8:
            raise InputError(f"{path}: {size:,} bytes, but its header needs {length + 8:,}", _AGAIN)
        if length > _MOST_HEADER:
            raise InputError(f"{path}: a header of {length:,} bytes, more than {_MOST_HEADER:,}", "Use another file")
        file.seek(8)
        header = _parsed(path, file.read(length))
    tensors = [_tensor(path, name, entry, 8 + length) for name, entry in header.items() if name != "__metadata__"]
    _check_places(path, tensors, 8 + length, size)
    return {tensor.name: tensor for tensor, _ in sorted(tensors, key=lambda one: (one[0].offset, one[1]))}


def _refuse_other_files(path: Path, start: bytes, size: int) -> None:
    """Files that often have this extension or are in the place of one, by their first bytes."""
    if start.startswith(b"version https://git-lfs"):
        raise InputError(
            f"{path}: a pointer of Git LFS, not the file itself", f"Fetch it: git lfs pull --include {path.name}"
        )
    if start.lstrip()[:1] == b"<":
        raise InputError(f"{path}: a web page, not safetensors", "Download the file again, signed in if it is gated")
    if size < 8 or start[8:9] not in (b"{", b""):
        raise InputError(f"{path}: {'an empty file' if not size else 'not a safetensors file'}", _AGAIN)


def _parsed(path: Path, text: bytes) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            seen: set[str] = set()
            twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
            raise InputError(f"{path}: {plain(twice, 120)!r} appears twice in the header", "Use another file")
        return found

    try:
        header = json.loads(text.decode("utf-8"), object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: the header is not valid JSON: {plain(str(error), 120)}", _AGAIN) from error
    if not isinstance(header, dict):
        raise InputError(f"{path}: the header is not an object", _AGAIN)
    return header


def _tensor(path: Path, name: str, entry: Any, data: int) -> tuple[StoredTensor, int]:
    """The tensor of an entry, and where it ends; `data`: where the data begins."""
    where = f"{path}: tensor {plain(name, 120)!r}"
    entry = entry if isinstance(entry, dict) else {}
    dtype, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise InputError(f"{where} has type {plain(str(dtype), 40)}, which is not known", "Use another checkpoint")
    if not _are_sizes(shape) or len(shape) > _MOST_DIMENSIONS or not _are_sizes(offsets) or len(offsets) != 2:
        raise InputError(f"{where} has no shape or place", _AGAIN)
    begin, end = offsets
    if end - begin != math.prod(shape) * DTYPES[dtype].itemsize:
        raise InputError(f"{where} has {end - begin:,} bytes, which does not fit {dtype} of shape {shape}", _AGAIN)
    return StoredTensor(name, path, dtype, tuple(shape), data + begin), data + end


def _are_sizes(values: Any) -> bool:
    return isinstance(values, list) and all(type(one) is int and 0 <= one < 1 << 60 for one in values)


def _check_places(path: Path, tensors: list[tuple[StoredTensor, int]], data: int, size: int) -> None:
    """Refuses tensors that overlap or leave gaps, and a file that ends elsewhere than the last one."""
    at = data
    for tensor, end in sorted(tensors, key=lambda one: (one[0].offset, one[1])):
        if tensor.offset != at:
            what = "overlaps the previous one" if tensor.offset < at else "leaves a gap after the previous one"
            raise InputError(f"{path}: tensor {plain(tensor.name, 120)!r} {what}", "Use another file")
        at = end
    if at != size:
        what = f"{at - size:,} bytes are missing" if size < at else f"{size - at:,} bytes follow the last tensor"
        raise InputError(f"{path}: {size:,} bytes, but its {len(tensors)} tensors need {at:,}: {what}", _AGAIN)
