"""Keys and values of tokens that later tokens see, so that no token passes through the model twice."""

from __future__ import annotations

import torch
from torch import Tensor

from shelfwise.modeling.packed.attention import Paths, keep, path_attention
from shelfwise.modeling.packed.forward import Attend, in_tiles
from shelfwise.modeling.packed.model import PackedModel
from shelfwise.modeling.packed.tiles import Tiles


class Kept:
    """Keys and values by slot, in each layer. The first slots are scratch: what a batch writes there, the next may."""

    def __init__(self, packed: PackedModel, scratch: int, slots: int) -> None:
        """Make room.

        Args:
            packed: the model.
            scratch: slots of no lasting use.
            slots: others, to begin with; there will be more as they are needed.
        """
        _, kv_heads, width = packed.heads
        self._packed = packed
        self._layers = [
            torch.empty(scratch + slots, 2 * kv_heads * width, dtype=packed.dtype, device=packed.cos.device)
            for _ in packed.calm
        ]
        self._used = scratch

    def room(self, slots: int) -> int:
        """The first of so many new slots, side by side. What is kept may move, so nobody holds on to it."""
        first, self._used = self._used, self._used + slots
        there = len(self._layers[0])
        if self._used > there:
            for i, layer in enumerate(self._layers):
                self._layers[i] = layer.new_empty(max(self._used, there + there // 2), layer.shape[1])
                self._layers[i][:first] = layer[:first]
        return first

    def in_tiles(self, tiles: Tiles, tile: int, first: int) -> Attend:
        """Attention inside tiles; the keys and values of all their tokens are kept from slot ``first`` on."""
        attend = in_tiles(self._packed, tiles, tile)
        slots = torch.arange(first, first + len(tiles.ids), device=tiles.ids.device)

        def kept(layer: int, qkv: Tensor) -> Tensor:
            self._keep(layer, qkv, slots, tiles.position)
            return attend(layer, qkv)

        return kept

    def in_paths(self, paths: Paths, slots: Tensor, position: Tensor) -> Attend:
        """Attention of new tokens with their paths.

        Args:
            paths: where they stand.
            slots: (T,) int64, where they are kept.
            position: (T,) int32, in their rows.
        """
        packed = self._packed

        def kept(layer: int, qkv: Tensor) -> Tensor:
            there = self._keep(layer, qkv, slots, position)
            return path_attention(qkv, there, packed.cos, packed.sin, paths, packed.heads, kernel=packed.kernel)

        return kept

    def _keep(self, layer: int, qkv: Tensor, slots: Tensor, position: Tensor) -> Tensor:
        packed, there = self._packed, self._layers[layer]
        keep(qkv, there, slots, position, packed.cos, packed.sin, packed.heads, kernel=packed.kernel)
        return there
