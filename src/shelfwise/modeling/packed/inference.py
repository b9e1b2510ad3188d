"""Answers of a packed model: no padding, no compiler, few launches, and CUDA graphs where batches are small."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from shelfwise.modeling.packed.forward import batches, in_tiles, stack, tokens_at_once
from shelfwise.modeling.packed.model import PackedModel
from shelfwise.modeling.packed.recorded import ROWS_A_TILE, Recorded
from shelfwise.modeling.packed.tiles import TILE_LENGTHS, Row, Tiles, lay

# Tiles of a recorded batch. Larger batches keep the GPU busy for longer than their launches take.
RECORDED = (1, 2, 3, 4, 6, 8, 12, 16)


@dataclass(frozen=True, slots=True)
class Inference:
    """A decoder stack with a classification head, for answers alone. Holds no weights of its own."""

    packed: PackedModel
    head: nn.Module
    pad_token_id: int
    classes: int
    recorded: dict[int, Recorded] = field(default_factory=dict, compare=False)
    turn: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)  # with what is recorded

    @classmethod
    def of(cls, model: nn.Module, *, dtype: torch.dtype, fp8: bool = False) -> Inference | None:
        """Around a model with a classification head; None where its layers are none of ours.

        Args:
            model: a transformers model, best with its adapters merged, on its device. Its weights are frozen, cast to
                ``dtype`` or rounded to fp8, and moved; transformers can no longer run it where they are in fp8.
            dtype: of the arithmetic.
            fp8: products in fp8 (e4m3), weights with a scale for each output, inputs with one for each row.
        """
        model.requires_grad_(False)
        packed = PackedModel.of(model, TILE_LENGTHS[-1], dtype=dtype, fp8=fp8, backward=False, compiled=False)
        if packed is None or not hasattr(packed.model, "score"):
            return None
        config: Any = packed.model.config
        return cls(packed, packed.model.score, config.pad_token_id, config.num_labels)  # type: ignore[arg-type]

    @property
    def longest(self) -> int:
        """Tokens of the longest row that can be answered."""
        return TILE_LENGTHS[-1]

    def log_probs(self, rows: Sequence[Sequence[int]], scale: int = 0) -> Tensor:
        """(N, C) float32 log-probabilities: few rows' on the CPU, others' on the model's device, unawaited.

        Args:
            rows: token ids of N rows, none longer than `longest`.
            scale: batches are halved so many times, for memories that are short.
        """
        device = self.packed.cos.device
        with torch.inference_mode(), torch.autocast(device.type, enabled=False):
            few = None if scale else self._of_few(rows)
            if few is not None:
                return few
            scores = torch.empty(len(rows), self.classes, device=device)
            for batch in batches(rows, _last(rows), self.pad_token_id, tokens_at_once(self.packed, scale)):
                found = batch.to(device)
                scores[found.kept] = self._forward(found.tiles, found.tile)
        return scores

    def warm(self) -> None:
        """Record a batch of each size, and run those that are too large for it: what first requests would wait for.

        Recording takes 0.1 s, and empties the memory that is kept for later, while others wait: so each hold-up would
        lead to larger batches, and these to the next one. On a CPU there is nothing to do.
        """
        if self.packed.cos.device.type != "cuda":
            return
        for size in RECORDED:
            self.log_probs(_filling(size, TILE_LENGTHS[0]))
        for tile in TILE_LENGTHS:
            self.log_probs(_filling(RECORDED[-1] + 1, tile)).cpu()

    def is_smallest(self, scale: int) -> bool:
        """Whether batches that were halved so many times can't be halved again."""
        return tokens_at_once(self.packed, scale) <= self.longest

    def _of_few(self, rows: Sequence[Sequence[int]]) -> Tensor | None:
        """(N, C) on the CPU, by what is recorded; None where rows are too many or too long for it."""
        tile = TILE_LENGTHS[0]
        if self.packed.cos.device.type == "cuda" and not self.packed.kernel:  # torch's own ways can't all be recorded
            return None
        if not 0 < len(rows) <= RECORDED[-1] * ROWS_A_TILE or max(map(len, rows)) > tile:
            return None
        laid = lay(rows, _last(rows), tile, self.pad_token_id)
        tiles = len(laid.ids) // tile
        # What is recorded comes in a few sizes; a CPU, which records nothing, has no use for empty tiles.
        sizes = RECORDED if self.packed.cos.device.type == "cuda" else range(1, RECORDED[-1] + 1)
        size = next((size for size in sizes if size >= tiles and size * ROWS_A_TILE >= len(rows)), None)
        if size is None:
            return None
        with self.turn:
            if size not in self.recorded:
                forward = partial(self._forward, tile=tile)
                self.recorded[size] = Recorded(size, tile, self.pad_token_id, self.packed.cos.device, forward)
            return self.recorded[size].answer(laid)

    def _forward(self, tiles: Tiles, tile: int) -> Tensor:
        """(K, C) log-probabilities."""
        hidden = stack(self.packed, tiles.ids, in_tiles(self.packed, tiles, tile), tiles.keep)
        return torch.log_softmax(_head(self.head, hidden), dim=-1)


def _last(rows: Sequence[Row]) -> list[tuple[int, int]]:
    """Each row's last token."""
    return [(len(row) - 1, len(row)) for row in rows]


def _filling(tiles: int, tile: int) -> list[list[int]]:
    """Rows that fill so many tiles: each is whole, and no two begin alike."""
    return [[token] * tile for token in range(tiles)]


def _head(head: Any, hidden: Tensor) -> Tensor:
    """Logits in float32: the head is small, and its last bits decide between neighbours."""
    return torch.nn.functional.linear(hidden.float(), head.weight.float())
