"""Flash attention for packs, in Triton: rows attend to themselves and to a prefix that several rows share.

Dao et al., 2022 (arXiv 2205.14135), with the backward pass in two kernels, one over queries and one over keys, so that
no sum depends on the order in which blocks finish. Keys of a shared prefix are read where they are, once for all rows;
queries of one key/value head are summed without copying keys. Windows, caps and scales are those of AttentionRules.

Letters: T tokens, H heads, K key/value heads, E head dimension; M queries and N keys of a tile. A block is a tile of
one segment: `blocks` holds five int32 for each: the segment's first token and length, the tile's offset, and two more.
"""

# mypy: disable-error-code="untyped-decorator,no-untyped-def,import-not-found,import-untyped"
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from journeyman.models.attention import AttentionRules
from journeyman.models.gpu.kernels import VARYING
from journeyman.models.gpu.limits import LONG_ROW


@dataclass(frozen=True)
class AttentionBlocks:
    """The tiles of a pack.

    Attributes:
        queries: for each tile of queries: segment's first token, its length, offset, prefix's first token, its length.
        keys: for each tile of keys: segment's first token, its length, offset, first token of the rows that continue
            the segment, and their number of tokens.
        position_T: the position of each token in its row, int32.
        long: the segments that other kernels compute (operations.attend), as (first token, token after the last).
        others: the tiles of the other segments; None: there are no long ones.
    """

    queries: Tensor
    keys: Tensor
    position_T: Tensor
    long: Sequence[tuple[int, int]] = ()
    others: AttentionBlocks | None = None


TILE = 64
"""Tokens of a tile in `AttentionBlocks`."""
SETTINGS = {
    "forward": {"N": 64, "num_warps": 4, "num_stages": 2},
    "queries": {"N": 64, "num_warps": 4, "num_stages": 2},
    "keys": {"N": 32, "num_warps": 4, "num_stages": 2},
}
"""For each kernel: tokens of the tiles that it goes through for each of its own, and how it is launched."""


def attention_blocks(
    lengths: Sequence[int],
    prefixes: Sequence[int],
    move: Callable[[Tensor], Tensor],
    long_from: float = LONG_ROW,
) -> AttentionBlocks:
    """The tiles of segments as in attention.Packing.

    Args:
        move: takes a tensor to the device.
        long_from: tokens from which a segment that shares nothing is left to cuDNN.
    """

    def moved(values: Sequence[Sequence[int]] | Sequence[int]) -> Tensor:
        return move(torch.tensor(values, dtype=torch.int32))

    queries, keys, positions = blocks_of(lengths, prefixes)
    position_T = moved(positions)
    continued, starts = set(prefixes), _starts(lengths)
    long = {number for number, (length, prefix) in enumerate(zip(lengths, prefixes, strict=True))
            if length >= long_from and prefix < 0 and number not in continued}  # fmt: skip
    if not long:
        return AttentionBlocks(moved(queries), moved(keys), position_T)
    firsts = {starts[number] for number in long}
    others = [[one for one in tiles if one[1] and one[0] not in firsts] for tiles in (queries, keys)]
    return AttentionBlocks(
        moved(queries), moved(keys), position_T,
        [(starts[number], starts[number + 1]) for number in sorted(long)],
        AttentionBlocks(moved(_filled(others[0], lengths)), moved(_filled(others[1], lengths)), position_T),
    )  # fmt: skip


def _starts(lengths: Sequence[int]) -> list[int]:
    starts = [0]
    for length in lengths:
        starts.append(starts[-1] + length)
    return starts


