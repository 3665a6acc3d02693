"""Reads from a GGUF header which layers have a sliding window or no rotary embedding, with the defaults of llama.cpp.

Source: ggml-org/llama.cpp, src/models/*.cpp (load_arch_hparams) and src/llama-hparams.cpp (set_swa_pattern).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from journeyman.errors import InputError
from journeyman.foreign import plain
from journeyman.models.geometry import AlternateLayers, Geometry, RotaryScaling, Temperature
from journeyman.models.gguf_rotary import original_context

if TYPE_CHECKING:
    from journeyman.models.gguf_file import GgufFile


def alternate_layers_of(file: GgufFile, geometry: Geometry) -> AlternateLayers | None:
    """The layers of this geometry (whose own `alternate` is not used) that differ from the others.

    Raises:
        InputError: a damaged value.
    """
    family = geometry.family
    finetuned = f"{geometry.architecture}.rope.scaling.finetuned"
    if family.rotates_if_finetuned and not file.metadata.get(finetuned, True):
        return AlternateLayers(tuple(range(geometry.layers)))
    if family.unrotated_every:
        layers = tuple(range(family.unrotated_every - 1, geometry.layers, family.unrotated_every))
        return AlternateLayers(layers) if layers else None
    window = int(_read(file, geometry, "attention.sliding_window", "u32", family.default_window))
    if not family.window_every:
        return None
    if not window:
        if family.default_window:
            raise InputError(
                f"{file.path}: attention.sliding_window is 0, so layers would attend to nothing", "Use another base"
            )
        return None
    layers = _layers_with_window(file, geometry, family.window_every)
    _refuse_other_heads(file, geometry)
    return AlternateLayers(layers, window, _window_theta(file, geometry), _window_scaling(file, geometry))


def temperature_of(file: GgufFile, geometry: Geometry) -> Temperature | None:
    """How queries far into the context are scaled."""
    if "attention.temperature_scale" not in geometry.family.numbers:
        return None
    scale = _read(file, geometry, "attention.temperature_scale", "f32", 0.0)
    return Temperature(float(scale), original_context(file, geometry)) if scale else None


def unserved_window_of(file: GgufFile, geometry: Geometry) -> int | None:
    """A sliding window that the file states, but llama.cpp does not apply to this family (Phi-3)."""
    if geometry.family.window_every:
        return None
    return int(_read(file, geometry, "attention.sliding_window", "u32", 0)) or None


def _layers_with_window(file: GgufFile, geometry: Geometry, default: int) -> tuple[int, ...]:
    """The engine takes a number or one value per layer; llama.cpp b10605 and earlier ignored the latter."""
    key = f"{geometry.architecture}.attention.sliding_window_pattern"
    pattern, kind = file.metadata.get(key, default), file.kinds.get(key, "u32")
    every = range(geometry.layers)
    if kind in ("[bool]", "[u32]", "[i32]") and len(pattern) == geometry.layers:
        layers = tuple(one for one in every if pattern[one])
    elif kind == "u32":
        layers = tuple(one for one in every if pattern == 0 or one % pattern < pattern - 1)
    else:
        raise InputError(f"{file.path}: {key} is of type {kind}, not u32 or one bool per layer", "Use another base")
    if not layers:
        raise InputError(f"{file.path}: {key} says that no layer has the window", "Use another base")
    return layers


def _window_theta(file: GgufFile, geometry: Geometry) -> float:
    """The base of the rotary frequencies of layers with a window."""
    served = geometry.family.window_theta
    default = served if isinstance(served, float) else geometry.rope_theta
    stated = float(_read(file, geometry, "rope.freq_base_swa", "f32", default))
    if not stated or (served == "shared" and stated != default):
        raise InputError(
            f"{file.path}: rope.freq_base_swa is {stated:g}, but llama.cpp would serve the base with {default:g}",
            "Use another base",
        )
    return stated


def _window_scaling(file: GgufFile, geometry: Geometry) -> RotaryScaling:
    """The rotary scaling of layers with a window."""
    prefix = f"{geometry.architecture}.rope.scaling."
    amplitude, kind = file.metadata.get(prefix + "attn_factor", 1.0), file.metadata.get(prefix + "type")
    if not geometry.family.scales_windows:
        # Gemma 3 would be served with this amplitude in all layers, OLMo 3 in those without a window.
        if amplitude != 1.0:
            raise InputError(f"{file.path}: {prefix}attn_factor with a sliding window", "Use another base")
        return RotaryScaling()
    if kind == "none" and file.metadata.get(prefix + "factor", 1.0) != 1.0:
        raise InputError(
            f"{file.path}: {prefix}factor without a type: llama.cpp would scale the layers with a window only",
            "Use another base",
        )
    return geometry.rotary


def _refuse_other_heads(file: GgufFile, geometry: Geometry) -> None:
    """The engine reads other sizes of heads for layers with a window, which the decoder does not have."""
    size = geometry.head_dim
    wanted = {
        "attention.key_length_swa": size, "attention.value_length_swa": size,
        "rope.dimension_count_swa": geometry.rotary_dim or size,
    }  # fmt: skip
    for name, value in wanted.items():
        if _read(file, geometry, name, "u32", value) != value:
            raise InputError(f"{file.path}: {geometry.architecture}.{name} is not {value}", "Use another base")


def _read(file: GgufFile, geometry: Geometry, name: str, kind: str, default: float) -> Any:
    key = f"{geometry.architecture}.{name}"
    value = file.metadata.get(key, default)
    if file.kinds.get(key, kind) != kind or not 0 <= value < float("inf"):
        shown = plain(repr(value), 60)
        raise InputError(f"{file.path}: {key} is {shown}, not a number of type {kind}", "Use another base")
    return value
