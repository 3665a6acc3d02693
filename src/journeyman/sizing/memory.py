"""Estimates peak memory of training and serving, in bytes, from the geometry.

Compared with measurements in benchmarks/log.md. Letters: D hidden, Q and K the widths of queries and keys,
F feed-forward, H heads, L row length, V vocabulary; c bytes of the compute type.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from journeyman.models.attention import LONGEST_ON_GRID, LONGEST_WITH_SCORES
from journeyman.models.geometry import Geometry
from journeyman.models.loss import chunk_rows
from journeyman.models.sizes import ModelSizes, Sizes

MemoryWay = Literal["keep", "recompute", "stream"]
Part = Literal["runtime", "products", "weights", "adapter", "activations", "logits", "entering", "passing"]
"""What the memory of training consists of; stages.plan_memory_text explains each."""
RUNTIME_BYTES = 355_000_000
"""Python with everything that a command imports, torch and its optimizer, before any weights: 345 to 350 MB."""
_PRODUCTS_BYTES = {2: 130_000_000, 4: 30_000_000}
"""Bytes of an element → what torch keeps of products that it has prepared: see hardware.bound_product_caches. For
float32, MKL keeps its workspaces only."""
_LIBRARY_BYTES = 900 << 20
"""The same with transformers and peft."""
_ADAPTER_BYTES = 24  # per parameter: float32 master, gradient and its copy, two moments, and the best so far
_SHORTEST_BLOCK, _LONGEST_BLOCK, _MOST_BLOCKS = 64, 256, 8
"""Queries whose scores exist at a time, and the most blocks of them: see models.causal_blocks."""
_PASSING_KEPT, _PASSING_RECOMPUTED = 6.3, 4.3
"""What is computed and freed, as multiples of what a layer keeps: the gradients of its backward pass, and gaps. Freed
memory stays with the process, and packs of varying lengths leave gaps in it. Measured (benchmarks/prediction.py): 0.5
to 1 and 0.7 in runs of two steps, 4 to 6 and 4.1 in those of some more."""
_GAPS, _SETTLED = 0.78, 26.0
"""The gaps of a long run whose activations are kept, as a share of these, and the packs after which 1 - 1/e of them are
there. Fitted to the demo (0.48 GB after 63 packs, of which validation has 0.15) and two runs of 60 and 130 packs."""
_PASSING_VALIDATED = 3.2
"""What a validation's larger pack needs besides, as a multiple of what a layer would keep of it."""
_UNTRIED_BYTES, _UNTRIED_SHARE = 30_000_000, 0.025
"""See peak_of."""
_SEGMENT_BYTES = 20 << 20
"""That torch's allocator of a GPU reserves at a time for tensors of 1 to 10 MB."""
_ROW_SLACK = 1.6
"""The same for transformers, whose packs are rows."""


@dataclass(frozen=True)
class TrainingSize:
    """What the memory of training depends on, besides the memory mode.

    Attributes:
        compute_bytes: of one element of weights and activations.
        longest_row: tokens.
        padding: cells for each token of a pack: attention pads the rows of a pack to the longest (models.attention).
        scores: keys whose scores are kept, for each token of a pack; None: those of a row of `longest_row` tokens that
            may share its beginning with others.
    """

    sizes: Sizes
    trainable: int
    compute_bytes: int
    longest_row: int
    padding: float = 1.0
    scores: float | None = None


def size_of_pack(
    geometry: Geometry, trainable: int, compute_bytes: int, lengths: Sequence[int], prefixes: Sequence[int]
) -> TrainingSize:
    """What one pack needs: see batches.Pack for lengths and prefixes, and models.attention for what is kept."""
    fields: dict[int, list[int]] = {}
    for length, prefix in zip(lengths, prefixes, strict=True):
        fields.setdefault(prefix, []).append(length)
    cells = scores = 0
    for prefix, own in fields.items():
        common, longest, tokens = lengths[prefix] if prefix >= 0 else 0, max(own), sum(own)
        if longest <= LONGEST_ON_GRID and common + longest <= LONGEST_WITH_SCORES:
            cells += len(own) * longest
            scores += len(own) * longest * (common + _scores_on_grid(longest))
            continue
        cells += tokens
        if common:  # instead of scores, keys and values of each whole row, repeated for every head, and a mask
            scores += 2 * geometry.head_dim * (len(own) * common + tokens)
            scores += tokens * (common + longest) // (2 * geometry.heads)
    return TrainingSize(
        geometry, trainable, compute_bytes, max(map(max, fields.values())), cells / sum(lengths), scores / sum(lengths)
    )


