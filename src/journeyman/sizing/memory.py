"""Estimates peak memory of training and serving, in bytes, from the geometry.

Compared with measurements in benchmarks/log.md. Letters: D hidden, Q and K the widths of queries and keys,
F feed-forward, H heads, L row length, V vocabulary; c bytes of the compute type.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from journeyman.models.geometry import Geometry
from journeyman.models.sizes import ModelSizes, Sizes

MemoryWay = Literal["keep", "recompute", "stream"]
RUNTIME_BYTES = 450 << 20
"""Python with torch loaded, before any weights; measured: 430 to 460 MB."""
_LIBRARY_BYTES = 900 << 20
"""The same with transformers and peft."""
_ADAPTER_BYTES = 24  # per parameter: float32 master, gradient and its copy, two moments, and the best so far
_LOSS_LOGITS = 1 << 25
_LONGEST_WITH_SCORES = 2048  # longer rows use an attention that does not store scores
_LONGEST_BLOCK = 256  # queries whose scores exist at a time (models.causal_blocks)
_HEAP_SLACK = 1.6
"""Freed memory is kept for speed, and steps of varying shapes fragment it: 3.5 GB are resident when the tensors of a
1,950-token step add up to 2.5 (benchmarks/log.md)."""


@dataclass(frozen=True)
class TrainingSize:
    """What the memory of training depends on, besides the memory mode.

    Attributes:
        compute_bytes: of one element of weights and activations.
        longest_row: tokens.
    """

    sizes: Sizes
    trainable: int
    compute_bytes: int
    longest_row: int


def training_bytes(size: TrainingSize, way: MemoryWay, pack_tokens: int, group_tokens: int) -> int:
    """Peak of a training step.

    Args:
        pack_tokens: tokens computed at once.
        group_tokens: tokens whose gradients are computed at once (training.gradients); matters for recompute and
            stream, which keep the input of each layer for all of them.
    """
    if isinstance(size.sizes, ModelSizes):
        return _row_bytes(size, size.sizes, way)
    geometry, c = size.sizes, size.compute_bytes
    assert isinstance(geometry, Geometry)
    layers_kept = geometry.layers if way == "keep" else 1
    # In the compute type, the adapter is kept with the activations of its layer.
    adapter = size.trainable * c // geometry.layers
    activations = layers_kept * (pack_tokens * layer_bytes_per_token(size) + adapter)
    # The head: a chunk of logits in the compute type, in float32, and their exponentials; the slopes of capped ones.
    loss = min(_LOSS_LOGITS, pack_tokens * geometry.vocab) * (c + (8 if geometry.logit_cap is None else 12))
    entering = 0 if way == "keep" else (geometry.layers + 3) * max(group_tokens, pack_tokens) * geometry.hidden * c
    weights = geometry.parameters * c
    if way == "stream":
        weights = (2 * geometry.layer_parameters + geometry.vocab * geometry.hidden) * c
    # Loss and layers are not computed at the same time, but the heap keeps the memory of both.
    passing = int((activations + loss + _capped_bytes(size, geometry, pack_tokens)) * _HEAP_SLACK)
    # Pieces being read from the file, and fragmentation by layers that were loaded and dropped.
    streaming = int(0.15 * weights) if way == "stream" else 0
    return RUNTIME_BYTES + weights + streaming + size.trainable * _ADAPTER_BYTES + entering + passing


def ways_of(sizes: Sizes) -> tuple[MemoryWay, ...]:
    """The memory modes in which a base can be trained: `transformers` needs all weights in memory."""
    ways: tuple[MemoryWay, ...] = get_args(MemoryWay)
    return ways if isinstance(sizes, Geometry) else ("keep", "recompute")


def _row_bytes(size: TrainingSize, sizes: ModelSizes, way: MemoryWay) -> int:
    """Peak with `transformers` and `peft`, which compute one row at a time; not measured, but counted generously.

    A layer keeps what its linear layers read and make, once more in float32 for the adapter, and scores if its
    attention stores them. The loss needs the logits of all labels in the compute type, and three times in float32.
    """
    c, row = size.compute_bytes, size.longest_row
    layers_kept = 1.0 if way == "keep" else 1 / sizes.layers
    activations = layers_kept * row * (sizes.kept_width * (c + 4) + sizes.layers * sizes.stored_scores * row * 2 * c)
    entering = 0 if way == "keep" else sizes.layers * row * sizes.hidden * c
    loss = row * sizes.vocab * (c + 12)
    passing = int((activations + loss) * _HEAP_SLACK)
    return _LIBRARY_BYTES + sizes.parameters * c + size.trainable * _ADAPTER_BYTES + entering + passing


def layer_bytes_per_token(size: TrainingSize) -> int:
    """Bytes per token that one layer of our own decoder keeps for the backward pass."""
    geometry, c = size.sizes, size.compute_bytes
    assert isinstance(geometry, Geometry)
    q, kv = geometry.heads * geometry.head_dim, geometry.kv_heads * geometry.head_dim
    norms = 2 * (4 + c) * geometry.hidden
    # The input of each norm, where nothing else keeps it.
    norms += c * geometry.hidden * sum(name.endswith("post_norm") for name in geometry.family.norms)
    norms += c * (q + kv) if geometry.family.qk_norm != "none" else 0
    scores = c * geometry.heads * size.longest_row
    if size.longest_row > _LONGEST_WITH_SCORES or geometry.attention_cap is not None:
        scores = 0
    attention = c * (3 * q + 3 * kv) + scores
    attention += c * (q + 2 * kv) if geometry.family.fused else 0  # v keeps the product of the fused matrix
    used = geometry.experts.used if geometry.experts is not None else 1
    feed_forward = (7 if geometry.family.activation == "clamped" else 4) * c * geometry.ffn * used
    if geometry.experts is not None:  # the tokens sorted by expert, and what the experts made of them
        feed_forward += 2 * c * geometry.hidden * used
    return norms + attention + feed_forward


def _capped_bytes(size: TrainingSize, geometry: Geometry, pack_tokens: int) -> int:
    """The scores of a block of queries, which capped products need several times in float32."""
    if geometry.attention_cap is None:
        return 0
    scores = geometry.heads * max(pack_tokens, size.longest_row) * min(size.longest_row, _LONGEST_BLOCK)
    return scores * (12 + 2 * size.compute_bytes)


def serving_bytes(base_file_bytes: int, sizes: Sizes, trainable: int, context: int) -> int:
    """Resident memory of the engine: the file, the adapter in float32, an f16 cache, and buffers."""
    cache = 2 * sizes.cache_width * context
    used = sizes.experts.used if isinstance(sizes, Geometry) and sizes.experts is not None else 1
    buffers = 512 * (sizes.vocab + 4 * sizes.ffn * used) * 4
    return base_file_bytes + trainable * 4 + cache + buffers + (60 << 20)
