"""How long training takes: 4 operations a parameter and token, at the machine's own measured rate.

A LoRA step multiplies each frozen matrix twice a token (forward, and the gradient of its input), two
operations a multiplication: 4 N. Weight gradients of the frozen matrices are never made.
"""

from __future__ import annotations

EFFICIENCY = 0.4
"""Share of the matrix rate that a whole step reaches: 0.38 measured over the demo's small steps, 0.56 to 0.61 in
steps of 1,950 tokens (benchmarks/log.md). The lower one is planned with."""


def training_seconds(linear_parameters: int, tokens: int, gflops: float, *, recompute: bool = False) -> float:
    """Seconds for `tokens` tokens (all epochs, validation apart); recomputed layers run forward twice."""
    return (6 if recompute else 4) * linear_parameters * tokens / (gflops * 1e9 * EFFICIENCY)
