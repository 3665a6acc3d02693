"""Reads the rotary settings from config.json, as transformers does (modeling_rope_utils.py).

Version 5 writes `rope_parameters`, older ones `rope_theta` and `rope_scaling`; each may hold one setting, or one for
layers with a window and one for the others. llama.cpp's script turns the divisors of Llama 3 into a tensor, so they
are computed here as it does (conversion/llama.py), in float32.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from journeyman.models.geometry import YARN_BETA_FAST, YARN_BETA_SLOW, RotaryScaling, Temperature
from journeyman.models.hf_config import HfConfig, is_number

_FULL, _WINDOW = "full_attention", "sliding_attention"
_TYPES = ("default", "linear", "llama3", "yarn", "longrope")


class RotarySettings:
    """The rotary settings of one kind of layer.

    Args:
        window: those of layers with a window, in models that have settings for them; otherwise of the others.
    """

    def __init__(self, config: HfConfig, *, window: bool = False) -> None:
        self._config = config
        self._name, self.values = _settings_of(config, window=window)
        self.kind = self.values.get("rope_type", self.values.get("type", "default"))
        if self.kind not in _TYPES:
            raise config.refusal(f"{self._name}.rope_type", self.kind, f"not one of {', '.join(_TYPES)}")

    @property
    def theta(self) -> float:
        """The base of the frequencies."""
        return _rounded(self._positive("rope_theta"))

    @property
    def rotated_share(self) -> float:
        """The share of each head that is rotated."""
        value = self.values.get("partial_rotary_factor", self._config.get("partial_rotary_factor"))
        value = 1.0 if value is None else value
        if not is_number(value) or not 0 < value <= 1:
            raise self._config.refusal("partial_rotary_factor", value, "not between 0 and 1")
        return float(value)

    @property
    def original_context(self) -> int:
        """The context before scaling, in tokens."""
        outside = self._config.get("original_max_position_embeddings")
        value = self.values.get("original_max_position_embeddings", outside)
        if outside is not None and value != outside:
            raise self._config.refusal(
                "original_max_position_embeddings", outside, f"but in {self._name} it is {value!r}"
            )
        value = self._config.count("max_position_embeddings") if value is None else value
        if type(value) is not int or value <= 0:
            raise self._config.refusal(
                f"{self._name}.original_max_position_embeddings", value, "not a positive integer"
            )
        return int(value)

    def scaling(self, size: int) -> RotaryScaling:
        """The scaling, for `size` rotated elements of a head."""
        if self.kind == "linear":
            return RotaryScaling(factor=_rounded(self._positive("factor")))
        if self.kind == "llama3":
            return RotaryScaling(divisors=self._divisors(size))
        if self.kind == "longrope":
            return self._longrope(size)
        return self._yarn() if self.kind == "yarn" else RotaryScaling()

    def temperature(self) -> Temperature | None:
        """How queries far into the context are scaled; None: not at all."""
        scale = self.values.get("llama_4_scaling_beta")
        if scale is None or scale == 0:
            return None
        return Temperature(_rounded(self._positive("llama_4_scaling_beta")), self.original_context)

    def _yarn(self) -> RotaryScaling:
        if not self.values.get("truncate", True):
            raise self._config.refusal(f"{self._name}.truncate", False, "which is not supported")
        if self.theta <= 1:
            raise self._config.refusal(f"{self._name}.rope_theta", self.theta, "which YaRN cannot scale")
        context = self.original_context
        if self.values.get("factor") is None:
            factor = self._config.count("max_position_embeddings") / context
        else:
            factor = _rounded(self._positive("factor"))
        stated = self.values.get("attention_factor")
        mscale, of_all = self.values.get("mscale"), self.values.get("mscale_all_dim")
        if stated is not None:
            amplitude = self._positive("attention_factor")
        elif mscale and of_all:
            amplitude = _mscale(factor, self._positive("mscale")) / _mscale(factor, self._positive("mscale_all_dim"))
        else:
            amplitude = _mscale(factor, 1.0)
        fast, slow = (
            _rounded(self._positive(key)) if self.values.get(key) else default
            for key, default in (("beta_fast", YARN_BETA_FAST), ("beta_slow", YARN_BETA_SLOW))
        )
        return RotaryScaling((), factor, context, amplitude, fast, slow)

    def _longrope(self, size: int) -> RotaryScaling:
        context = self.original_context
        factor = self._config.count("max_position_embeddings") / context
        if self.values.get("attention_factor") is not None:
            amplitude = self._positive("attention_factor")
        else:
            amplitude = math.sqrt(1 + math.log(factor) / math.log(context)) if factor > 1 else 1.0
        short, long = (self._factors(key, size) for key in ("short_factor", "long_factor"))
        return RotaryScaling(short, amplitude=_rounded(amplitude), long_divisors=long, long_above=context)

    def _factors(self, key: str, size: int) -> tuple[float, ...]:
        values = self.values.get(key)
        if not isinstance(values, list) or len(values) != size // 2 or not all(is_number(v) and v > 0 for v in values):
            raise self._config.refusal(f"{self._name}.{key}", values, f"not {size // 2} positive numbers")
        return tuple(_rounded(one) for one in values)

    def _divisors(self, size: int) -> tuple[float, ...]:
        factor, low, high = (self._positive(key) for key in ("factor", "low_freq_factor", "high_freq_factor"))
        if low >= high:
            raise self._config.refusal(f"{self._name}.low_freq_factor", low, f"not below high_freq_factor, {high}")
        context, found = self.original_context, []
        frequencies = np.float32(1) / np.float32(self.theta) ** (
            np.arange(0, size, 2, dtype=np.float32) / np.float32(size)
        )
        for frequency in frequencies:
            wavelength = np.float32(2 * math.pi) / frequency
            if wavelength < context / high:
                found.append(1.0)
            elif wavelength > context / low:
                found.append(factor)
            else:
                smooth = (np.float32(context) / wavelength - np.float32(low)) / np.float32(high - low)
                found.append(float(np.float32(1) / ((np.float32(1) - smooth) / np.float32(factor) + smooth)))
        return tuple(_rounded(one) for one in found)

    def _positive(self, key: str) -> float:
        value = self.values.get(key)
        if not is_number(value) or value <= 0:
            raise self._config.refusal(f"{self._name}.{key}", value, "not a positive number")
        return float(value)


def _mscale(factor: float, share: float) -> float:
    return 0.1 * share * math.log(factor) + 1.0 if factor > 1 else 1.0


def _rounded(value: float) -> float:
    """As GGUF stores it, in float32."""
    return float(np.float32(value))


def _settings_of(config: HfConfig, *, window: bool) -> tuple[str, Mapping[str, Any]]:
    """The name of the settings in the file, and the settings, with a base of the frequencies."""
    old, new = _object(config, "rope_scaling"), _object(config, "rope_parameters")
    theta, kind = config.get("rope_theta"), config.kind
    default = {"rope_theta": kind.theta if theta is None else theta}
    if kind.local_theta is None:
        name, found = ("rope_scaling", old) if old else ("rope_parameters", new)
        full, local = _inside(config, found, _FULL), _inside(config, found, _WINDOW)
        if local and local != full:
            raise config.refusal(
                f"{name}.{_WINDOW}", local, f"but layers with a window are computed as those of {_FULL}"
            )
        return name, {**default, **(full or found)}
    if "rope_type" in new or "rope_theta" in new:
        raise config.refusal("rope_parameters", new, f"not one setting for {_FULL} and one for {_WINDOW}")
    if not window:
        return f"rope_parameters.{_FULL}", {**default, **_inside(config, new, _FULL), **old}
    local_theta = config.get("rope_local_base_freq")
    default = {"rope_theta": kind.local_theta if local_theta is None else local_theta}
    return f"rope_parameters.{_WINDOW}", {**default, **_inside(config, new, _WINDOW)}


def _object(config: HfConfig, key: str) -> Mapping[str, Any]:
    value = config.get(key)
    if value is not None and not isinstance(value, dict):
        raise config.refusal(key, value, "not an object")
    return value or {}


def _inside(config: HfConfig, values: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = values.get(key)
    if value is not None and not isinstance(value, dict):
        raise config.refusal(f"rope_parameters.{key}", value, "not an object")
    return value or {}
