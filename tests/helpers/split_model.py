"""Splits a GGUF file as the `gguf` package does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf


def write_split(source: Path, target: Path, tensors: int, *, small_first: bool = False, **keys: Any) -> list[Path]:
    """Writes `target` (NAME.gguf) as NAME-00001-of-0000N.gguf and so on; returns the parts.

    Args:
        tensors: the most in one part.
        small_first: the first part has no tensors.
        keys: split.no, split.count or split.tensors.count (with _ for .) → a wrong value, for every part.
    """
    reader = gguf.GGUFReader(source)
    architecture = reader.fields[gguf.Keys.General.ARCHITECTURE].contents()
    writer = gguf.GGUFWriter(target, architecture, split_max_tensors=tensors, small_first_shard=small_first)
    for field in reader.fields.values():
        if not field.name.startswith("GGUF.") and field.name != gguf.Keys.General.ARCHITECTURE:
            of_items = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(field.name, field.contents(), field.types[0], sub_type=of_items)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    add = writer.add_shard_kv_data

    def add_changed() -> None:
        add()
        for data in writer.kv_data:
            for key, value in keys.items():
                data[key.replace("_", ".")].value = value

    writer.add_shard_kv_data = add_changed  # type: ignore[method-assign]
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return sorted(target.parent.glob(f"{target.stem}-*-of-*.gguf"))
