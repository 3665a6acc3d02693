"""Reads the rotary scaling of a base from its GGUF file, with the defaults of llama.cpp, which serves it.

Source: ggml-org/llama.cpp, src/llama-model.cpp and src/llama-context.cpp. For these architectures, llama.cpp ignores
the settings of YaRN whose names begin with `yarn_`. A base that was trained with other values than it uses would be
served with the wrong angles, so it is refused.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from gguf import GGMLQuantizationType

from journeyman.errors import InputError
from journeyman.foreign import plain
from journeyman.models.geometry import YARN_BETA_FAST, YARN_BETA_SLOW, Geometry, RotaryScaling

if TYPE_CHECKING:
    from journeyman.models.gguf_file import GgufFile

_DIVISORS = "rope_freqs.weight"
_TYPES = ("none", "linear", "yarn")
_KINDS = {
    "type": "str", "factor": "f32", "attn_factor": "f32", "original_context_length": "u32", "finetuned": "bool",
}  # fmt: skip
"""Key below rope.scaling → the type that llama.cpp requires. `finetuned` changes no value."""


def rotary_scaling_of(file: GgufFile, geometry: Geometry) -> RotaryScaling:
    """Reads the rotary scaling of a base with this geometry (whose own `rotary` is not used).

    Raises:
        InputError: a type or setting of scaling that the decoder or llama.cpp does not compute, or a damaged value.
    """
    prefix = f"{geometry.architecture}.rope.scaling."
    # Without a type, llama.cpp scales linearly if there is a factor.
    kind = file.metadata.get(prefix + "type", "linear")
    if kind not in _TYPES:
        raise InputError(
            f"{file.path}: rotary scaling {plain(str(kind), 40)!r} is not supported",
            f"Use a base with one of these types of rotary scaling: {', '.join(_TYPES)}",
        )
    factor = 1.0
    if kind != "none":
        # The second name is that of the first GGUF files, which llama.cpp still reads.
        old = _positive(file, f"{geometry.architecture}.rope.scale_linear", "f32", 1.0)
        factor = _positive(file, prefix + "factor", "f32", old)
    amplitude = _positive(file, prefix + "attn_factor", "f32", 1.0)
    original = _positive(file, prefix + "original_context_length", "u32", geometry.context)
    _refuse_unknown(file, prefix, factor)
    if kind != "yarn":
        return RotaryScaling(_divisors(file, geometry), factor, None, amplitude)
    if geometry.rope_theta <= 1:
        raise InputError(f"{file.path}: YaRN with a rope.freq_base of {geometry.rope_theta}", "Use another base")
    if factor < 1:
        raise InputError(f"{file.path}: YaRN with a factor of {factor:g}, below 1", "Use another base")
    return RotaryScaling(_divisors(file, geometry), factor, int(original), amplitude * _yarn_amplitude(factor))


def _yarn_amplitude(factor: float) -> float:
    return 1.0 + 0.1 * math.log(factor) if factor > 1 else 1.0


def _positive(file: GgufFile, key: str, kind: str, default: float) -> float:
    value = file.metadata.get(key, default)
    if file.kinds.get(key, kind) != kind or not 0 < value < math.inf:
        shown = plain(repr(value), 60)
        raise InputError(f"{file.path}: {key} is {shown}, not a positive number of type {kind}", "Use another base")
    return float(value)


def _refuse_unknown(file: GgufFile, prefix: str, factor: float) -> None:
    """Refuses other settings of the scaling, except those with the value that llama.cpp uses anyway."""
    used = {
        "yarn_beta_fast": YARN_BETA_FAST, "yarn_beta_slow": YARN_BETA_SLOW, "yarn_ext_factor": 1.0,
        "yarn_attn_factor": _yarn_amplitude(factor), "yarn_log_multiplier": 0.0,
    }  # fmt: skip
    for key, value in file.metadata.items():
        name = key.removeprefix(prefix)
        if name == key or name in _KINDS:
            continue
        if name not in used:
            raise InputError(f"{file.path}: {plain(key, 80)} is not supported", "Use a base without this setting")
        if not isinstance(value, int | float) or not math.isclose(value, used[name], rel_tol=1e-5):
            raise InputError(
                f"{file.path}: {key} is {value!r}, but llama.cpp would serve the base with {used[name]:.6g}",
                "Use a base with that value or without this setting",
            )


def _divisors(file: GgufFile, geometry: Geometry) -> tuple[float, ...]:
    # llama.cpp reads the tensor in some families only and refuses it in the others, as tensor_shapes does.
    if _DIVISORS not in file.tensors or not geometry.family.divides_by_rope_freqs:
        return ()
    info, wanted = file.info(_DIVISORS), ((geometry.rotary_dim or geometry.head_dim) // 2,)
    if info.shape != wanted or info.kind != GGMLQuantizationType.F32:
        raise InputError(
            f"{file.path}: tensor {_DIVISORS!r} has the shape {info.shape} and type {info.kind.name}, "
            f"not {wanted} and F32",
            "Use a complete GGUF of a supported model",
        )
    values = file.tensor(_DIVISORS)
    if not (np.isfinite(values) & (values > 0)).all():
        raise InputError(f"{file.path}: tensor {_DIVISORS!r} has values that are not positive", "Use another base")
    return tuple(values.tolist())
