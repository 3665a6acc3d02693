"""Rotary tables: the cosines and sines of a decoder's positions, with the scaling of its base.

Source of the scaling: ggml-org/llama.cpp, ggml/src/ggml-cpu/ops.cpp (rope_yarn), because it serves the base.
tests/models/test_rotary.py compares the result with llama.cpp and `transformers`.
Shape letters: T positions, E rotated elements of a head, F = E / 2 frequencies.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from journeyman.models.geometry import Geometry, RotaryScaling


def rotary_tables(geometry: Geometry, position_T: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines (T, 1, E), on the device and in the type of `like`; computed in float32."""
    return _tables(frequencies(geometry, like.device), geometry.rotary, position_T, like)


def alternate_tables(geometry: Geometry, position_T: Tensor, like: Tensor) -> tuple[Tensor, Tensor] | None:
    """As rotary_tables, for the alternate layers; None if they have no rotary embedding."""
    other = geometry.alternate
    if other is None or other.rope_theta is None:
        return None
    size = geometry.rotary_dim or geometry.head_dim
    return _tables(_frequencies(other.rope_theta, size, other.rotary, like.device), other.rotary, position_T, like)


def frequencies(geometry: Geometry, device: torch.device) -> Tensor:
    """The angle (F) by which each pair of dimensions turns per token, in radians, float32."""
    return _frequencies(geometry.rope_theta, geometry.rotary_dim or geometry.head_dim, geometry.rotary, device)


def _tables(angle_F: Tensor, scaling: RotaryScaling, position_T: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    assert scaling.long_above is None, "one of the two sets of divisors: see Geometry.with_factors"
    angle = torch.outer(position_T.float(), angle_F)
    angle = torch.cat([angle, angle], dim=-1)
    cos, sin = angle.cos(), angle.sin()
    if scaling.amplitude != 1.0:
        cos, sin = cos * scaling.amplitude, sin * scaling.amplitude
    return cos.to(like.dtype)[:, None], sin.to(like.dtype)[:, None]


def _frequencies(theta: float, size: int, scaling: RotaryScaling, device: torch.device) -> Tensor:
    exponent = torch.arange(0, size, 2, device=device, dtype=torch.float32) / size
    kept_F: Tensor = theta**-exponent
    if scaling.divisors:
        kept_F = kept_F / torch.tensor(scaling.divisors, device=device, dtype=torch.float32)
    if scaling.factor == 1.0:
        return kept_F
    divided_F = kept_F / scaling.factor
    if scaling.yarn_context is None:
        return divided_F

    def index_of(turns: float) -> float:
        """The index, not rounded, of the frequency that makes `turns` turns within the original context."""
        assert scaling.yarn_context is not None
        return size * math.log(scaling.yarn_context / (turns * 2 * math.pi)) / (2 * math.log(theta))

    last_kept = max(0, math.floor(index_of(scaling.beta_fast)))
    first_divided = min(size - 1, math.ceil(index_of(scaling.beta_slow)))
    index_F = torch.arange(len(kept_F), device=device, dtype=torch.float32)
    share_F = ((index_F - last_kept) / max(first_divided - last_kept, 0.001)).clamp(0, 1)
    return divided_F * share_F + kept_F * (1 - share_F)
