"""What a run writes to the disk after the plan, in bytes at most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_CHECKPOINTS = 3
"""Two are kept, and a third is being written."""
_STATE_BYTES = 20
"""Per parameter of the adapter: its value, gradient, two moments and the best value so far, in float32."""
_ADAPTER_BYTES = 8
"""Per parameter: float32 in safetensors and in GGUF."""
_ANSWER_COPIES = 3
"""Of each answer: in the response cache, among the predictions, and in the report."""
_BYTES_PER_TOKEN = 6
_ROW_BYTES = 4000
_FORMAT_BITS = {"F32": 32.0, "F16": 16.0, "BF16": 16.0, "Q8_0": 8.5, "Q6": 6.6, "Q5": 6.0, "Q4": 5.0, "Q3": 4.3}
_LEAST_BITS = 4.5


@dataclass(frozen=True)
class Written:
    """What a run makes.

    Attributes:
        trainable: parameters of one adapter.
        merged: formats of merged files.
        ships: bytes of the largest file that may ship, of which the bundle has a copy; 0: no file ships.
        rows, arms: of the evaluation.
        answer_tokens: limit of an answer.
    """

    trainable: int
    adapters: int
    parameters: int
    merged: Sequence[str]
    ships: int
    rows: int
    arms: int
    answer_tokens: int


def disk_needs(run: Written) -> dict[str, int]:
    """What → bytes."""
    adapters = run.adapters * run.trainable * _ADAPTER_BYTES
    answer = run.answer_tokens * _BYTES_PER_TOKEN * _ANSWER_COPIES + _ROW_BYTES
    return {
        "checkpoints": run.adapters * _CHECKPOINTS * run.trainable * _STATE_BYTES,
        "adapters": adapters,
        "merged files": int(sum(bits_of_format(one) for one in run.merged) * run.parameters / 8),
        "answers, cache and report": run.rows * run.arms * answer,
        "bundle": run.ships + adapters if run.ships else adapters,
    }


def bits_of_format(name: str) -> float:
    """Bits per weight of a file in a format of GGUF, rounded up; some tensors are kept finer than the name says."""
    return next((bits for kind, bits in _FORMAT_BITS.items() if name.startswith(kind)), _LEAST_BITS)
