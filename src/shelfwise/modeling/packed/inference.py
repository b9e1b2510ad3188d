"""Answers of a packed model: no padding, no compiler, few launches, and CUDA graphs where batches are small."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from shelfwise.modeling.packed import attention
from shelfwise.modeling.packed.layers import FalconWeights, LlamaWeights
from shelfwise.modeling.packed.linear import Fp8
from shelfwise.modeling.packed.model import PackedModel
from shelfwise.modeling.packed.rows import Norm, Rows, activated, multiplied, normed
from shelfwise.modeling.packed.tiles import TILE_LENGTHS, lay

# Tokens at once. A GPU's products are at full speed from about 8k on; a CPU's caches like less (docs/lab-notes.md).
TOKENS = {"cuda": 8_192, "cpu": 1_024}
# Tiles of a recorded batch. Larger batches keep the GPU busy for longer than their launches take.
RECORDED = (1, 2, 3, 4, 6, 8, 12, 16)
_ROWS_A_TILE = 16  # of a recorded batch; names of fewer than four tokens each are too many for it


@dataclass(frozen=True, slots=True)
class _Batch:
    """The tiles of some rows, on the CPU. T tokens, K rows."""

    ids: Tensor  # (T,) int64
    position: Tensor  # (T,) int32
    row: Tensor  # (T,) int32
    keep: Tensor  # (K,) int64, positions in this batch
    rows: Tensor  # (K,) int64, which rows these are of all

    def to(self, device: torch.device) -> _Batch:
        parts = (self.ids, self.position, self.row, self.keep, self.rows)
        if device.type == "cuda":
            return _Batch(*(part.pin_memory().to(device, non_blocking=True) for part in parts))
        return self


@dataclass(frozen=True, slots=True)
class Inference:
    """A decoder stack with a classification head, for answers alone. Holds no weights of its own."""

    packed: PackedModel
    head: nn.Module
    pad_token_id: int
    classes: int
    recorded: dict[int, Callable[[_Batch], Tensor]] = field(default_factory=dict, compare=False)

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
        """(N, C) float32 log-probabilities on the model's device; the CPU need not wait for them.

        Args:
            rows: token ids of N rows, none longer than `longest`.
            scale: batches are halved so many times, for memories that are short.
        """
        device = self.packed.cos.device
        scores = torch.empty(len(rows), self.classes, device=device)
        with torch.inference_mode(), torch.autocast(device.type, enabled=False):
            for tile in TILE_LENGTHS:
                of_tile = [i for i, row in enumerate(rows) if tile_of(row) == tile]
                for batch in self._batches([rows[i] for i in of_tile], of_tile, tile, scale):
                    found = batch.to(device)
                    scores[found.rows] = self._scored(found, tile)
        return scores

    def is_smallest(self, scale: int) -> bool:
        """Whether batches that were halved so many times can't be halved again."""
        return self._tokens(scale) <= self.longest

    def _tokens(self, scale: int) -> int:
        return TOKENS.get(self.packed.cos.device.type, TOKENS["cpu"]) >> scale

    def _batches(self, rows: Sequence[Sequence[int]], names: Sequence[int], tile: int, scale: int) -> Iterator[_Batch]:
        """Lay all rows at once, where gaps are fewest, and cut between tiles."""
        if not rows:
            return
        sizes = [len(row) for row in rows]
        tiles = lay(sizes, [(size - 1, size) for size in sizes], tile)
        filled = tiles.row >= 0
        flat = torch.tensor([token for row in rows for token in row])
        begins = torch.tensor(sizes).cumsum(0) - torch.tensor(sizes)
        ids = torch.full_like(tiles.row, self.pad_token_id, dtype=torch.long)
        ids[filled] = flat[begins[tiles.row[filled].long()] + tiles.position[filled].long()]
        of_row = torch.tensor(names)
        step = max(1, self._tokens(scale) // tile) * tile
        for start in range(0, len(ids), step):
            cut = slice(start, start + step)
            here = (tiles.keep >= start) & (tiles.keep < start + step)
            yield _Batch(ids[cut], tiles.position[cut], tiles.row[cut], tiles.keep[here] - start, of_row[here])

    def _scored(self, batch: _Batch, tile: int) -> Tensor:
        """(K, C) of one batch, by a recorded graph where there is one for its size."""
        tiles = len(batch.ids) // tile
        size = next((size for size in RECORDED if size >= tiles), None)
        if batch.ids.device.type != "cuda" or not self.packed.kernel or tile != TILE_LENGTHS[0] or size is None:
            return self._forward(batch, tile)
        if len(batch.keep) > size * _ROWS_A_TILE:
            return self._forward(batch, tile)
        if size not in self.recorded:
            self.recorded[size] = self._record(size, tile)
        return self.recorded[size](batch)

    def _record(self, tiles: int, tile: int) -> Callable[[_Batch], Tensor]:
        """A CUDA graph of one batch size: one launch where there were ten a layer."""
        device, tokens = self.packed.cos.device, tiles * tile
        empty = _Batch(
            ids=torch.full((tokens,), self.pad_token_id, device=device),
            position=torch.zeros(tokens, dtype=torch.int32, device=device),
            row=torch.full((tokens,), -1, dtype=torch.int32, device=device),
            keep=torch.zeros(tiles * _ROWS_A_TILE, dtype=torch.long, device=device),
            rows=torch.zeros(0, dtype=torch.long, device=device),
        )
        self._forward(empty, tile)  # kernels are compiled and libraries set up outside of the recording
        torch.cuda.synchronize(device)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            scores = self._forward(empty, tile)

        def replay(batch: _Batch) -> Tensor:
            short = tokens - len(batch.ids)
            empty.ids[: len(batch.ids)].copy_(batch.ids)
            empty.position[: len(batch.ids)].copy_(batch.position)
            empty.row[: len(batch.ids)].copy_(batch.row)
            if short:
                empty.row[len(batch.ids) :].fill_(-1)
            empty.keep[: len(batch.keep)].copy_(batch.keep)
            graph.replay()
            return scores[: len(batch.keep)]

        return replay

    def _forward(self, batch: _Batch, tile: int) -> Tensor:
        """(K, C) log-probabilities."""
        hidden = _stack(self.packed, batch, tile)
        return torch.log_softmax(_head(self.head, hidden), dim=-1)


def tile_of(row: Sequence[int]) -> int:
    """The tile that a row goes into."""
    return next(length for length in TILE_LENGTHS if length >= len(row))


def _head(head: Any, hidden: Tensor) -> Tensor:
    """Logits in float32: the head is small, and its last bits decide between neighbours."""
    return torch.nn.functional.linear(hidden.float(), head.weight.float())


def _stack(packed: PackedModel, batch: _Batch, tile: int) -> Tensor:
    """(K, hidden): the last norm's output at the kept positions."""
    plain: Any = packed.model
    decoder, config, kernel = getattr(plain, plain.base_model_prefix), plain.config, packed.kernel
    fp8 = isinstance(packed.calm[0].out.base, Fp8)
    norms = _norms(packed, decoder)
    x = decoder.get_input_embeddings()(batch.ids).to(packed.dtype)
    x, rows = normed(x, (), norms[0], fp8=fp8, kernel=kernel)
    compute = attention.tile_attention if kernel else attention.reference
    shape = [*packed.heads, tile]
    gated = config.model_type == "llama"
    for i, weights in enumerate(packed.calm):
        last = i == len(packed.calm) - 1
        qkv = multiplied(rows, weights.qkv, kernel=kernel)
        attended = Rows(compute(qkv, packed.cos, packed.sin, batch.position, batch.row, shape))
        if last:
            x, attended = x[batch.keep], attended.at(batch.keep)
        deltas = [multiplied(attended, weights.out, kernel=kernel)]
        if isinstance(weights, LlamaWeights):
            mlp_norm = Norm(weights.mlp_norm, None, norms[0].epsilon)
            x, rows = normed(x, deltas, mlp_norm, fp8=fp8, kernel=kernel)
            deltas, wide = [], weights.gate_up
        else:
            wide = weights.up
            rows = rows.at(batch.keep) if last else rows
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
