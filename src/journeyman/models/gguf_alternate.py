"""Reads from a GGUF header which layers have a sliding window or no rotary embedding, with the defaults of llama.cpp.

Source: ggml-org/llama.cpp, src/models/*.cpp (load_arch_hparams) and src/llama-hparams.cpp (set_swa_pattern).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from journeyman.errors import InputError
from journeyman.models.geometry import AlternateLayers, Geometry, RotaryScaling, Temperature

if TYPE_CHECKING:
    from journeyman.models.gguf_file import GgufFile

_LOCAL_THETA = {"gemma3": 10000.0}
"""The base of the rotary frequencies of layers with a window if the file does not say; otherwise that of all layers."""


def alternate_layers_of(file: GgufFile, geometry: Geometry) -> AlternateLayers | None:
    """The layers of this geometry (whose own `alternate` is not used) that differ from the others.

    Raises:
        InputError: a damaged value.
    """
    family = geometry.family
    if family.unrotated_every:
        layers = tuple(range(family.unrotated_every - 1, geometry.layers, family.unrotated_every))
        return AlternateLayers(layers) if layers else None
    window = _read(file, geometry, "attention.sliding_window", "u32", family.default_window)
    if not family.window_every or not window:
        return None
    layers = _layers_with_window(file, geometry, family.window_every)
    theta = _read(
        file, geometry, "rope.freq_base_swa", "f32", _LOCAL_THETA.get(geometry.architecture, geometry.rope_theta)
    )
    # Layers with a window turn without the scaling of the others, except in families without a scaling of their own.
    rotary = geometry.rotary if geometry.architecture == "gemma2" else RotaryScaling()
    return AlternateLayers(layers, int(window), float(theta), rotary) if layers else None


def temperature_of(file: GgufFile, geometry: Geometry) -> Temperature | None:
    """How queries far into the context are scaled."""
    if "attention.temperature_scale" not in geometry.family.numbers:
        return None
    scale = _read(file, geometry, "attention.temperature_scale", "f32", 0.0)
    context = geometry.rotary.yarn_context or geometry.context
    return Temperature(float(scale), context) if scale else None


def _layers_with_window(file: GgufFile, geometry: Geometry, default: int) -> tuple[int, ...]:
    key = f"{geometry.architecture}.attention.sliding_window_pattern"
    pattern, kind = file.metadata.get(key, default), file.kinds.get(key, "u32")
    if kind == "[bool]" and len(pattern) == geometry.layers:
        return tuple(number for number, has in enumerate(pattern) if has)
    if kind != "u32":
        raise InputError(f"{file.path}: {key} is of type {kind}, not u32 or one bool per layer", "Use another base")
    return tuple(one for one in range(geometry.layers) if pattern == 0 or one % pattern < pattern - 1)


def _read(file: GgufFile, geometry: Geometry, name: str, kind: str, default: float) -> Any:
    key = f"{geometry.architecture}.{name}"
    value = file.metadata.get(key, default)
    if file.kinds.get(key, kind) != kind or not 0 <= value < float("inf"):
        raise InputError(f"{file.path}: {key} is {value!r}, not a number of type {kind}", "Use another base")
    return value