def training_bytes(size: TrainingSize, way: MemoryWay, pack_tokens: int, group_tokens: int) -> int:
    """Peak of a training step: the sum of training_parts."""
    return sum(training_parts(size, way, pack_tokens, group_tokens).values())


def training_parts(
    size: TrainingSize, way: MemoryWay, pack_tokens: int, group_tokens: int, packs: int = 0, validated_tokens: int = 0
) -> dict[Part, int]:
    """What the peak of a training step on the processor consists of, in bytes.

    Args:
        pack_tokens: tokens computed at once.
        group_tokens: tokens whose gradients are computed at once (training.gradients); matters for recompute and
            stream, which keep the input of each layer for all of them.
        packs: of the run; 0: not known, few.
        validated_tokens: of the largest pack of a validation.
    """
    if isinstance(size.sizes, ModelSizes):
        return _row_parts(size, size.sizes, way)
    geometry, c = size.sizes, size.compute_bytes
    assert isinstance(geometry, Geometry)
    layers_kept = geometry.layers if way == "keep" else 1
    # In the compute type, the adapter is kept with the activations of its layer.
    layer = pack_tokens * layer_bytes_per_token(size) + size.trainable * c // geometry.layers
    # The head: a chunk of logits in the compute type, in float32 and as probabilities; the slopes of capped ones.
    logits = min(chunk_rows(geometry.vocab), pack_tokens) * geometry.vocab
    weights = geometry.parameters * c
    if way == "stream":
        weights = (2 * geometry.layer_parameters + geometry.vocab * geometry.hidden) * c
        weights += int(0.15 * weights)  # pieces being read from the file, and gaps by layers that came and went
    gaps = _GAPS * layers_kept * layer * -math.expm1(-packs / _SETTLED)
    entering, passing = 0, int(max(_PASSING_KEPT * layer, layer + gaps))
    if way != "keep":
        entering = (geometry.layers + 3) * max(group_tokens, pack_tokens) * geometry.hidden * c
        passing = int(_PASSING_RECOMPUTED * layer)
    passing += int(_PASSING_VALIDATED * max(0, validated_tokens - pack_tokens) * layer_bytes_per_token(size))
    return {
        "runtime": RUNTIME_BYTES,
        "products": _PRODUCTS_BYTES[c],
        "weights": weights,
        "adapter": size.trainable * _ADAPTER_BYTES,
        "activations": layers_kept * layer,
        "logits": logits * (c + (4 if geometry.logit_cap is None else 8)),
        "entering": entering,
        "passing": passing + _capped_bytes(size, geometry, pack_tokens),
    }


def peak_of(computed: Mapping[Part, int], measured: int | None, *, on_gpu: bool) -> int:
    """The peak of training, from its computed parts and the measured peak of some steps, if there is one.

    The steps that are tried include the largest pack, a step of the optimizer and a checkpoint. What they lack: on a
    processor, the gaps that more lengths leave, for which the computed sum is the better guess unless the steps have
    needed more; on a GPU, what torch doesn't count: its context and kernels, and one segment more of its allocator,
    whose number depends on the order of the steps.
    """
    if measured is None:
        return sum(computed.values())
    if on_gpu:
        return measured + _SEGMENT_BYTES + computed["runtime"]
    return max(sum(computed.values()), measured + max(_UNTRIED_BYTES, int(_UNTRIED_SHARE * measured)))


def ways_of(sizes: Sizes) -> tuple[MemoryWay, ...]:
    """The memory modes in which a base can be trained: `transformers` needs all weights in memory."""
    ways: tuple[MemoryWay, ...] = get_args(MemoryWay)
    return ways if isinstance(sizes, Geometry) else ("keep", "recompute")


