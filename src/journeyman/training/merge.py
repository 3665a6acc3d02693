"""Writes a GGUF file with the adapter merged into its weights: W + s B A.

journeyman serves adapters separately from their base and merges nothing; other tools do, and `evaluate --bisect` shows
the effect on the answers.
"""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType
from gguf.quants import quantize

from journeyman.model_files import parts_of
from journeyman.models.base import Base
from journeyman.training.export import adapter_in_gguf
from journeyman.training.lora import Adapter


def write_merged(base: Base, adapter: Adapter, kind: GGMLQuantizationType, path: Path) -> None:
    """Merges in float32 and stores the merged matrices as `kind`; everything else is copied from the base."""
    readers = [gguf.GGUFReader(path) for path in parts_of(base.path)]
    writer = gguf.GGUFWriter(path, adapter.geometry.architecture)
    for field in readers[0].fields.values():
        if field.name.startswith(("GGUF.", "split.")) or field.name == gguf.Keys.General.ARCHITECTURE:
            continue
        of_items = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), field.types[0], sub_type=of_items)
    updates = adapter_in_gguf(adapter)
    scale = adapter.config.alpha / adapter.config.rank
    for tensor in (tensor for reader in readers for tensor in reader.tensors):
        if tensor.name not in updates:
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
            continue
        a, b = updates[tensor.name]
        update = scale * (b @ a).numpy()
        merged = (base.tensor(tensor.name) + update).astype(np.float32)
        writer.add_tensor(tensor.name, quantize(merged, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