def _filled(tiles: list[list[int]], lengths: Sequence[int]) -> list[list[int]]:
    """With empty tiles at the end, so that packs of equally many tokens have equally many tiles (training.captured)."""
    most = -(-sum(lengths) // TILE) + -(-len(lengths) // TILE) * TILE
    return tiles + [[0] * 5] * (most - len(tiles))


def blocks_of(lengths: Sequence[int], prefixes: Sequence[int]) -> tuple[list[list[int]], list[list[int]], list[int]]:
    """The values of AttentionBlocks, for segments as in attention.Packing."""
    starts = _starts(lengths)
    queries: list[list[int]] = []
    keys: list[list[int]] = []
    positions: list[int] = []
    for number, (length, prefix) in enumerate(zip(lengths, prefixes, strict=True)):
        ahead = (starts[prefix], lengths[prefix]) if prefix >= 0 else (0, 0)
        children = [child for child, of in enumerate(prefixes) if of == number]
        behind = (starts[children[0]], sum(lengths[child] for child in children)) if children else (0, 0)
        positions.extend(range(ahead[1], ahead[1] + length))
        for offset in range(0, length, TILE):
            queries.append([starts[number], length, offset, *ahead])
            keys.append([starts[number], length, offset, *behind])
    # The tiles with the most work start first: they would otherwise run alone at the end.
    queries.sort(key=lambda one: -(one[2] + one[4]))
    keys.sort(key=lambda one: -(one[1] - one[2] + one[4]))
    return _filled(queries, lengths), _filled(keys, lengths), positions


@triton.jit
def _scores(q, k, scale, cap, CAPPED: tl.constexpr):
    """Scores in units of log2 for queries (M, E) and keys (E, N), and the slope of the cap."""
    raw = tl.dot(q, k, input_precision="ieee") * scale
    if CAPPED:
        tanh = 2.0 * tl.sigmoid(2.0 * raw / cap) - 1.0
        return cap * tanh * 1.4426950408889634, 1.0 - tanh * tanh
    return raw * 1.4426950408889634, raw * 0.0 + 1.0


@triton.jit
def _forward_tile(q, k_at, v_at, k_t, v_t, first, key, key_real, seen, top, total, mixed, scale, cap,
                  CAPPED: tl.constexpr, E: tl.constexpr):  # fmt: skip
    """Takes a tile of keys into the running softmax."""
    at, token = tl.arange(0, E), (first + key).to(tl.int64)
    k = tl.load(k_at + token[None, :] * k_t + at[:, None], mask=key_real[None, :], other=0.0)
    v = tl.load(v_at + token[:, None] * v_t + at[None, :], mask=key_real[:, None], other=0.0)
    scores, _ = _scores(q, k, scale, cap, CAPPED)
    scores = tl.where(seen, scores, -1e30)
    new_top = tl.maximum(top, tl.max(scores, 1))
    shares = tl.where(seen, tl.exp2(scores - new_top[:, None]), 0.0)
    fade = tl.exp2(top - new_top)
    total = total * fade + tl.sum(shares, 1)
    mixed = tl.dot(shares.to(v.dtype), v, mixed * fade[:, None], input_precision="ieee")
    return new_top, total, mixed


@triton.jit
def _first_seen(position, window, N: tl.constexpr, WINDOW: tl.constexpr):
    """Where the first tile of keys begins that a query at this position, or a later one, sees."""
    if WINDOW:
        return tl.maximum(position - window + 1, 0) // N * N
    return 0


@triton.jit(do_not_specialize=VARYING)
def _forward(q, k, v, out, lse, blocks, scale, window, cap, tokens, q_t, k_t, v_t, out_t, GROUP: tl.constexpr,
             E: tl.constexpr, M: tl.constexpr, N: tl.constexpr, WINDOW: tl.constexpr,
             CAPPED: tl.constexpr):  # fmt: skip
    meta, head = blocks + tl.program_id(0) * 5, tl.program_id(1)
    first, length, offset = tl.load(meta), tl.load(meta + 1), tl.load(meta + 2)
    ahead, ahead_length = tl.load(meta + 3), tl.load(meta + 4)
    query, at = offset + tl.arange(0, M), tl.arange(0, E)
    real, token = query < length, (first + query).to(tl.int64)
    q_tile = tl.load(q + token[:, None] * q_t + head * E + at[None, :], mask=real[:, None], other=0.0)
    k_at, v_at = k + (head // GROUP) * E, v + (head // GROUP) * E
    top, total = tl.full((M,), -1e30, tl.float32), tl.zeros((M,), tl.float32)
    mixed = tl.zeros((M, E), tl.float32)
    for start in range(_first_seen(ahead_length + offset, window, N, WINDOW), ahead_length, N):
        key = start + tl.arange(0, N)
        seen = (key < ahead_length)[None, :] & real[:, None]
        if WINDOW:
            seen = seen & (ahead_length + query[:, None] - key[None, :] < window)
        top, total, mixed = _forward_tile(
            q_tile, k_at, v_at, k_t, v_t, ahead, key, key < ahead_length, seen, top, total, mixed, scale, cap, CAPPED, E
        )
    for start in range(_first_seen(offset, window, N, WINDOW), tl.minimum(offset + M, length), N):
        key = start + tl.arange(0, N)
        seen = (key[None, :] <= query[:, None]) & real[:, None]
        if WINDOW:
            seen = seen & (query[:, None] - key[None, :] < window)
        top, total, mixed = _forward_tile(
            q_tile, k_at, v_at, k_t, v_t, first, key, key < length, seen, top, total, mixed, scale, cap, CAPPED, E
        )
    total = tl.where(real, total, 1.0)
    place = out + token[:, None] * out_t + head * E + at[None, :]
    tl.store(place, (mixed / total[:, None]).to(out.dtype.element_ty), mask=real[:, None])
    tl.store(lse + head.to(tl.int64) * tokens + token, top + tl.log2(total), mask=real)


@triton.jit(do_not_specialize=VARYING)
def _delta(g, out, delta, tokens, g_t, out_t, E: tl.constexpr, M: tl.constexpr):
    """The sum of g · out for each query and head."""
    token, head, at = tl.program_id(0) * M + tl.arange(0, M), tl.program_id(1), tl.arange(0, E)
    real, wide = token < tokens, token.to(tl.int64)
    g_tile = tl.load(g + wide[:, None] * g_t + head * E + at[None, :], mask=real[:, None], other=0.0).to(tl.float32)
    o_tile = tl.load(out + wide[:, None] * out_t + head * E + at[None, :], mask=real[:, None], other=0.0)
    tl.store(delta + head.to(tl.int64) * tokens + wide, tl.sum(g_tile * o_tile.to(tl.float32), 1), mask=real)


@triton.jit
def _query_tile(q, g, lse, delta, k_at, v_at, k_t, v_t, first, key, key_real, seen, slope, scale, cap,
                CAPPED: tl.constexpr, E: tl.constexpr):  # fmt: skip
    """Adds a tile of keys to the gradient of a tile of queries."""
    at, token = tl.arange(0, E), (first + key).to(tl.int64)
    k = tl.load(k_at + token[:, None] * k_t + at[None, :], mask=key_real[:, None], other=0.0)
    v = tl.load(v_at + token[:, None] * v_t + at[None, :], mask=key_real[:, None], other=0.0)
    scores, bend = _scores(q, tl.trans(k), scale, cap, CAPPED)
    shares = tl.where(seen, tl.exp2(scores - lse[:, None]), 0.0)
    of_scores = shares * (tl.dot(g, tl.trans(v), input_precision="ieee") - delta[:, None]) * bend
    return tl.dot(of_scores.to(k.dtype), k, slope, input_precision="ieee")


@triton.jit(do_not_specialize=VARYING)
def _backward_queries(q, k, v, g, lse, delta, dq, blocks, scale, window, cap, tokens, q_t, k_t, v_t, g_t,
                      GROUP: tl.constexpr, E: tl.constexpr, M: tl.constexpr, N: tl.constexpr, WINDOW: tl.constexpr,
                      CAPPED: tl.constexpr):  # fmt: skip
    meta, head = blocks + tl.program_id(0) * 5, tl.program_id(1)
    first, length, offset = tl.load(meta), tl.load(meta + 1), tl.load(meta + 2)
    ahead, ahead_length = tl.load(meta + 3), tl.load(meta + 4)
    query, at = offset + tl.arange(0, M), tl.arange(0, E)
    real, token = query < length, (first + query).to(tl.int64)
    q_tile = tl.load(q + token[:, None] * q_t + head * E + at[None, :], mask=real[:, None], other=0.0)
    g_tile = tl.load(g + token[:, None] * g_t + head * E + at[None, :], mask=real[:, None], other=0.0)
    lse_tile = tl.load(lse + head.to(tl.int64) * tokens + token, mask=real, other=0.0)
    delta_tile = tl.load(delta + head.to(tl.int64) * tokens + token, mask=real, other=0.0)
    k_at, v_at = k + (head // GROUP) * E, v + (head // GROUP) * E
    slope = tl.zeros((M, E), tl.float32)
    for start in range(_first_seen(ahead_length + offset, window, N, WINDOW), ahead_length, N):
        key = start + tl.arange(0, N)
        seen = (key < ahead_length)[None, :] & real[:, None]
        if WINDOW:
            seen = seen & (ahead_length + query[:, None] - key[None, :] < window)
        slope = _query_tile(
            q_tile, g_tile, lse_tile, delta_tile, k_at, v_at, k_t, v_t, ahead, key, key < ahead_length, seen, slope,
            scale, cap, CAPPED, E,
        )  # fmt: skip
    for start in range(_first_seen(offset, window, N, WINDOW), tl.minimum(offset + M, length), N):
        key = start + tl.arange(0, N)
        seen = (key[None, :] <= query[:, None]) & real[:, None]
        if WINDOW:
            seen = seen & (query[:, None] - key[None, :] < window)
        slope = _query_tile(
            q_tile, g_tile, lse_tile, delta_tile, k_at, v_at, k_t, v_t, first, key, key < length, seen, slope, scale,
            cap, CAPPED, E,
        )  # fmt: skip
    place = dq + (token[:, None] * tl.num_programs(1) + head) * E + at[None, :]
    tl.store(place, (slope * scale).to(dq.dtype.element_ty), mask=real[:, None])


@triton.jit
def _key_tile(k, v, q_at, g_at, lse_at, delta_at, q_t, g_t, token, real, seen, dk, dv, scale, cap, CAPPED: tl.constexpr,
              E: tl.constexpr):  # fmt: skip
    """Adds a tile of queries to the gradients of a tile of keys and values."""
    at, wide = tl.arange(0, E), token.to(tl.int64)
    q = tl.load(q_at + wide[:, None] * q_t + at[None, :], mask=real[:, None], other=0.0)
    g = tl.load(g_at + wide[:, None] * g_t + at[None, :], mask=real[:, None], other=0.0)
    lse, delta = tl.load(lse_at + wide, mask=real, other=0.0), tl.load(delta_at + wide, mask=real, other=0.0)
    scores, bend = _scores(k, tl.trans(q), scale, cap, CAPPED)
    shares = tl.where(seen, tl.exp2(scores - lse[None, :]), 0.0)
    dv = tl.dot(shares.to(g.dtype), g, dv, input_precision="ieee")
    of_scores = shares * (tl.dot(v, tl.trans(g), input_precision="ieee") - delta[None, :]) * bend
    return tl.dot(of_scores.to(q.dtype), q, dk, input_precision="ieee"), dv


@triton.jit(do_not_specialize=VARYING)
def _backward_keys(q, k, v, g, lse, delta, dk, dv, blocks, position, scale, window, cap, tokens, q_t, k_t, v_t, g_t,
                   GROUP: tl.constexpr, E: tl.constexpr, M: tl.constexpr, N: tl.constexpr, WINDOW: tl.constexpr,
                   CAPPED: tl.constexpr):  # fmt: skip
    meta, head = blocks + tl.program_id(0) * 5, tl.program_id(1)
    kv_head = head // GROUP
    first, length, offset = tl.load(meta), tl.load(meta + 1), tl.load(meta + 2)
    behind, behind_length = tl.load(meta + 3), tl.load(meta + 4)
    key, at = offset + tl.arange(0, M), tl.arange(0, E)
    key_real, key_token = key < length, (first + key).to(tl.int64)
    k_tile = tl.load(k + key_token[:, None] * k_t + kv_head * E + at[None, :], mask=key_real[:, None], other=0.0)
    v_tile = tl.load(v + key_token[:, None] * v_t + kv_head * E + at[None, :], mask=key_real[:, None], other=0.0)
    dk_tile, dv_tile = tl.zeros((M, E), tl.float32), tl.zeros((M, E), tl.float32)
    q_at, g_at = q + head * E, g + head * E
    lse_at, delta_at = lse + head.to(tl.int64) * tokens, delta + head.to(tl.int64) * tokens
    last = length
    if WINDOW:
        last = tl.minimum(length, offset + M - 1 + window)
    for start in range(offset, last, N):
        query = start + tl.arange(0, N)
        real = query < length
        seen = (key[:, None] <= query[None, :]) & real[None, :] & key_real[:, None]
        if WINDOW:
            seen = seen & (query[None, :] - key[:, None] < window)
        dk_tile, dv_tile = _key_tile(
            k_tile, v_tile, q_at, g_at, lse_at, delta_at, q_t, g_t, first + query, real, seen, dk_tile, dv_tile,
            scale, cap, CAPPED, E,
        )  # fmt: skip
    for start in range(0, behind_length, N):
        place = start + tl.arange(0, N)
        real = place < behind_length
        seen = real[None, :] & key_real[:, None]
        if WINDOW:
            inside = tl.load(position + behind + place, mask=real, other=0)
            seen = seen & (inside[None, :] - key[:, None] < window)
        dk_tile, dv_tile = _key_tile(
            k_tile, v_tile, q_at, g_at, lse_at, delta_at, q_t, g_t, behind + place, real, seen, dk_tile, dv_tile,
            scale, cap, CAPPED, E,
        )  # fmt: skip
    place = (key_token[:, None] * tl.num_programs(1) + head) * E + at[None, :]
    tl.store(dk + place, (dk_tile * scale).to(dk.dtype.element_ty), mask=key_real[:, None])
    tl.store(dv + place, dv_tile.to(dv.dtype.element_ty), mask=key_real[:, None])


def attention_forward(
    q_THE: Tensor, k_TKE: Tensor, v_TKE: Tensor, blocks: AttentionBlocks, rules: AttentionRules
) -> tuple[Tensor, Tensor]:
    """Attention output (T, H, E), and for each head and token the log2 of the sum of exponentials (H, T)."""
    tokens, heads, size = q_THE.shape
    out_THE = torch.empty(tokens, heads, size, device=q_THE.device, dtype=q_THE.dtype)
    lse_HT = torch.empty(heads, tokens, device=q_THE.device, dtype=torch.float32)
    _forward[(len(blocks.queries), heads)](
        q_THE, k_TKE, v_TKE, out_THE, lse_HT, blocks.queries, *_numbers(rules, size), tokens, q_THE.stride(0),
        k_TKE.stride(0), v_TKE.stride(0), out_THE.stride(0), **_options(q_THE, k_TKE, rules), **SETTINGS["forward"],
    )  # fmt: skip
    return out_THE, lse_HT


def attention_backward(
    g_THE: Tensor, q_THE: Tensor, k_TKE: Tensor, v_TKE: Tensor, out_THE: Tensor, lse_HT: Tensor,
    blocks: AttentionBlocks, rules: AttentionRules,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """The gradients of q, k and v, contiguous."""
    tokens, heads, size = q_THE.shape
    delta_HT = torch.empty_like(lse_HT)
    # Each head writes the gradients of its keys; those of a group are summed afterwards.
    dq, dk, dv = (torch.empty(q_THE.shape, device=q_THE.device, dtype=q_THE.dtype) for _ in range(3))
    numbers, options = _numbers(rules, size), _options(q_THE, k_TKE, rules)
    strides = q_THE.stride(0), k_TKE.stride(0), v_TKE.stride(0), g_THE.stride(0)
    _delta[(triton.cdiv(tokens, TILE), heads)](
        g_THE, out_THE, delta_HT, tokens, g_THE.stride(0), out_THE.stride(0), E=size, M=TILE
    )
    _backward_queries[(len(blocks.queries), heads)](
        q_THE,
        k_TKE,
        v_TKE,
        g_THE,
        lse_HT,
        delta_HT,
        dq,
        blocks.queries,
        *numbers,
        tokens,
        *strides,
        **options,
        **SETTINGS["queries"],
    )
    _backward_keys[(len(blocks.keys), heads)](
        q_THE, k_TKE, v_TKE, g_THE, lse_HT, delta_HT, dk, dv, blocks.keys, blocks.position_T, *numbers, tokens,
        *strides, **options, **SETTINGS["keys"],
    )  # fmt: skip
    group = heads // k_TKE.shape[1]
    dk, dv = (one.view(tokens, -1, group, size).sum(2) for one in (dk, dv)) if group > 1 else (dk, dv)
    return dq, dk, dv


def _numbers(rules: AttentionRules, size: int) -> tuple[float, int, float]:
    """Scale, window and cap."""
    return size**-0.5 if rules.scale is None else rules.scale, rules.window or 0, rules.cap or 1.0


def _options(q_THE: Tensor, k_TKE: Tensor, rules: AttentionRules) -> dict[str, int | bool]:
    _, heads, size = q_THE.shape
    return {
        "GROUP": heads // k_TKE.shape[1], "E": size, "M": TILE, "WINDOW": rules.window is not None,
        "CAPPED": rules.cap is not None,
    }  # fmt: skip
