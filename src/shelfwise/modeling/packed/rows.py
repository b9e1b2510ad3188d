"""What inference does between matrix products: each step in one pass over its rows, by Triton or in plain torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from shelfwise.modeling.packed import layers
from shelfwise.modeling.packed.attention import power
from shelfwise.modeling.packed.layers import Map
from shelfwise.modeling.packed.linear import FP8, Fp8, Frozen, apply, fp8_product, to_fp8

_BLOCK = 2048  # columns at once of rows that are too wide to be held


class Norm(NamedTuple):
    """A norm's parameters; with a bias it is LayerNorm, else RMSNorm."""

    weight: Tensor
    bias: Tensor | None
    epsilon: float


class Rows(NamedTuple):
    """(T, width) rows; in fp8 with (T, 1) factors that give them back."""

    values: Tensor
    factors: Tensor | None = None

    def at(self, keep: Tensor) -> Rows:
        """Those at some positions."""
        if self.factors is None:
            return Rows(self.values[keep])
        return Rows(self.values.view(torch.uint8)[keep].view(FP8), self.factors[keep])


def normed(x: Tensor, deltas: Sequence[Tensor], norm: Norm, *, fp8: bool, kernel: bool) -> tuple[Tensor, Rows]:
    """The residual stream with its deltas added (in place, where that saves memory), and its norm.

    Args:
        x: (T, hidden).
        deltas: none, one or two of the same shape.
        norm: what to compute.
        fp8: give the norm in fp8.
        kernel: by Triton.
    """
    if not kernel:
        for delta in deltas:
            x = x + delta
        plain = (
            layers.rms_norm(x, norm.weight, norm.epsilon)
            if norm.bias is None
            else layers.layer_norm(x, norm.weight, norm.bias, norm.epsilon)
        )
        return x, quantised(Rows(plain), kernel=False) if fp8 else Rows(plain)
    from shelfwise.modeling.packed import row_kernels

    tokens, width = x.shape
    out = _room(tokens, width, x, fp8)
    first, second = (*deltas, x, x)[:2]
    row_kernels.norm[(tokens,)](
        x, first, second, norm.weight, norm.weight if norm.bias is None else norm.bias, out.values,
        out.factors if fp8 else x, width, norm.epsilon,
        DELTAS=len(deltas), CENTRED=norm.bias is not None, FP8=fp8, BLOCK=power(width), num_warps=8,
    )  # fmt: skip
    return x, out


def activated(y: Tensor, *, gated: bool, fp8: bool, kernel: bool) -> Rows:
    """(T, intermediate): silu(gate) * up where `gated` (SwiGLU, Shazeer 2020), else gelu(up)."""
    width = y.shape[1] // (2 if gated else 1)
    if not kernel:
        plain = F.silu(y[:, :width]) * y[:, width:] if gated else F.gelu(y)
        return quantised(Rows(plain), kernel=False) if fp8 else Rows(plain)
    from shelfwise.modeling.packed import row_kernels

    out = _room(len(y), width, y, fp8)
    row_kernels.activate_rows[(len(y),)](
        y, out.values, out.factors if fp8 else y, WIDTH=width, GATED=gated, FP8=fp8, BLOCK=_BLOCK, num_warps=8
    )
    return out


def quantised(rows: Rows, *, kernel: bool) -> Rows:
    """The rows in fp8."""
    if rows.factors is not None:
        return rows
    if not kernel:
        return Rows(*to_fp8(rows.values))
    from shelfwise.modeling.packed import row_kernels

    tokens, width = rows.values.shape
    out = _room(tokens, width, rows.values, fp8=True)
    row_kernels.quantise[(tokens,)](rows.values, out.values, out.factors, width, BLOCK=power(width), num_warps=8)
    return out


def log_sums(logits: Tensor, *, kernel: bool) -> Tensor:
    """(T,) float32 logarithms of the sums of exponentials of (T, width)."""
    if not kernel:
        return logits.float().logsumexp(1)
    from shelfwise.modeling.packed import row_kernels

    out = logits.new_empty(len(logits), dtype=torch.float32)
    row_kernels.log_sum[(len(logits),)](logits, out, WIDTH=logits.shape[1], BLOCK=_BLOCK, num_warps=8)
    return out


def multiplied(rows: Rows, weights: Map, *, kernel: bool) -> Tensor:
    """(T, out): the maps' outputs side by side, adapters added where they are not merged."""
    base, lora = weights
    if isinstance(base, Fp8) and not lora.down:
        values, factors = quantised(rows, kernel=kernel)
        assert factors is not None
        product: Tensor = fp8_product(values, factors, base.weight, base.scale, None, None)
        return product
    if isinstance(base, Frozen) and not lora.down:
        return F.linear(rows.values, base.weight)
    return apply(rows.values, base, lora)


def _room(tokens: int, width: int, like: Tensor, fp8: bool) -> Rows:
    if not fp8:
        return Rows(like.new_empty(tokens, width))
    return Rows(like.new_empty(tokens, width, dtype=FP8), like.new_empty(tokens, 1, dtype=torch.float32))
