"""Triton kernels of inference that see whole rows: residuals and norm, activation, and what fp8 products read.

One program holds one row of T. Where FP8, a row leaves in e4m3 with the float32 factor that gives it back, so that no
pass over device memory is spent on quantising alone.
"""

from __future__ import annotations

import triton
import triton.language as tl

from shelfwise.modeling.packed.kernels import _gelu

_SMALLEST = tl.constexpr(1e-12)
_LARGEST = tl.constexpr(448.0)  # finite e4m3
_LEAST = tl.constexpr(-1e30)  # below all logits, and finite, so that differences are


@triton.jit
def _put(value, out, factors, row, at, inside, width, FP8: tl.constexpr):
    """Store a whole row, quantised where FP8."""
    if FP8:
        factor = tl.maximum(tl.max(tl.abs(value.to(tl.float32)), 0), _SMALLEST) / _LARGEST
        tl.store(factors + row, factor)
        value = value.to(tl.float32) / factor
    tl.store(out + row * width + at, value.to(out.dtype.element_ty), mask=inside)


@triton.jit
def norm(
    x, first, second, weight, bias, out, factors, width, epsilon,
    DELTAS: tl.constexpr, CENTRED: tl.constexpr, FP8: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """x (T, width) += the first DELTAS of `first` and `second`, in place; out is its norm.

    CENTRED: LayerNorm (Ba et al. 2016); else RMSNorm (Zhang and Sennrich 2019). Grid (T,).
    """
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCK)
    inside = at < width
    here = row * width + at
    value = tl.load(x + here, mask=inside, other=0.0)
    if DELTAS > 0:
        total = value.to(tl.float32) + tl.load(first + here, mask=inside, other=0.0).to(tl.float32)
        if DELTAS > 1:
            total += tl.load(second + here, mask=inside, other=0.0).to(tl.float32)
        value = total.to(x.dtype.element_ty)
        tl.store(x + here, value, mask=inside)
    wide = value.to(tl.float32)
    scale = tl.load(weight + at, mask=inside, other=0.0).to(tl.float32)
    if CENTRED:
        wide = tl.where(inside, wide - tl.sum(wide, 0) / width, 0.0)
        normed = wide * tl.rsqrt(tl.sum(wide * wide, 0) / width + epsilon)
        normed = normed * scale + tl.load(bias + at, mask=inside, other=0.0).to(tl.float32)
    else:
        normed = wide * tl.rsqrt(tl.sum(wide * wide, 0) / width + epsilon)
        normed = normed.to(x.dtype.element_ty).to(tl.float32) * scale
    _put(normed.to(x.dtype.element_ty), out, factors, row, at, inside, width, FP8)


@triton.jit
def quantise(x, out, factors, width, BLOCK: tl.constexpr):
    """Rows of x (T, width) in fp8. Grid (T,)."""
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCK)
    inside = at < width
    _put(tl.load(x + row * width + at, mask=inside, other=0.0), out, factors, row, at, inside, width, True)


@triton.jit
def _activated(y, at, inside, WIDTH: tl.constexpr, GATED: tl.constexpr):
    first = tl.load(y + at, mask=inside, other=0.0).to(tl.float32)
    if GATED:
        second = tl.load(y + WIDTH + at, mask=inside, other=0.0).to(tl.float32)
        return first * tl.sigmoid(first) * second
    return _gelu(first)


@triton.jit
def activate_rows(
    y, out, factors, WIDTH: tl.constexpr, GATED: tl.constexpr, FP8: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """out (T, WIDTH): silu(gate) * up of y (T, 2 WIDTH) where GATED, else gelu of y (T, WIDTH). Grid (T,).

    A row is too wide to be held, so where FP8 it is read twice, the second time from the cache.
    """
    row = tl.program_id(0).to(tl.int64)
    given = y + row * WIDTH * (2 if GATED else 1)
    factor = 1.0
    if FP8:
        greatest = tl.zeros((BLOCK,), tl.float32)
        for start in range(0, WIDTH, BLOCK):
            at = start + tl.arange(0, BLOCK)
            greatest = tl.maximum(greatest, tl.abs(_activated(given, at, at < WIDTH, WIDTH, GATED)))
        factor = tl.maximum(tl.max(greatest, 0), _SMALLEST) / _LARGEST
        tl.store(factors + row, factor)
    for start in range(0, WIDTH, BLOCK):
        at = start + tl.arange(0, BLOCK)
        value = _activated(given, at, at < WIDTH, WIDTH, GATED) / factor
        tl.store(out + row * WIDTH + at, value.to(out.dtype.element_ty), mask=at < WIDTH)


@triton.jit
def log_sum(x, out, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    """out (T,): the logarithm of the sum of exponentials of each row of x (T, WIDTH), read once. Grid (T,).

    Each column of a block keeps its own greatest value and sum (Milakov and Gimelshein 2018).
    """
    row = tl.program_id(0).to(tl.int64)
    greatest = tl.full((BLOCK,), _LEAST, tl.float32)
    total = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, WIDTH, BLOCK):
        at = start + tl.arange(0, BLOCK)
        value = tl.load(x + row * WIDTH + at, mask=at < WIDTH, other=_LEAST).to(tl.float32)
        higher = tl.maximum(greatest, value)
        total = total * tl.exp(greatest - higher) + tl.exp(value - higher)
        greatest = higher
    most = tl.max(greatest, 0)
    tl.store(out + row, most + tl.log(tl.sum(total * tl.exp(greatest - most), 0)))
