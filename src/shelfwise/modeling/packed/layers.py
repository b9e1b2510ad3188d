"""One decoder layer of LLaMA and of Falcon over tokens laid into tiles: what transformers computes, and no more."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from shelfwise.modeling.packed import attention
from shelfwise.modeling.packed.activation import activated
from shelfwise.modeling.packed.linear import Base, Lora, apply


class Place(NamedTuple):
    """Where the tokens stand, and how heads are cut."""

    cos: Tensor
    sin: Tensor
    position: Tensor  # (T,) int32
    end: Tensor  # (T,) int32
    shape: list[int]  # H, KV, width of a head, tokens a tile
    kernel: bool  # Triton's kernels, or plain torch


class Map(NamedTuple):
    """Linear maps of one input, and their adapters."""

    base: Base
    lora: Lora


class LlamaWeights(NamedTuple):
    """One layer of LLaMA: RMSNorm, rotary attention, SwiGLU."""

    attention_norm: Tensor
    mlp_norm: Tensor
    qkv: Map
    out: Map
    gate_up: Map
    down: Map


class FalconWeights(NamedTuple):
    """One layer of Falcon-7B: one LayerNorm, then multi-query attention and MLP in parallel."""

    norm: Tensor
    norm_bias: Tensor
    qkv: Map
    out: Map
    up: Map
    down: Map


def llama(x: Tensor, weights: LlamaWeights, place: Place, epsilon: float, keep: Tensor | None = None) -> Tensor:
    """One layer, (T, hidden) to (T, hidden).

    Args:
        x: what the layer below gives, tiles of tokens one after the other.
        weights: of the layer.
        place: of the tokens.
        epsilon: of the norms.
        keep: (N,) positions; the last layer gives these alone, (N, hidden), and computes no MLP for the others.
    """
    attended = _attend(apply(rms_norm(x, weights.attention_norm, epsilon), *weights.qkv), place)
    if keep is not None:
        x, attended = x[keep], attended[keep]
    x = x + apply(attended, *weights.out)
    wide = activated(rms_norm(x, weights.mlp_norm, epsilon), *weights.gate_up, gated=True, kernel=place.kernel)
    return x + apply(wide, *weights.down)


def falcon(x: Tensor, weights: FalconWeights, place: Place, epsilon: float, keep: Tensor | None = None) -> Tensor:
    """One layer; arguments as of `llama`."""
    normed = layer_norm(x, weights.norm, weights.norm_bias, epsilon)
    attended = _attend(apply(normed, *weights.qkv), place)
    if keep is not None:
        x, normed, attended = x[keep], normed[keep], attended[keep]
    wide = activated(normed, *weights.up, gated=False, kernel=place.kernel)
    return x + apply(attended, *weights.out) + apply(wide, *weights.down)


def _attend(qkv: Tensor, place: Place) -> Tensor:
    compute = attention.tile_attention if place.kernel else attention.reference
    return compute(qkv, place.cos, place.sin, place.position, place.end, place.shape)


def rms_norm(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """RMSNorm (Zhang and Sennrich 2019), in float32 inside."""
    wide = x.float()
    return weight.to(x.dtype) * (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + epsilon)).to(x.dtype)


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, epsilon: float) -> Tensor:
    """LayerNorm (Ba et al. 2016), in float32 inside."""
    return F.layer_norm(x.float(), (x.shape[-1],), weight.float(), bias.float(), epsilon).to(x.dtype)
