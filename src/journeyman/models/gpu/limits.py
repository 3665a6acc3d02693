"""What a GPU computes, and how much at a time, without torch, so that plans and estimates can use it."""

from __future__ import annotations

from journeyman.models.geometry import Geometry

HEAD_ELEMENTS = 1 << 25
"""Elements of the head that are dequantized at a time: it is the largest matrix of a model by far."""
LONG_ROW = 3072
"""Tokens from which cuDNN's attention for single sequences is faster than ours: 1.8 times at 4,096, 2.0 at 16,384."""
_LOGITS, _MOST_ROWS, _TILE = 1 << 28, 4096, 128


def not_computed(geometry: Geometry) -> str | None:
    """What a base is that the operations of GPUs do not compute; None: they compute it."""
    if geometry.experts is not None:
        return "a mixture of experts"
    return "a decoder with attention sinks" if geometry.family.sinks else None


def loss_rows(vocab: int) -> int:
    """Rows of logits that exist at a time: half a gigabyte in bfloat16, but at most 4,096."""
    return max(_TILE, min(_MOST_ROWS, _LOGITS // vocab // _TILE * _TILE))
