"""Attention inside tiles, and of new tokens with kept ones: by Triton on a GPU and in plain torch elsewhere."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

# Query heads of one key and value head that a program of the backward pass takes one after the other. Falcon-7B has 71
# of them: in one program they would leave most of a GPU idle.
CHUNK = 9


def rotary_tables(inverse_frequencies: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """(length, HALF) cosines and sines in float32, of positions from 0."""
    angles = torch.outer(torch.arange(length, device=inverse_frequencies.device).float(), inverse_frequencies.float())
    return angles.cos(), angles.sin()


def supported(head_width: int, device: torch.device) -> bool:
    """Whether the kernels can do this head, here."""
    if device.type != "cuda" or head_width not in (32, 64, 128):
        return False
    try:
        import triton  # noqa: F401
    except ImportError:
        return False
    return True


def reference(qkv: Tensor, cos: Tensor, sin: Tensor, position: Tensor, end: Tensor, shape: list[int]) -> Tensor:
    """What `tile_attention` computes, in plain torch; any device, any dtype, differentiable."""
    heads, kv_heads, width, tile = shape
    tiles = qkv.shape[0] // tile
    q, k, v = torch.split(qkv.view(tiles, tile, -1, width), [heads, kv_heads, kv_heads], dim=2)
    turn = (cos[position.long()].view(tiles, tile, 1, -1), sin[position.long()].view(tiles, tile, 1, -1))
    q, k, v = (t.transpose(1, 2) for t in (_turn(q, *turn), _turn(k, *turn), v))
    ends = end.view(tiles, 1, tile)
    order = torch.arange(tile, device=qkv.device)
    seen = (order[:, None] < ends) & (order[:, None] >= order[None, :])
    k, v = (t.repeat_interleave(heads // kv_heads, dim=1) for t in (k, v))
    out = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=seen[:, None])
    return out.transpose(1, 2).reshape(qkv.shape[0], heads * width)


def _turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    a, b = x.float().chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1).to(x.dtype)


@torch.library.custom_op("shelfwise::tile_attention", mutates_args=())
def tile_attention(qkv: Tensor, cos: Tensor, sin: Tensor, position: Tensor, end: Tensor, shape: list[int]) -> Tensor:
    """Causal attention of each token with those that it continues, itself among them.

    Args:
        qkv: (T, (H + 2 KV) * width): query heads, then key heads, then value heads.
        cos: (positions, width / 2) float32, and `sin` alike: `rotary_tables`.
        sin: see `cos`.
        position: (T,) int32, of each token in its rows.
        end: (T,) int32, see `tiles.Tiles`.
        shape: H, KV, width of a head, tokens a tile; T is a multiple of the last.

    Returns:
        (T, H * width) in the dtype of `qkv`.
    """
    from shelfwise.modeling.packed import kernels

    heads, kv_heads, width, tile = shape
    out = qkv.new_empty(qkv.shape[0], heads * width)
    kernels.attend[(qkv.shape[0] // tile, heads)](
        qkv, cos, sin, position, end, out, qkv.stride(0), out.stride(0), width**-0.5,
        H=heads, KV=kv_heads, HALF=width // 2, TILE=tile, **_launch(qkv, tile),
    )  # fmt: skip
    return out


@tile_attention.register_fake
def _(qkv: Tensor, cos: Tensor, sin: Tensor, position: Tensor, end: Tensor, shape: list[int]) -> Tensor:
    return qkv.new_empty(qkv.shape[0], shape[0] * shape[2])


@torch.library.custom_op("shelfwise::tile_attention_backward", mutates_args=())
def tile_attention_backward(
    grad: Tensor, qkv: Tensor, cos: Tensor, sin: Tensor, position: Tensor, end: Tensor, shape: list[int]
) -> Tensor:
    """(T, (H + 2 KV) * width): the gradient of `qkv` from (T, H * width), that of `tile_attention`'s result."""
    from shelfwise.modeling.packed import kernels

    heads, kv_heads, width, tile = shape
    tokens, group = qkv.shape[0], heads // kv_heads
    chunk = min(CHUNK, group)
    chunks = -(-group // chunk)
    grad, out = grad.contiguous(), torch.empty_like(qkv)
    partial = qkv.new_empty((chunks, tokens, kv_heads, 2 * width), dtype=torch.float32) if chunks > 1 else out
    kernels.attend_backward[(tokens // tile, kv_heads * chunks)](
        qkv, cos, sin, position, end, grad, out, partial, qkv.stride(0), grad.stride(0), tokens, width**-0.5,
        H=heads, KV=kv_heads, HALF=width // 2, TILE=tile, CHUNK=chunk, CHUNKS=chunks, **_launch(qkv, tile),
    )  # fmt: skip
    if chunks > 1:
        summed = partial.sum(0).view(tokens, kv_heads, 2, width).transpose(1, 2).flatten(1)
        out[:, heads * width :] = summed
    return out


@tile_attention_backward.register_fake
def _(grad: Tensor, qkv: Tensor, cos: Tensor, sin: Tensor, position: Tensor, end: Tensor, shape: list[int]) -> Tensor:
    return torch.empty_like(qkv)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.shape = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return tile_attention_backward(grad, *ctx.saved_tensors, ctx.shape), None, None, None, None, None


tile_attention.register_autograd(_backward, setup_context=_setup)


class Paths(NamedTuple):
    """P pieces of rows: some tokens are new, those before them were seen before."""

    slots: Tensor  # (P, L) int32 where the keys of a row's first tokens stand, the new ones' last; -1 behind them
    lengths: Tensor  # (P,) int32 tokens up to the last new one
    first: Tensor  # (P,) int32 where the new ones begin among all new ones; they follow each other
    new: Tensor  # (P,) int32 how many are new
    most_new: int  # of any path


def path_attention(
    qkv: Tensor, kept: Tensor, cos: Tensor, sin: Tensor, paths: Paths, shape: tuple[int, int, int], *, kernel: bool
) -> Tensor:
    """(T, H * width): attention of each new token with all tokens of its path up to itself. Not differentiable.

    Args:
        qkv: (T, (H + 2 KV) * width) as of `tile_attention`; the queries of new tokens are read.
        kept: (S, 2 KV * width) key heads, then value heads, before rotary embedding; those of new tokens too.
        cos: as of `tile_attention`; for as many positions as the longest path.
        sin: see `cos`.
        paths: where each token's path stands.
        shape: H, KV, width of a head.
        kernel: by Triton.
    """
    heads, kv_heads, width = shape
    if not kernel:
        return _path_reference(qkv, kept, cos, sin, paths, shape)
    from shelfwise.modeling.packed import kernels

    out = qkv.new_empty(qkv.shape[0], heads * width)
    keys, queries = (max(16, 1 << (most - 1).bit_length()) for most in (paths.slots.shape[1], paths.most_new))
    kernels.attend_paths[(len(paths.lengths), heads)](
        qkv, kept, cos, sin, *paths[:4], out, qkv.stride(0), kept.stride(0), paths.slots.stride(0), out.stride(0),
        width**-0.5, H=heads, KV=kv_heads, HALF=width // 2, QUERIES=queries, KEYS=keys,
        PRECISION=_precision(qkv), num_warps=4 if keys <= 64 else 8,
    )  # fmt: skip
    return out


def _path_reference(
    qkv: Tensor, kept: Tensor, cos: Tensor, sin: Tensor, paths: Paths, shape: tuple[int, int, int]
) -> Tensor:
    heads, kv_heads, width = shape
    count, longest = paths.slots.shape
    order = torch.arange(longest, device=qkv.device)
    mine = torch.arange(paths.most_new, device=qkv.device)
    at = (paths.lengths - paths.new)[:, None] + mine  # (P, M) positions
    valid = mine < paths.new[:, None]
    rows = torch.where(valid, paths.first[:, None] + mine, 0)
    at = torch.where(valid, at, 0)
    q = qkv[rows.long(), : heads * width].view(count, -1, heads, width)
    q = _turn(q, cos[at.long()][:, :, None], sin[at.long()][:, :, None])
    slots = torch.where(paths.slots < 0, paths.slots[:, :1], paths.slots)  # what is unseen has to be finite
    k, v = torch.split(kept[slots.long()].view(count, longest, -1, width), kv_heads, dim=2)
    k = _turn(k, cos[:longest, None], sin[:longest, None])
    q, k, v = (t.transpose(1, 2) for t in (q, k, v))
    k, v = (t.repeat_interleave(heads // kv_heads, dim=1) for t in (k, v))
    seen = order <= at[:, :, None]
    found = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=seen[:, None])
    return found.transpose(1, 2).reshape(count, -1, heads * width)[valid]


def _launch(qkv: Tensor, tile: int) -> dict[str, Any]:
    """As many warps as a tile keeps busy."""
    return {"PRECISION": _precision(qkv), "num_warps": 4 if tile <= 64 else 8}


def _precision(qkv: Tensor) -> str:
    """Float32 products in full precision, for tests."""
    return "ieee" if qkv.dtype == torch.float32 else "tf32"
