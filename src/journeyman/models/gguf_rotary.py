"""Reads the rotary scaling of a base from its GGUF file, with the defaults of llama.cpp, which serves it.

Source: ggml-org/llama.cpp, src/llama-model.cpp, src/llama-context.cpp and src/models/*.cpp. Most families ignore the
settings of YaRN whose names begin with `yarn_` (families.py: numbers). A base that was trained with other values than
llama.cpp uses would be served with the wrong angles, so it is refused.
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

_ONE, _SHORT, _LONG = "rope_freqs.weight", "rope_factors_short.weight", "rope_factors_long.weight"
_LONGROPE = "longrope"
_TYPES = ("none", "linear", "yarn", _LONGROPE)
_KINDS = {
    "type": "str", "factor": "f32", "attn_factor": "f32", "original_context_length": "u32", "finetuned": "bool",
}  # fmt: skip
"""Key below rope.scaling → the type that llama.cpp requires. gguf_alternate reads `finetuned`."""


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
    original, yarn = original_context(file, geometry), _yarn_settings(file, geometry, factor)
    divisors, long_divisors = _divisors(file, geometry, kind)
    if kind != "yarn":
        return RotaryScaling(
            divisors, factor, None, amplitude,
            long_divisors=long_divisors, long_above=original if long_divisors else None,
        )  # fmt: skip
    if geometry.rope_theta <= 1:
        raise InputError(f"{file.path}: YaRN with a rope.freq_base of {geometry.rope_theta}", "Use another base")
    if factor < 1:
        raise InputError(f"{file.path}: YaRN with a factor of {factor:g}, below 1", "Use another base")
    multiplier = yarn["yarn_log_multiplier"]
    # With a multiplier, llama.cpp divides by the amplitude that it implies (DeepSeek-V2's mscale_all_dim).
    amplitude *= _yarn_amplitude(factor) / (_yarn_amplitude(factor, multiplier) if multiplier else 1.0)
    return RotaryScaling(
        divisors, factor, original, amplitude, yarn["yarn_beta_fast"], yarn["yarn_beta_slow"],
        long_divisors, original if long_divisors else None,
    )  # fmt: skip


def original_context(file: GgufFile, geometry: Geometry) -> int:
    """The context before scaling, in tokens: that of the model if the file does not say."""
    key = f"{geometry.architecture}.rope.scaling.original_context_length"
    return int(_positive(file, key, "u32", geometry.context))


def _yarn_amplitude(factor: float, multiplier: float = 1.0) -> float:
    return 1.0 + 0.1 * multiplier * math.log(factor) if factor > 1 else 1.0


def _positive(file: GgufFile, key: str, kind: str, default: float) -> float:
    value = file.metadata.get(key, default)
    if file.kinds.get(key, kind) != kind or not 0 < value < math.inf:
        shown = plain(repr(value), 60)
        raise InputError(f"{file.path}: {key} is {shown}, not a positive number of type {kind}", "Use another base")
    return float(value)


def _yarn_settings(file: GgufFile, geometry: Geometry, factor: float) -> dict[str, float]:
    """The settings that llama.cpp uses. All other keys below rope.scaling are refused, unless they say the same."""
    prefix = f"{geometry.architecture}.rope.scaling."
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
        if f"rope.scaling.{name}" in geometry.family.numbers:
            stated_off = name == "yarn_log_multiplier" and value == 0
            used[name] = 0.0 if stated_off else _positive(file, key, "f32", used[name])
        elif file.kinds[key] != "f32" or not math.isclose(value, used[name], rel_tol=1e-5):
            raise InputError(
                f"{file.path}: {key} is {value!r}, but llama.cpp would serve the base with {used[name]:.6g}",
                "Use a base with that value or without this setting",
            )
    return used


def _divisors(file: GgufFile, geometry: Geometry, kind: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The divisors of all contexts or of short ones, and those of long contexts; empty if there are none.

    llama.cpp refuses these tensors where it does not read them, as tensor_shapes does.
    """
    reads, longrope = geometry.family.rotary_divisors, kind == _LONGROPE
    if reads == "two" or (reads == "either" and longrope):
        found = [name for name in (_SHORT, _LONG) if name in file.tensors]
        if len(found) == 2:
            return _values(file, geometry, _SHORT), _values(file, geometry, _LONG)
        if found:
            raise InputError(f"{file.path}: only one of {_SHORT} and {_LONG}", "Use a complete GGUF file")
    if longrope:
        raise InputError(
            f"{file.path}: its rotary scaling is longrope, but llama.cpp would serve it without the factors, "
            + ("which the file lacks" if reads != "none" else f"which it does not read for {geometry.architecture}"),
            "Use a base with another rotary scaling",
        )
    one = reads == "either" and _ONE in file.tensors
    return (_values(file, geometry, _ONE) if one else ()), ()


def _values(file: GgufFile, geometry: Geometry, name: str) -> tuple[float, ...]:
    info, wanted = file.info(name), ((geometry.rotary_dim or geometry.head_dim) // 2,)
    if info.shape != wanted or info.kind != GGMLQuantizationType.F32:
        raise InputError(
            f"{file.path}: tensor {name!r} has the shape {info.shape} and type {info.kind.name}, not {wanted} and F32",
            "Use a complete GGUF of a supported model",
        )
    values = file.tensor(name)
    if not (np.isfinite(values) & (values > 0)).all():
        raise InputError(f"{file.path}: tensor {name!r} has values that are not positive", "Use another base")
    return tuple(values.tolist())
