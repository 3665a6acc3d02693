"""Estimates the peak of a GPU's memory in training, in bytes, from the geometry.

It counts what the operations of models.gpu keep for the backward pass, compared with measured peaks in
benchmarks/README.md. Letters as in sizing.memory.
"""

from __future__ import annotations

from collections.abc import Sequence

from journeyman.models.geometry import Geometry
from journeyman.models.gpu.limits import LONG_ROW, loss_rows
from journeyman.sizing.memory import MemoryWay, Part, TrainingSize

_ADAPTER_BYTES = 32
"""Per parameter: float32 value, gradient, its copy and two moments; copies in the compute type, with gaps of zeros."""
GPU_RUNTIME_BYTES = 400 << 20
"""Kernels and the workspaces of cuBLAS, loaded after the memory that is free was read."""
MOST_CAPTURED = 1_200_000_000
"""Parameters in matrix products up to which passes are replayed as graphs (training.captured): above it, a GPU takes
longer to compute than Python to launch, and graphs gain nothing. 0.5 billion gain, 7 billion do not."""


def gpu_training_bytes(
    size: TrainingSize,
    way: MemoryWay,
    pack_tokens: int,
    group_tokens: int,
    targets: Sequence[str],
    *,
    stored_bytes: int = 0,
    shards: int = 1,
) -> int:
    """Peak of a training step on a GPU: the sum of gpu_training_parts."""
    return sum(gpu_training_parts(
        size, way, pack_tokens, group_tokens, targets, stored_bytes=stored_bytes, shards=shards
    ).values())  # fmt: skip


def gpu_training_parts(
    size: TrainingSize,
    way: MemoryWay,
    pack_tokens: int,
    group_tokens: int,
    targets: Sequence[str],
    *,
    stored_bytes: int = 0,
    shards: int = 1,
) -> dict[Part, int]:
    """What the peak of a training step on a GPU consists of, in bytes.

    Args:
        targets: train.lora.targets.
        stored_bytes: of a base that stays quantized, and of what is dequantized at a time (block_sizes); matters for
            `stream`.
        shards: GPUs that have a part of each layer; two layers are whole at a time.
    """
    geometry, c = size.sizes, size.compute_bytes
    assert isinstance(geometry, Geometry)
    layers_kept = geometry.layers if way == "keep" else 1
    # Graphs have memory of their own, besides that of passes that are not captured.
    copies = 2 if way == "keep" and geometry.linear_parameters <= MOST_CAPTURED else 1
    if copies == 2:
        pack_tokens = pack_tokens * 9 // 8  # padding, at most
    kept = layers_kept * pack_tokens * gpu_layer_bytes_per_token(geometry, c, targets)
    if size.longest_row >= LONG_ROW:  # what cuDNN's attention keeps is a copy
        kept += layers_kept * pack_tokens * 2 * (geometry.heads + geometry.kv_heads) * geometry.head_dim * c
    # The backward pass of the feed-forward network: gradients of its activations and of gate and up, and of its ends.
    passing = pack_tokens * (c * (3 * geometry.ffn + 3 * geometry.hidden))
    loss = min(loss_rows(geometry.vocab), pack_tokens) * geometry.vocab * c + 2 * pack_tokens * geometry.hidden * c
    entering = 0 if way == "keep" else (geometry.layers + 2) * max(group_tokens, pack_tokens) * geometry.hidden * c
    weights = geometry.parameters * c
    if shards > 1:
        in_layers = geometry.layers * geometry.layer_parameters
        weights -= (in_layers - in_layers // shards - 2 * geometry.layer_parameters) * c
    if way == "stream":
        weights = stored_bytes
    return {
        "runtime": GPU_RUNTIME_BYTES,
        "weights": weights,
        "adapter": size.trainable * _ADAPTER_BYTES,
        "activations": copies * kept,
        "entering": entering,
        "passing": copies * max(passing, loss),
    }


def gpu_layer_bytes_per_token(geometry: Geometry, compute_bytes: int, targets: Sequence[str]) -> int:
    """Bytes per token that one layer keeps for the backward pass."""
    q, kv = geometry.heads * geometry.head_dim, geometry.kv_heads * geometry.head_dim
    adapted = geometry.adapted_modules(targets)
    reads_norm = any(one in adapted for one in ("q_proj", "k_proj", "v_proj", "qkv_proj"))
    # Both sums of the residual stream, and the normalized one that feed-forward reads.
    width = (3 + reads_norm) * geometry.hidden
    width += geometry.hidden * sum(name.endswith("post_norm") for name in geometry.family.norms)
    # The fused product, of which v is a view; rotated queries and keys; the result of attention.
    width += (q + 2 * kv) + (q + kv) + q
    width += 2 * geometry.ffn + (geometry.ffn if "down_proj" in adapted else 0)
    return compute_bytes * width + 4 * (geometry.heads + 2)
