"""Peak memory of training and serving, in bytes: arithmetic over the geometry.

Held against measurements in benchmarks/log.md. Letters: D hidden, Q and K the widths of queries and keys,
F feed-forward, H heads, L row length, V vocabulary; c bytes of the compute type.
"""

from __future__ import annotations

from journeyman.models.geometry import Geometry

RUNTIME_BYTES = 450 << 20
"""Python with torch loaded, before any weight; measured 430 to 460 MB."""
_ADAM_BYTES = 16  # float32 master, gradient and two moments of each trainable parameter
_LOSS_CHUNK = 512
_HEAP_SLACK = 1.6
"""Freed memory is kept for speed, and steps of changing shapes leave gaps in it: 3.5 GB resident where the
tensors of a 1,950-token step add up to 2.5 (benchmarks/log.md)."""


def training_bytes(geometry: Geometry, trainable: int, compute_bytes: int, pack_tokens: int, longest_row: int) -> int:
    """Peak of a training step."""
    tokens = max(pack_tokens, longest_row)
    weights = geometry.parameters * compute_bytes
    activations = geometry.layers * tokens * _layer_bytes_per_token(geometry, compute_bytes, longest_row)
    # The head: a chunk of logits in the compute type, in float32, and their exponentials.
    loss = min(_LOSS_CHUNK, tokens) * geometry.vocab * (compute_bytes + 8)
    return RUNTIME_BYTES + weights + trainable * _ADAM_BYTES + int((activations + loss) * _HEAP_SLACK)


def _layer_bytes_per_token(geometry: Geometry, c: int, row: int) -> int:
    """What one layer keeps of a token for the backward pass."""
    q, kv = geometry.heads * geometry.head_dim, geometry.kv_heads * geometry.head_dim
    norms = 2 * (4 + c) * geometry.hidden
    attention = c * (3 * q + 3 * kv) + c * geometry.heads * row
    feed_forward = 4 * c * geometry.ffn
    return norms + attention + feed_forward


def serving_bytes(base_file_bytes: int, geometry: Geometry, trainable: int, context: int) -> int:
    """Resident memory of the engine: the file, the adapter in float32, an f16 cache, and its buffers."""
    cache = 2 * 2 * geometry.layers * geometry.kv_heads * geometry.head_dim * context
    buffers = 512 * (geometry.vocab + 4 * geometry.ffn) * 4
    return base_file_bytes + trainable * 4 + cache + buffers + (60 << 20)
