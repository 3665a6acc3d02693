"""Estimates training time: 4 operations per parameter and token, at the machine's measured rate.

A LoRA step multiplies each frozen matrix twice per token (forward, and the gradient of its input), with two
operations per multiplication: 4 N. Weight gradients of the frozen matrices are never computed. Recomputed layers
run forward twice: 6 N.
"""

from __future__ import annotations

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
