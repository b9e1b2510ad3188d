"""Linear maps with LoRA on top, over frozen weights in bf16, fp8 or NF4, and over weights that are trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

FP8 = torch.float8_e4m3fn


class Trained(NamedTuple):
    """Weights that read one input side by side, each (out, in), trained in full."""

    weights: tuple[Tensor, ...]


class Frozen(NamedTuple):
    """One frozen weight (out, in), of one map or of several that read the same input."""

    weight: Tensor


class Fp8(NamedTuple):
    """A frozen weight in fp8 (e4m3), twice: a scale for each output, and transposed with a scale for each input.

    The product of the backward pass sums over outputs, so it needs scales that don't vary among them. Both are empty
    where there is no backward pass.
    """

    weight: Tensor  # (out, in)
    scale: Tensor  # (1, out) float32
    turned: Tensor  # (in, out)
    turned_scale: Tensor  # (1, in) float32

    @classmethod
    def of(cls, weight: Tensor, *, backward: bool = True) -> Fp8:
        """Quantise (out, in)."""
        forward, scale = to_fp8(weight)
        if not backward:
            return cls(forward, scale.t().contiguous(), forward.new_empty(0), scale.new_empty(0))
        turned, turned_scale = to_fp8(weight.t().contiguous())
        return cls(forward, scale.t().contiguous(), turned, turned_scale.t().contiguous())


class Nf4(NamedTuple):
    """A frozen weight in bitsandbytes' NF4, dequantised at each use."""

    packed: Tensor  # two weights a byte
    absmax: Tensor  # float32, one a block; the second quantisation is undone once, for 0.06 bytes a weight
    out: int
    width: int
    blocksize: int


class Lora(NamedTuple):
    """Low-rank adapters (Hu et al. 2021) of the maps of one input; empty where nothing is adapted."""

    down: tuple[Tensor, ...]  # A: (r, in) each
    up: tuple[Tensor, ...]  # B: (out, r) each
    scale: float
    dropout: float


NONE = Lora((), (), 0.0, 0.0)
Base = Trained | Frozen | Fp8 | Nf4


def apply(x: Tensor, base: Base, lora: Lora) -> Tensor:
    """(T, out) of (T, in): the maps' outputs side by side, adapters added."""
    if isinstance(base, Trained):
        outputs = [F.linear(x, weight.to(x.dtype)) for weight in base.weights]
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=-1)
    if not lora.down:
        return _Adapted.apply(x, None, None, None, 0.0, kind_of(base), *base)  # type: ignore[no-any-return, no-untyped-call]
    down, up = torch.cat(lora.down).to(x.dtype), side_by_side(lora.up).to(x.dtype)
    if not lora.dropout:
        return _Adapted.apply(x, None, down, up, lora.scale, kind_of(base), *base)  # type: ignore[no-any-return, no-untyped-call]
    low = F.linear(F.dropout(x, lora.dropout), down) * lora.scale
    return _Adapted.apply(x, low, None, up, 1.0, kind_of(base), *base)  # type: ignore[no-any-return, no-untyped-call]


_KINDS: tuple[Any, ...] = (Frozen, Fp8, Nf4)


def kind_of(base: Base) -> int:
    """A number for the kind of a frozen base: autograd takes its tensors one by one."""
    return _KINDS.index(type(base))


def base_of(kind: int, parts: Sequence[Any]) -> Frozen | Fp8 | Nf4:
    """The base of a kind from its parts."""
    base: Frozen | Fp8 | Nf4 = _KINDS[kind](*parts)
    return base


def side_by_side(ups: tuple[Tensor, ...]) -> Tensor:
    """The up-projections as one block-diagonal matrix: (sum of outs, sum of ranks)."""
    if len(ups) == 1:
        return ups[0]
    together: Tensor = torch.block_diag(*ups)  # type: ignore[no-untyped-call]
    return together


