"""Writes a GGUF file again: in another format, with other tensors or other keys."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType
from gguf.quants import quantize
from numpy.typing import NDArray

from journeyman.models.gguf_file import GgufFile

Change = Callable[[str, NDArray[np.float32]], NDArray[np.float32]]
"""Name of a tensor and its values → the values to write."""


def rewritten(
    file: GgufFile,
    path: Path,
    kind: GGMLQuantizationType | Callable[[str], GGMLQuantizationType],
    change: Change = lambda name, values: values,
    keys: Mapping[str, Any] | None = None,
    order: Mapping[str, str] | None = None,
) -> GgufFile:
    """Matrices are stored as `kind`, or what it says for their name; vectors in F32, as llama.cpp's tools do.

    Args:
        keys: values of the header that replace those of the file; None: the key is left out.
        order: name → the tensor whose values it gets.
    """
    reader = gguf.GGUFReader(file.path)
    writer = gguf.GGUFWriter(path, str(file.metadata["general.architecture"]))
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name == gguf.Keys.General.ARCHITECTURE:
            continue
        value = (keys or {}).get(field.name, field.contents())
        of_items = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
        if value is not None:
            writer.add_key_value(field.name, value, field.types[0], sub_type=of_items)
    for name in file.tensors:
        values = change(name, file.tensor((order or {}).get(name, name)))
        if values.ndim == 1:
            writer.add_tensor(name, values.astype(np.float32))
        else:
            stored = kind if isinstance(kind, GGMLQuantizationType) else kind(name)
            writer.add_tensor(name, quantize(values.astype(np.float32), stored), raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return GgufFile(path)