def _row_parts(size: TrainingSize, sizes: ModelSizes, way: MemoryWay) -> dict[Part, int]:
    """The same with `transformers` and `peft`, which compute a row at a time; not measured, but counted generously.

    A layer keeps what its linear layers read and make, once more in float32 for the adapter, and scores if its
    attention stores them. The loss needs the logits of all labels in the compute type, and three times in float32.
    """
    c, row = size.compute_bytes, size.longest_row
    layers_kept = 1.0 if way == "keep" else 1 / sizes.layers
    activations = layers_kept * row * (sizes.kept_width * (c + 4) + sizes.layers * sizes.stored_scores * row * 2 * c)
    logits = row * sizes.vocab * (c + 12)
    return {
        "runtime": _LIBRARY_BYTES,
        "weights": sizes.parameters * c,
        "adapter": size.trainable * _ADAPTER_BYTES,
        "activations": int(activations),
        "logits": logits,
        "entering": 0 if way == "keep" else sizes.layers * row * sizes.hidden * c,
        "passing": int((_ROW_SLACK - 1) * (activations + logits)),
    }


def layer_bytes_per_token(size: TrainingSize) -> int:
    """Bytes per token that one layer of our own decoder keeps for the backward pass."""
    geometry, c = size.sizes, size.compute_bytes
    assert isinstance(geometry, Geometry)
    q, kv = geometry.heads * geometry.head_dim, geometry.kv_heads * geometry.head_dim
    # The sums before attention and feed-forward, both normalized, and a float32 for each norm.
    norms = 4 * c * geometry.hidden + 4 * len(geometry.family.norms)
    # The input of each norm, where nothing else keeps it.
    norms += c * geometry.hidden * sum(name.endswith("post_norm") for name in geometry.family.norms)
    norms += (c * (q + kv) + 4 * (geometry.heads + geometry.kv_heads)) if geometry.family.qk_norm != "none" else 0
    # Queries, keys and values on the grid, and the result of attention.
    cells = size.padding if size.longest_row <= LONGEST_ON_GRID else 1.0
    scores = cells * _scores_per_query(size.longest_row) if size.scores is None else size.scores
    if geometry.attention_cap is not None:  # they are computed again
        scores = 0.0
    attention = c * q + round(c * (cells * (q + 2 * kv) + geometry.heads * scores))
    if size.longest_row > LONGEST_ON_GRID and geometry.attention_cap is None:  # torch's attention keeps its result
        attention += c * q + 4 * geometry.heads
    attention += c * (q + 2 * kv) if geometry.family.fused else 0  # v keeps the product of the fused matrix
    used = geometry.experts.used if geometry.experts is not None else 1
    feed_forward = (7 if geometry.family.activation == "clamped" else 4) * c * geometry.ffn * used
    if geometry.experts is not None:  # the tokens sorted by expert, and what the experts made of them
        feed_forward += 2 * c * geometry.hidden * used
    return norms + attention + feed_forward + _low_rank_bytes(size, geometry)


def _scores_per_query(longest: int) -> int:
    """Keys whose scores are kept for a query of a row, on average; 0 if they are computed again."""
    if longest > LONGEST_WITH_SCORES:
        return 0
    if longest > LONGEST_ON_GRID:  # with a common prefix, whose keys all precede
        return longest
    return _scores_on_grid(longest)


def _scores_on_grid(longest: int) -> int:
    blocks = max(1, min(_MOST_BLOCKS, longest // _SHORTEST_BLOCK))
    return -(-longest * (blocks + 1) // (2 * blocks))


def _low_rank_bytes(size: TrainingSize, geometry: Geometry) -> int:
    """What the A matrices make of a token."""
    of_rank_one = sum(sum(geometry.module_shape(one)) * geometry.copies(one) for one in geometry.modules)
    rank = size.trainable / (geometry.layers * of_rank_one)
    return round(rank * len(geometry.modules)) * size.compute_bytes


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
