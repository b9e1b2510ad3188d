"""Answers of a packed model: no padding, no compiler, few launches, and CUDA graphs where batches are small."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from shelfwise.modeling.packed import attention
from shelfwise.modeling.packed.layers import FalconWeights, LlamaWeights
from shelfwise.modeling.packed.linear import Fp8
from shelfwise.modeling.packed.model import PackedModel
from shelfwise.modeling.packed.recorded import ROWS_A_TILE, Recorded
from shelfwise.modeling.packed.rows import Norm, Rows, activated, multiplied, normed
from shelfwise.modeling.packed.tiles import TILE_LENGTHS, Tiles, lay

# Tokens at once. A GPU's products are at full speed from about 8k on; a CPU's caches like less (docs/lab-notes.md).
TOKENS = {"cuda": 8_192, "cpu": 1_024}
# Tiles of a recorded batch. Larger batches keep the GPU busy for longer than their launches take.
RECORDED = (1, 2, 3, 4, 6, 8, 12, 16)


@dataclass(frozen=True, slots=True)
class _Batch:
    """The tiles of some rows, on the CPU. T tokens, K rows."""

    tiles: Tiles
    rows: Tensor  # (K,) int64, which rows these are of all

    def to(self, device: torch.device) -> _Batch:
        if device.type == "cuda":
            return _Batch(self.tiles.to(device), self.rows.pin_memory().to(device, non_blocking=True))
        return self


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
            for tile in TILE_LENGTHS:
                of_tile = [i for i, row in enumerate(rows) if tile_of(row) == tile]
                for batch in self._batches([rows[i] for i in of_tile], of_tile, tile, scale):
                    found = batch.to(device)
                    scores[found.rows] = self._forward(found.tiles, tile)
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
        return self._tokens(scale) <= self.longest

    def _tokens(self, scale: int) -> int:
        return TOKENS.get(self.packed.cos.device.type, TOKENS["cpu"]) >> scale

    def _batches(self, rows: Sequence[Sequence[int]], names: Sequence[int], tile: int, scale: int) -> Iterator[_Batch]:
        """Lay all rows at once, where gaps are fewest, and cut between tiles."""
        if not rows:
            return
        whole = self._laid(rows, tile)
        of_row = torch.tensor(names)
        step = max(1, self._tokens(scale) // tile) * tile
        for start in range(0, len(whole.ids), step):
            cut = slice(start, start + step)
            here = (whole.keep >= start) & (whole.keep < start + step)
            batch = Tiles(whole.ids[cut], whole.position[cut], whole.end[cut], whole.keep[here] - start)
            yield _Batch(batch, of_row[here])

    def _laid(self, rows: Sequence[Sequence[int]], tile: int) -> Tiles:
        return lay(rows, [(len(row) - 1, len(row)) for row in rows], tile, self.pad_token_id)

    def _of_few(self, rows: Sequence[Sequence[int]]) -> Tensor | None:
        """(N, C) on the CPU, by what is recorded; None where rows are too many or too long for it."""
        tile = TILE_LENGTHS[0]
        if self.packed.cos.device.type == "cuda" and not self.packed.kernel:  # torch's own ways can't all be recorded
            return None
        if not 0 < len(rows) <= RECORDED[-1] * ROWS_A_TILE or max(map(len, rows)) > tile:
            return None
        laid = self._laid(rows, tile)
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
        hidden = _stack(self.packed, tiles, tile)
        return torch.log_softmax(_head(self.head, hidden), dim=-1)


def _filling(tiles: int, tile: int) -> list[list[int]]:
    """Rows that fill so many tiles: each is whole, and no two begin alike."""
    return [[token] * tile for token in range(tiles)]


def tile_of(row: Sequence[int]) -> int:
    """The tile that a row goes into."""
    return next(length for length in TILE_LENGTHS if length >= len(row))


def _head(head: Any, hidden: Tensor) -> Tensor:
    """Logits in float32: the head is small, and its last bits decide between neighbours."""
    return torch.nn.functional.linear(hidden.float(), head.weight.float())


def _stack(packed: PackedModel, tiles: Tiles, tile: int) -> Tensor:
    """(K, hidden): the last norm's output at the kept positions."""
    plain: Any = packed.model
    decoder, config, kernel = getattr(plain, plain.base_model_prefix), plain.config, packed.kernel
    fp8 = isinstance(packed.calm[0].out.base, Fp8)
    norms = _norms(packed, decoder)
    x = decoder.get_input_embeddings()(tiles.ids).to(packed.dtype)
    x, rows = normed(x, (), norms[0], fp8=fp8, kernel=kernel)
    compute = attention.tile_attention if kernel else attention.reference
    shape = [*packed.heads, tile]
    gated = config.model_type == "llama"
    for i, weights in enumerate(packed.calm):
        last = i == len(packed.calm) - 1
        qkv = multiplied(rows, weights.qkv, kernel=kernel)
        attended = Rows(compute(qkv, packed.cos, packed.sin, tiles.position, tiles.end, shape))
        if last:
            x, attended = x[tiles.keep], attended.at(tiles.keep)
        deltas = [multiplied(attended, weights.out, kernel=kernel)]
        if isinstance(weights, LlamaWeights):
            mlp_norm = Norm(weights.mlp_norm, None, norms[0].epsilon)
            x, rows = normed(x, deltas, mlp_norm, fp8=fp8, kernel=kernel)
            deltas, wide = [], weights.gate_up
        else:
            wide = weights.up
            rows = rows.at(tiles.keep) if last else rows
        inside = activated(multiplied(rows, wide, kernel=kernel), gated=gated, fp8=fp8, kernel=kernel)
        deltas.append(multiplied(inside, weights.down, kernel=kernel))
        x, rows = normed(x, deltas, norms[i + 1], fp8=fp8 and not last, kernel=kernel)
    return rows.values


def _norms(packed: PackedModel, decoder: Any) -> list[Norm]:
    """Each layer's first norm, and the last one of all."""
    config: Any = packed.model.config
    if config.model_type == "llama":
        epsilon = config.rms_norm_eps
        firsts = [Norm(w.attention_norm, None, epsilon) for w in packed.calm if isinstance(w, LlamaWeights)]
        return [*firsts, Norm(decoder.norm.weight, None, epsilon)]
    epsilon = config.layer_norm_epsilon
    firsts = [Norm(w.norm, w.norm_bias, epsilon) for w in packed.calm if isinstance(w, FalconWeights)]
    return [*firsts, Norm(decoder.ln_f.weight, decoder.ln_f.bias, epsilon)]
