"""Attention inside tiles, and of new tokens with kept ones: by Triton on a GPU and in plain torch elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

# Query heads of one key and value head that a program of the backward pass takes one after the other. Falcon-7B has 71
# of them: in one program they would leave most of a GPU idle.
CHUNK = 9
_ROWS = 16  # of a tensor core's product
_KEYS = 32  # of a path at once
_PATH_WARPS = 1


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
    return plain(cos, sin, position, end, shape)(qkv)


def plain(cos: Tensor, sin: Tensor, position: Tensor, end: Tensor, shape: list[int]) -> Callable[[Tensor], Tensor]:
    """`reference` for all layers of a batch: what depends on where tokens stand alone is computed once.

    Args:
        cos: as of `tile_attention`, and all that follow.
        sin: see `cos`.
        position: see `cos`.
        end: see `cos`.
        shape: see `cos`.

    Returns:
        From `qkv` to (T, H * width).
    """
    heads, kv_heads, width, tile = shape
    tiles, group = len(position) // tile, heads // kv_heads
    turn = _tables(cos[position.long(), None], sin[position.long(), None])
    order = torch.arange(tile, device=position.device)
    ends = end.view(tiles, 1, tile)
    seen = (order[:, None] < ends) & (order[:, None] >= order[None, :])
    # Query heads that share keys stand one below the other.
    hidden = torch.where(seen, 0.0, float("-inf"))[:, None].repeat(1, 1, group, 1)

    def attend(qkv: Tensor) -> Tensor:
        turned, v = torch.split(qkv.view(len(qkv), -1, width), [heads + kv_heads, kv_heads], dim=1)
        q, k = torch.split(_turned(turned, *turn), [heads, kv_heads], dim=1)
        q = q.view(tiles, tile, kv_heads, group, width).permute(0, 2, 3, 1, 4).flatten(2, 3)
        k, v = (t.view(tiles, tile, kv_heads, width).transpose(1, 2) for t in (k, v))
        out = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=hidden.to(q.dtype))
        out = out.view(tiles, kv_heads, group, tile, width).permute(0, 3, 1, 2, 4)
        return out.reshape(len(qkv), heads * width)

    return attend


def _tables(cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and signed sines over the whole width, from those over its half."""
    return torch.cat([cos, cos], dim=-1), torch.cat([-sin, sin], dim=-1)


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding in float32 inside, by `_tables`."""
    wide = x.float()
    return torch.addcmul(wide * cos, wide.roll(x.shape[-1] // 2, -1), sin).to(x.dtype)


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


def keep(
    qkv: Tensor, kept: Tensor, slots: Tensor, position: Tensor, cos: Tensor, sin: Tensor, shape: tuple[int, int, int],
    *, kernel: bool,
) -> None:  # fmt: skip
    """Put what later tokens see of each token into its slot: its keys, after rotary embedding, and its values.

    Args:
        qkv: (T, (H + 2 KV) * width) as of `tile_attention`.
        kept: (S, 2 KV * width) key heads, then value heads; written to.
        slots: (T,) int64, each another.
        position: (T,) int32, of each token in its row.
        cos: as of `tile_attention`.
        sin: see `cos`.
        shape: H, KV, width of a head.
        kernel: by Triton.
    """
    heads, kv_heads, width = shape
    if not kernel:
        k, v = torch.split(qkv[:, heads * width :].view(len(qkv), -1, width), kv_heads, dim=1)
        k = _turned(k, *_tables(cos[position.long(), None], sin[position.long(), None]))
        kept.index_copy_(0, slots, torch.cat([k, v], dim=1).flatten(1))
        return
    from shelfwise.modeling.packed import kernels

    kernels.keep[(len(qkv),)](
        qkv, kept, slots, position, cos, sin, qkv.stride(0), kept.stride(0),
        H=heads, KV=kv_heads, HALF=width // 2, HEADS=power(kv_heads),
    )  # fmt: skip


def path_attention(
    qkv: Tensor, kept: Tensor, cos: Tensor, sin: Tensor, paths: Paths, shape: tuple[int, int, int], *, kernel: bool
) -> Tensor:
    """(T, H * width): attention of each new token with all tokens of its path up to itself. Not differentiable.

    Args:
        qkv: (T, (H + 2 KV) * width) as of `tile_attention`; the queries of new tokens are read.
        kept: (S, 2 KV * width) what `keep` put there, of new tokens too.
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
    group, queries = heads // kv_heads, power(paths.most_new)
    # A tensor core takes 16 rows at once: tokens of one head, or of several that share their keys.
    together = max(1, min(power(group), _ROWS // queries))
    queries = max(queries, _ROWS // together)
    kernels.attend_paths[(len(paths.lengths), kv_heads * -(-group // together))](
        qkv, kept, cos, sin, *paths[:4], out, qkv.stride(0), kept.stride(0), paths.slots.stride(0), out.stride(0),
        width**-0.5, H=heads, KV=kv_heads, HALF=width // 2, HEADS=together, QUERIES=queries, KEYS=_KEYS,
        PRECISION=_precision(qkv), num_warps=_PATH_WARPS,
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
    q = _turned(q, *_tables(cos[at.long()][:, :, None], sin[at.long()][:, :, None]))
    slots = torch.where(paths.slots < 0, paths.slots[:, :1], paths.slots)  # what is unseen has to be finite
    k, v = torch.split(kept[slots.long()].view(count, longest, -1, width), kv_heads, dim=2)
    q, k, v = (t.transpose(1, 2) for t in (q, k, v))
    k, v = (t.repeat_interleave(heads // kv_heads, dim=1) for t in (k, v))
    seen = order <= at[:, :, None]
    found = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=seen[:, None])
    return found.transpose(1, 2).reshape(count, -1, heads * width)[valid]


def power(count: int) -> int:
    """The next power of 2."""
    return 1 << (count - 1).bit_length()


def _launch(qkv: Tensor, tile: int) -> dict[str, Any]:
    """As many warps as a tile keeps busy."""
    return {"PRECISION": _precision(qkv), "num_warps": 4 if tile <= 64 else 8}


def _precision(qkv: Tensor) -> str:
    """Float32 products in full precision, for tests."""
    return "ieee" if qkv.dtype == torch.float32 else "tf32"
