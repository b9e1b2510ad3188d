"""The widest part of a layer: the maps into the MLP, their adapters and the activation, without a pass between them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from shelfwise.modeling.packed.linear import Base, Lora, Trained, apply, base_of, kind_of, product_of, side_by_side

ROWS, COLUMNS = 32, 64  # of a program's block


def activated(x: Tensor, base: Base, lora: Lora, *, gated: bool, kernel: bool) -> Tensor:
    """(T, intermediate) of (T, hidden): silu(gate) * up where `gated` (SwiGLU, Shazeer 2020), else gelu(up)."""
    if not kernel or not _fused(lora):
        y = apply(x, base, lora)
        if not gated:
            return F.gelu(y)
        gate, up = y.chunk(2, dim=-1)
        return F.silu(gate) * up
    down, up = torch.cat(lora.down).to(x.dtype), side_by_side(lora.up).to(x.dtype)
    assert not isinstance(base, Trained)  # adapters stand on frozen weights
    return _Activated.apply(x, down, up, lora.scale, gated, kind_of(base), *base)  # type: ignore[no-any-return, no-untyped-call]


def _fused(lora: Lora) -> bool:
    """Whether the kernel takes these adapters: ranks that fill a tensor core, and no dropout before them."""
    if not lora.down or lora.dropout:
        return False
    rank = lora.down[0].shape[0]
    return rank in (16, 32, 64) and lora.up[0].shape[0] % COLUMNS == 0


class _Activated(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, down: Tensor, up: Tensor, scale: float, gated: bool, kind: int, *base: Any
    ) -> Tensor:
        low = F.linear(x, down) * scale
        y = product_of(x, base_of(kind, base), None, None, turned=False)
        ctx.save_for_backward(x, low, down, up, y, *(t for t in base if isinstance(t, Tensor)))
        ctx.rest = [t for t in base if not isinstance(t, Tensor)]
        ctx.scale, ctx.gated, ctx.kind = scale, gated, kind
        activated: Tensor = activate(y, low, up, gated)
        return activated

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, low, down, up, y, *tensors = ctx.saved_tensors
        base = base_of(ctx.kind, [*tensors, *ctx.rest])
        wide = activate_backward(y, low, up, grad, ctx.gated)
        grad_low = (wide @ up) * ctx.scale
        grad_x = product_of(wide, base, grad_low, down, turned=True)
        return grad_x, grad_low.t() @ x, wide.t() @ low, *([None] * (3 + len(base)))


@torch.library.custom_op("shelfwise::activate", mutates_args=())
def activate(y: Tensor, low: Tensor, up: Tensor, gated: bool) -> Tensor:
    """(T, width) from y (T, 2 width or width) plus low (T, ranks) times up (2 width or width, ranks)."""
    from shelfwise.modeling.packed import kernels

    width = y.shape[1] // (2 if gated else 1)
    out = y.new_empty(y.shape[0], width)
    kernels.activate[(y.shape[0] // ROWS, width // COLUMNS)](
        y, low, up, out, width, y.stride(0), low.stride(0), up.stride(0),
        GATED=gated, RANK=low.shape[1] // (2 if gated else 1), ROWS=ROWS, COLUMNS=COLUMNS,
    )  # fmt: skip
    return out


@activate.register_fake
def _(y: Tensor, low: Tensor, up: Tensor, gated: bool) -> Tensor:
    return y.new_empty(y.shape[0], y.shape[1] // (2 if gated else 1))


@torch.library.custom_op("shelfwise::activate_backward", mutates_args=())
def activate_backward(y: Tensor, low: Tensor, up: Tensor, grad: Tensor, gated: bool) -> Tensor:
    """The gradient of y, (T, 2 width or width), from that of `activate`'s result, (T, width)."""
    from shelfwise.modeling.packed import kernels

    out, grad = torch.empty_like(y), grad.contiguous()
    kernels.activate_backward[(y.shape[0] // ROWS, grad.shape[1] // COLUMNS)](
        y, low, up, grad, out, grad.shape[1], y.stride(0), low.stride(0), up.stride(0),
        GATED=gated, RANK=low.shape[1] // (2 if gated else 1), ROWS=ROWS, COLUMNS=COLUMNS,
    )  # fmt: skip
    return out


@activate_backward.register_fake
def _(y: Tensor, low: Tensor, up: Tensor, grad: Tensor, gated: bool) -> Tensor:
    return torch.empty_like(y)
