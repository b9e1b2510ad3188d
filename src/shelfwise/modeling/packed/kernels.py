"""Triton kernels of training, and of what inference shares with it: attention inside tiles, and the activation.

Attention is causal, inside each tile's prefix trees, rotary embedding included. One program holds a tile's queries,
keys and values of one head on the chip and touches device memory once for each.
T is the number of tokens, a multiple of TILE; heads lie side by side in the last dimension of `qkv`: H query heads,
then KV key heads, then KV value heads, each 2 * HALF wide. Rotary embedding turns the first half of a head against the
second (Su et al. 2021, in the layout of LLaMA and Falcon).
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _turned(pointer, stride, column, tokens, cos, sin, HALF: tl.constexpr):
    """Both halves of one head of a tile, after rotary embedding: (TILE, HALF) each."""
    half = tl.arange(0, HALF)
    at = pointer + tokens[:, None] * stride + column + half[None, :]
    first = tl.load(at)
    second = tl.load(at + HALF)
    a, b = first.to(tl.float32), second.to(tl.float32)
    return (a * cos - b * sin).to(first.dtype), (b * cos + a * sin).to(first.dtype)


@triton.jit
def _probabilities(q1, q2, k1, k2, end, scale, TILE: tl.constexpr, PRECISION: tl.constexpr):
    """(TILE, TILE) softmax over the tokens that each continues, itself among them (`tiles.Tiles`)."""
    scores = tl.dot(q1, tl.trans(k1), input_precision=PRECISION)
    scores = (scores + tl.dot(q2, tl.trans(k2), input_precision=PRECISION)) * scale
    order = tl.arange(0, TILE)
    seen = (order[:, None] < end[None, :]) & (order[:, None] >= order[None, :])
    scores = tl.where(seen, scores, float("-inf"))
    scores = tl.exp(scores - tl.max(scores, 1)[:, None])
    return scores / tl.sum(scores, 1)[:, None]


@triton.jit
def attend(
    qkv, cos_table, sin_table, positions, ends, out, qkv_stride, out_stride, scale,
    H: tl.constexpr, KV: tl.constexpr, HALF: tl.constexpr, TILE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Forward: grid (tiles, H)."""
    tokens = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    head = tl.program_id(1)
    kv = head // (H // KV)
    end = tl.load(ends + tokens)
    turn = tl.load(positions + tokens)[:, None] * HALF + tl.arange(0, HALF)[None, :]
    cos, sin = tl.load(cos_table + turn), tl.load(sin_table + turn)
    q1, q2 = _turned(qkv, qkv_stride, head * 2 * HALF, tokens, cos, sin, HALF)
    k1, k2 = _turned(qkv, qkv_stride, (H + kv) * 2 * HALF, tokens, cos, sin, HALF)
    width = tl.arange(0, 2 * HALF)
    v = tl.load(qkv + tokens[:, None] * qkv_stride + (H + KV + kv) * 2 * HALF + width[None, :])
    p = _probabilities(q1, q2, k1, k2, end, scale, TILE, PRECISION)
    answer = tl.dot(p.to(v.dtype), v, input_precision=PRECISION)
    tl.store(out + tokens[:, None] * out_stride + head * 2 * HALF + width[None, :], answer.to(v.dtype))


@triton.jit
def _turned_where(pointer, starts, inside, cos, sin, HALF: tl.constexpr):
    """`_turned` of heads that begin anywhere; zeros where there is none."""
    at = pointer + starts[:, None] + tl.arange(0, HALF)[None, :]
    first = tl.load(at, mask=inside[:, None], other=0.0)
    second = tl.load(at + HALF, mask=inside[:, None], other=0.0)
    a, b = first.to(tl.float32), second.to(tl.float32)
    return (a * cos - b * sin).to(first.dtype), (b * cos + a * sin).to(first.dtype)


@triton.jit
def keep(
    qkv, kept, slots, positions, cos_table, sin_table, qkv_stride, kept_stride,
    H: tl.constexpr, KV: tl.constexpr, HALF: tl.constexpr, HEADS: tl.constexpr,
):  # fmt: skip
    """Keys, after rotary embedding, and values of each token into its slot: grid (T,). HEADS: power of 2 from KV on."""
    token = tl.program_id(0).to(tl.int64)
    head, half, width = tl.arange(0, HEADS), tl.arange(0, HALF), tl.arange(0, 2 * HALF)
    inside = head < KV
    turn = tl.load(positions + token) * HALF + half[None, :]
    cos, sin = tl.load(cos_table + turn), tl.load(sin_table + turn)
    k1, k2 = _turned_where(qkv, token * qkv_stride + (H + head) * 2 * HALF, inside, cos, sin, HALF)
    start = kept + tl.load(slots + token).to(tl.int64) * kept_stride
    at = start + head[:, None] * 2 * HALF + half[None, :]
    tl.store(at, k1, mask=inside[:, None])
    tl.store(at + HALF, k2, mask=inside[:, None])
    column = head[:, None] * 2 * HALF + width[None, :]
    v = tl.load(qkv + token * qkv_stride + (H + KV) * 2 * HALF + column, mask=inside[:, None])
    tl.store(start + KV * 2 * HALF + column, v, mask=inside[:, None])