class _Adapted(torch.autograd.Function):
    """A frozen product with a low-rank one added in place: two products, and no copy of the wide output.

    Written as a function of its own because the compiler turns `addmm` into a copy and a product, a tenth of the
    time of LLaMA2-7B's layer (docs/lab-notes.md).
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, low: Tensor | None, down: Tensor | None, up: Tensor | None, scale: float, kind: int,
        *base: Any,
    ) -> Tensor:  # fmt: skip
        given = low is not None
        if down is not None:
            low = F.linear(x, down) * scale
        tensors = [t for t in base if isinstance(t, Tensor)]
        ctx.save_for_backward(x if down is not None else None, low, down, up, *tensors)
        ctx.scale, ctx.kind, ctx.given = scale, kind, given
        ctx.rest = [t for t in base if not isinstance(t, Tensor)]
        return product_of(x, base_of(kind, base), low, up.t() if up is not None else None, turned=False)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, low, down, up, *tensors = ctx.saved_tensors
        base = base_of(ctx.kind, [*tensors, *ctx.rest])
        grad_low = grad @ up if up is not None else None
        grad_down = grad_x_low = None
        if down is not None:
            grad_x_low = grad_low * ctx.scale
            grad_down = grad_x_low.t() @ x
        grad_up = grad.t() @ low if up is not None else None
        grad_x = product_of(grad, base, grad_x_low, down, turned=True)
        return grad_x, grad_low if ctx.given else None, grad_down, grad_up, *([None] * (2 + len(base)))


def product_of(x: Tensor, base: Frozen | Fp8 | Nf4, low: Tensor | None, up: Tensor | None, *, turned: bool) -> Tensor:
    """(T, out) = x times the base weight (turned: its transpose, for gradients), plus low times up."""
    if isinstance(base, Fp8):
        rows, factors = to_fp8(x)
        weight, scale = (base.turned, base.turned_scale) if turned else (base.weight, base.scale)
        y: Tensor = fp8_product(rows, factors, weight, scale, low, up)
    elif isinstance(base, Nf4):
        y = nf4_product(x, *base, turned, low, up)
    else:
        y = product(x, base.weight if turned else base.weight.t(), low, up)
    return y


@torch.library.custom_op("shelfwise::product", mutates_args=())
def product(x: Tensor, weight: Tensor, low: Tensor | None, up: Tensor | None) -> Tensor:
    """(T, out): x (T, in) times weight (in, out), plus low (T, r) times up (r, out), in place."""
    y = x @ weight
    return y.addmm_(low, up) if low is not None and up is not None else y


@product.register_fake
def _(x: Tensor, weight: Tensor, low: Tensor | None, up: Tensor | None) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[1])


@torch.library.custom_op("shelfwise::fp8_product", mutates_args=())
def fp8_product(
    rows: Tensor, factors: Tensor, weight: Tensor, scale: Tensor, low: Tensor | None, up: Tensor | None
) -> Tensor:
    """(T, out) in bf16: rows (T, in) and weight (out, in) in fp8 with their scales, plus low times up, in place."""
    y: Tensor = torch._scaled_mm(
        rows, weight.t(), scale_a=factors, scale_b=scale, out_dtype=torch.bfloat16, use_fast_accum=True
    )
    if low is not None and up is not None:
        y.addmm_(low, up)
    return y


@fp8_product.register_fake
def _(rows: Tensor, factors: Tensor, weight: Tensor, scale: Tensor, low: Tensor | None, up: Tensor | None) -> Tensor:
    return rows.new_empty((rows.shape[0], weight.shape[0]), dtype=torch.bfloat16)


@torch.library.custom_op("shelfwise::nf4_product", mutates_args=())
def nf4_product(
    x: Tensor, packed: Tensor, absmax: Tensor, out: int, width: int, blocksize: int, turned: bool,
    low: Tensor | None, up: Tensor | None,
) -> Tensor:  # fmt: skip
    """`product` with a weight in four bits, (out, width), or its transpose.

    One operator, for the compiler would keep the weight that it sees dequantised in the forward pass for the backward
    one: 11.8 GiB for LLaMA2-7B (docs/lab-notes.md).
    """
    weight: Tensor = torch.ops.bitsandbytes.dequantize_4bit(packed, absmax, blocksize, "nf4", [out, width], x.dtype)
    y = x @ (weight if turned else weight.t())
    if low is not None and up is not None:
        y.addmm_(low, up)
    return y


@nf4_product.register_fake
def _(
    x: Tensor, packed: Tensor, absmax: Tensor, out: int, width: int, blocksize: int, turned: bool,
    low: Tensor | None, up: Tensor | None,
) -> Tensor:  # fmt: skip
    return x.new_empty(x.shape[0], width if turned else out)


def to_fp8(x: Tensor) -> tuple[Tensor, Tensor]:
    """Rows (..., K) in fp8, and the (..., 1) float32 factors that give them back."""
    # 448 is the largest finite e4m3. Written out: a name for it is a symbol to the compiler, where shapes are, and it
    # loses track of those inside an autograd function (torch 2.11 and 2.13).
    scale = x.abs().amax(-1, keepdim=True).float().clamp(min=1e-12) / 448.0
    return (x.float() / scale).to(FP8), scale
