"""Estimates training time: 4 operations per parameter and token, at the machine's measured rate.

A LoRA step multiplies each frozen matrix twice per token (forward, and the gradient of its input), with two
operations per multiplication: 4 N. Weight gradients of the frozen matrices are never computed. Recomputed layers
run forward twice: 6 N.
"""

from __future__ import annotations

from journeyman.models.geometry import Geometry

_LARGE_STEP, _WIDE = 1000, 2048
_EFFICIENCY_SMALL, _EFFICIENCY = 0.38, 0.55
"""Share of the matrix rate that a full step reaches (benchmarks/README.md): 0.37 in the demo's steps of 500 tokens,
0.56 in steps of 1,900 tokens, 0.54 to 0.81 for a base of 7 billion parameters."""


def training_seconds(
    linear_parameters: int, hidden: int, tokens: int, step_tokens: int, gflops: float, *, recompute: bool = False
) -> float:
    """Seconds for `tokens` tokens (all epochs, without validation).

    Args:
        hidden: width of the model.
        step_tokens: tokens of an optimizer step; matrix products are slower if both are small.
    """
    large = step_tokens >= _LARGE_STEP or hidden >= _WIDE
    rate = gflops * 1e9 * (_EFFICIENCY if large else _EFFICIENCY_SMALL)
    return (6 if recompute else 4) * linear_parameters * tokens / rate


_MATRIX_SHARE, _PASSES, _ATTENTION_SHARE, _GAP_S, _KERNELS = 0.82, 10.4, 0.35, 2.5e-6, 80
"""Fitted to steps of 0.135, 0.5, 7 and 14 billion parameters on an H200 (benchmarks/README.md): the share of the matrix
rate that products reach, how often the bytes that are kept for the backward pass are read or written, the share that
attention reaches, and the time between kernels, of which a layer has about 80."""
_LAUNCH_S, _FIRST_PACKS, _COMPILE_S = 37e-6, 48, 8.0
"""The time in which Python launches a kernel, which matters for small models until their passes are replayed as graphs;
the packs until then; and the time to compile all kernels, if they are not cached."""


def gpu_training_seconds(
    geometry: Geometry,
    kept_per_token: int,
    tokens: int,
    row_tokens: float,
    packs: int,
    gflops: float,
    bandwidth: float,
    *,
    recompute: bool = False,
) -> float:
    """Seconds for `tokens` tokens on a GPU, without loading the base.

    Args:
        kept_per_token: bytes that one layer keeps for the backward pass: see gpu_memory.
        row_tokens: mean length of a row, on which attention depends.
        packs: that are computed one after the other, in all epochs.
        bandwidth: of the GPU's memory, in bytes per second.
    """
    work = 1.5 if recompute else 1.0
    products = 4 * geometry.linear_parameters * tokens / (gflops * 1e9 * _MATRIX_SHARE)
    passing = _PASSES * kept_per_token * geometry.layers * tokens / bandwidth
    # Two products forward and five backward, of which causality leaves a half.
    attention = 7 * geometry.layers * geometry.heads * geometry.head_dim * row_tokens * tokens
    kernels = packs * geometry.layers * _KERNELS
    computing = work * (products + passing + attention / (gflops * 1e9 * _ATTENTION_SHARE) + kernels * _GAP_S)
    launching = max(0.0, kernels * _LAUNCH_S - computing) * min(1.0, _FIRST_PACKS / packs)
    return _COMPILE_S + computing + launching