@triton.jit
def attend_paths(
    qkv, kept, cos_table, sin_table, slots, lengths, firsts, news, out, qkv_stride, kept_stride, slots_stride,
    out_stride, scale, H: tl.constexpr, KV: tl.constexpr, HALF: tl.constexpr, HEADS: tl.constexpr,
    QUERIES: tl.constexpr, KEYS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Attention of a path's new tokens (at most QUERIES) with all its tokens, KEYS at a time (Dao et al. 2022).

    Grid (paths, KV * chunks): a program takes a chunk of HEADS of the query heads that share a key and value head.
    """
    GROUP: tl.constexpr = H // KV
    CHUNKS: tl.constexpr = (GROUP + HEADS - 1) // HEADS
    path, kv = tl.program_id(0), tl.program_id(1) // CHUNKS
    length, new = tl.load(lengths + path), tl.load(news + path)
    row = tl.arange(0, HEADS * QUERIES)
    i, of_group = row % QUERIES, tl.program_id(1) % CHUNKS * HEADS + row // QUERIES
    mine = (i < new) & (of_group < GROUP)
    column = (kv * GROUP + of_group) * 2 * HALF
    token = (tl.load(firsts + path) + i).to(tl.int64)
    at = length - new + i
    half, width = tl.arange(0, HALF), tl.arange(0, 2 * HALF)
    turn = at[:, None] * HALF + half[None, :]
    cos = tl.load(cos_table + turn, mask=mine[:, None], other=0.0)
    sin = tl.load(sin_table + turn, mask=mine[:, None], other=0.0)
    q1, q2 = _turned_where(qkv, token * qkv_stride + column, mine, cos, sin, HALF)
    largest = tl.full((HEADS * QUERIES,), float("-inf"), tl.float32)
    total = tl.zeros((HEADS * QUERIES,), tl.float32)
    answer = tl.zeros((HEADS * QUERIES, 2 * HALF), tl.float32)
    for start in range(0, length, KEYS):
        j = start + tl.arange(0, KEYS)
        there = j < length
        slot = tl.load(slots + path.to(tl.int64) * slots_stride + j, mask=there, other=0).to(tl.int64)
        begin = kept + slot[:, None] * kept_stride + kv * 2 * HALF
        k1 = tl.load(begin + half[None, :], mask=there[:, None], other=0.0)
        k2 = tl.load(begin + HALF + half[None, :], mask=there[:, None], other=0.0)
        v = tl.load(begin + KV * 2 * HALF + width[None, :], mask=there[:, None], other=0.0)
        scores = tl.dot(q1, tl.trans(k1), input_precision=PRECISION)
        scores = (scores + tl.dot(q2, tl.trans(k2), input_precision=PRECISION)) * scale
        scores = tl.where((j[None, :] <= at[:, None]) & there[None, :], scores, float("-inf"))
        higher = tl.maximum(largest, tl.max(scores, 1))  # finite: every token sees the first
        faded = tl.exp(largest - higher)
        scores = tl.exp(scores - higher[:, None])
        total = total * faded + tl.sum(scores, 1)
        answer = answer * faded[:, None] + tl.dot(scores.to(v.dtype), v, input_precision=PRECISION)
        largest = higher
    answer = (answer / total[:, None]).to(out.dtype.element_ty)
    tl.store(out + token[:, None] * out_stride + column[:, None] + width[None, :], answer, mask=mine[:, None])


@triton.jit
def attend_backward(
    qkv, cos_table, sin_table, positions, ends, grad_out, grad_qkv, partial, qkv_stride, out_stride, T, scale,
    H: tl.constexpr, KV: tl.constexpr, HALF: tl.constexpr, TILE: tl.constexpr, CHUNK: tl.constexpr,
    CHUNKS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Backward: grid (tiles, KV * CHUNKS); a program takes CHUNK of the query heads that share a key and value head.

    With one chunk it writes the gradients of its key and value head into `grad_qkv`; with more, its share of them into
    `partial` (CHUNKS, T, KV, 4 * HALF) in float32, keys first, to be summed.
    """
    tokens = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    kv = tl.program_id(1) // CHUNKS
    chunk = tl.program_id(1) % CHUNKS
    end = tl.load(ends + tokens)
    half, width = tl.arange(0, HALF), tl.arange(0, 2 * HALF)
    turn = tl.load(positions + tokens)[:, None] * HALF + half[None, :]
    cos, sin = tl.load(cos_table + turn), tl.load(sin_table + turn)
    k1, k2 = _turned(qkv, qkv_stride, (H + kv) * 2 * HALF, tokens, cos, sin, HALF)
    v = tl.load(qkv + tokens[:, None] * qkv_stride + (H + KV + kv) * 2 * HALF + width[None, :])
    dk1 = tl.zeros((TILE, HALF), tl.float32)
    dk2 = tl.zeros((TILE, HALF), tl.float32)
    dv = tl.zeros((TILE, 2 * HALF), tl.float32)
    GROUP: tl.constexpr = H // KV
    for j in range(CHUNK):
        i = chunk * CHUNK + j
        if i < GROUP:
            head = kv * GROUP + i
            q1, q2 = _turned(qkv, qkv_stride, head * 2 * HALF, tokens, cos, sin, HALF)
            p = _probabilities(q1, q2, k1, k2, end, scale, TILE, PRECISION)
            do = tl.load(grad_out + tokens[:, None] * out_stride + head * 2 * HALF + width[None, :])
            dv += tl.dot(tl.trans(p.to(do.dtype)), do, input_precision=PRECISION)
            dp = tl.dot(do, tl.trans(v), input_precision=PRECISION)
            ds = (p * (dp - tl.sum(dp * p, 1)[:, None]) * scale).to(do.dtype)
            dq1 = tl.dot(ds, k1, input_precision=PRECISION)
            dq2 = tl.dot(ds, k2, input_precision=PRECISION)
            at = grad_qkv + tokens[:, None] * qkv_stride + head * 2 * HALF + half[None, :]
            tl.store(at, (dq1 * cos + dq2 * sin).to(do.dtype))
            tl.store(at + HALF, (dq2 * cos - dq1 * sin).to(do.dtype))
            dk1 += tl.dot(tl.trans(ds), q1, input_precision=PRECISION)
            dk2 += tl.dot(tl.trans(ds), q2, input_precision=PRECISION)
    first, second = dk1 * cos + dk2 * sin, dk2 * cos - dk1 * sin
    if CHUNKS == 1:
        at = grad_qkv + tokens[:, None] * qkv_stride + (H + kv) * 2 * HALF + half[None, :]
        tl.store(at, first.to(v.dtype))
        tl.store(at + HALF, second.to(v.dtype))
        at = grad_qkv + tokens[:, None] * qkv_stride + (H + KV + kv) * 2 * HALF + width[None, :]
        tl.store(at, dv.to(v.dtype))
    else:
        at = partial + ((chunk * T + tokens[:, None]) * KV + kv) * 4 * HALF
        tl.store(at + half[None, :], first)
        tl.store(at + HALF + half[None, :], second)
        tl.store(at + 2 * HALF + width[None, :], dv)


@triton.jit
def _gelu(x):
    """GELU (Hendrycks and Gimpel 2016), exact."""
    return 0.5 * x * (1.0 + tl.math.erf(x * 0.7071067811865476))


@triton.jit
def _adapted(y, low, up, tokens, columns, y_stride, low_stride, up_stride, skip, RANK: tl.constexpr):
    """A block of y plus low times up, in float32; `up` (columns, ranks) is block-diagonal: it starts at rank `skip`."""
    rank = tl.arange(0, RANK)
    value = tl.load(y + tokens[:, None] * y_stride + columns[None, :])
    a = tl.load(low + tokens[:, None] * low_stride + skip + rank[None, :])
    b = tl.load(up + columns[:, None] * up_stride + skip + rank[None, :])
    return value.to(tl.float32) + tl.dot(a, tl.trans(b), input_precision="ieee")


@triton.jit
def activate(
    y, low, up, out, width, y_stride, low_stride, up_stride,
    GATED: tl.constexpr, RANK: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Forward: out (T, width) is silu(gate) * up where GATED, else gelu; grid (T / ROWS, width / COLUMNS)."""
    tokens = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    first = _adapted(y, low, up, tokens, columns, y_stride, low_stride, up_stride, 0, RANK)
    if GATED:
        second = _adapted(y, low, up, tokens, columns + width, y_stride, low_stride, up_stride, RANK, RANK)
        value = first * tl.sigmoid(first) * second
    else:
        value = _gelu(first)
    tl.store(out + tokens[:, None] * width + columns[None, :], value.to(out.dtype.element_ty))


@triton.jit
def activate_backward(
    y, low, up, grad, out, width, y_stride, low_stride, up_stride,
    GATED: tl.constexpr, RANK: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Backward: out, like y, from grad (T, width); grid as of `activate`."""
    tokens = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    first = _adapted(y, low, up, tokens, columns, y_stride, low_stride, up_stride, 0, RANK)
    g = tl.load(grad + tokens[:, None] * width + columns[None, :]).to(tl.float32)
    at = out + tokens[:, None] * y_stride + columns[None, :]
    if GATED:
        second = _adapted(y, low, up, tokens, columns + width, y_stride, low_stride, up_stride, RANK, RANK)
        s = tl.sigmoid(first)
        tl.store(at, (g * second * s * (1.0 + first * (1.0 - s))).to(out.dtype.element_ty))
        tl.store(at + width, (g * first * s).to(out.dtype.element_ty))
    else:
        density = 0.3989422804014327 * tl.exp(-0.5 * first * first)
        slope = 0.5 * (1.0 + tl.math.erf(first * 0.7071067811865476)) + first * density
        tl.store(at, (g * slope).to(out.dtype.element_ty))
