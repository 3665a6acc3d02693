"""Rotary tables: the cosines and sines of a decoder's positions, with the scaling of its base.

Source of the scaling: ggml-org/llama.cpp, ggml/src/ggml-cpu/ops.cpp (rope_yarn), because it serves the base.
tests/models/test_rotary.py compares the result with llama.cpp and `transformers`.
Shape letters: T positions, E head dimension, F = E / 2 frequencies.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from journeyman.models.geometry import YARN_BETA_FAST, YARN_BETA_SLOW, Geometry


def rotary_tables(geometry: Geometry, position_T: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines (T, 1, E), on the device and in the type of `like`; computed in float32."""
    angle = torch.outer(position_T.float(), frequencies(geometry, like.device))
    angle = torch.cat([angle, angle], dim=-1)
    cos, sin = angle.cos(), angle.sin()
    if geometry.rotary.amplitude != 1.0:
        cos, sin = cos * geometry.rotary.amplitude, sin * geometry.rotary.amplitude
    return cos.to(like.dtype)[:, None], sin.to(like.dtype)[:, None]


def frequencies(geometry: Geometry, device: torch.device) -> Tensor:
    """The angle (F) by which each pair of dimensions turns per token, in radians, float32."""
    g, scaling = geometry, geometry.rotary
    exponent = torch.arange(0, g.head_dim, 2, device=device, dtype=torch.float32) / g.head_dim
    kept_F: Tensor = g.rope_theta**-exponent
    if scaling.divisors:
        kept_F = kept_F / torch.tensor(scaling.divisors, device=device, dtype=torch.float32)
    if scaling.factor == 1.0:
        return kept_F
    divided_F = kept_F / scaling.factor
    if scaling.yarn_context is None:
        return divided_F
    last_kept = max(0, math.floor(_index_of(g, scaling.yarn_context, YARN_BETA_FAST)))
    first_divided = min(g.head_dim - 1, math.ceil(_index_of(g, scaling.yarn_context, YARN_BETA_SLOW)))
    index_F = torch.arange(len(kept_F), device=device, dtype=torch.float32)
    share_F = ((index_F - last_kept) / max(first_divided - last_kept, 0.001)).clamp(0, 1)
    return divided_F * share_F + kept_F * (1 - share_F)


def _index_of(g: Geometry, context: int, turns: float) -> float:
    """The index, not rounded, of the frequency that makes `turns` turns within `context` tokens."""
    return g.head_dim * math.log(context / (turns * 2 * math.pi)) / (2 * math.log(g.rope_theta))
