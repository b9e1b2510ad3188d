"""One pass of a packed model's decoder stack for answers alone: batches of tokens, and few launches for each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shelfwise.modeling.packed import attention
from shelfwise.modeling.packed.layers import FalconWeights, LlamaWeights
from shelfwise.modeling.packed.linear import Fp8
from shelfwise.modeling.packed.model import PackedModel
from shelfwise.modeling.packed.rows import Norm, Rows, activated, multiplied, normed
from shelfwise.modeling.packed.tiles import TILE_LENGTHS, Row, Tiles, lay

# From a layer's number and (T, (H + 2 KV) * width) queries, keys and values to (T, H * width).
Attend = Callable[[int, Tensor], Tensor]

# Tokens at once. A GPU's products are at full speed from about 8k on; a CPU's caches like less (docs/lab-notes.md).
TOKENS = {"cuda": 8_192, "cpu": 1_024}


@dataclass(frozen=True, slots=True)
class Batch:
    """Some tiles of some rows, and which of the kept states these are of all."""

    tiles: Tiles
    tile: int  # tokens a tile
    kept: Tensor  # (K,) int64

    def to(self, device: torch.device) -> Batch:
        """The same on another device; to a GPU without waiting for it."""
        if device.type == "cuda":
            kept = self.kept.pin_memory().to(device, non_blocking=True)
            return Batch(self.tiles.to(device), self.tile, kept)
        return self


def tokens_at_once(packed: PackedModel, scale: int) -> int:
    """Of a batch that was halved so many times."""
    return TOKENS.get(packed.cos.device.type, TOKENS["cpu"]) >> scale


def batches(rows: Sequence[Row], kept: Sequence[tuple[int, int]], pad_token_id: int, tokens: int) -> Iterator[Batch]:
    """Lay all rows at once, where gaps are fewest and most begin alike, and cut between tiles.

    Args:
        rows: token ids of N rows.
        kept: of each row, the first position whose state is wanted, and the one behind the last.
        pad_token_id: stands where no row does.
        tokens: of a batch, but for a single tile.

    Yields:
        On the CPU; `Batch.kept` counts the wanted states of all rows, row after row.
    """
    counts = np.array([behind - first for first, behind in kept])
    begins = np.cumsum(counts) - counts
    for tile in TILE_LENGTHS:
        mine = [i for i, row in enumerate(rows) if tile_of(row) == tile]
        if not mine:
            continue
        whole = lay([rows[i] for i in mine], [kept[i] for i in mine], tile, pad_token_id)
        numbers = torch.from_numpy(np.concatenate([np.arange(begins[i], begins[i] + counts[i]) for i in mine]))
        step = max(1, tokens // tile) * tile
        for start in range(0, len(whole.ids), step):
            cut = slice(start, start + step)
            here = (whole.keep >= start) & (whole.keep < start + step)
            tiles = Tiles(whole.ids[cut], whole.position[cut], whole.end[cut], whole.keep[here] - start)
            yield Batch(tiles, tile, numbers[here])


def tile_of(row: Sequence[int]) -> int:
    """The tile that a row goes into."""
    return next(length for length in TILE_LENGTHS if length >= len(row))


def in_tiles(packed: PackedModel, tiles: Tiles, tile: int) -> Attend:
    """Attention inside tiles."""
    place = (packed.cos, packed.sin, tiles.position, tiles.end, [*packed.heads, tile])
    if packed.kernel:
        return lambda _, qkv: attention.tile_attention(qkv, *place)
    attend = attention.plain(*place)
    return lambda _, qkv: attend(qkv)


def stack(packed: PackedModel, ids: Tensor, attend: Attend, keep: Tensor | None) -> Tensor:
    """(K, hidden): the last norm's output at the kept positions.

    Args:
        packed: the model.
        ids: (T,) int64 token ids.
        attend: what tokens see of each other, and of others.
        keep: (K,) int64; None keeps all, in their order.
    """
    plain: Any = packed.model
    decoder, config, kernel = getattr(plain, plain.base_model_prefix), plain.config, packed.kernel
    fp8 = isinstance(packed.calm[0].out.base, Fp8)
    norms = _norms(packed, decoder)
    x = decoder.get_input_embeddings()(ids).to(packed.dtype)
    x, rows = normed(x, (), norms[0], fp8=fp8, kernel=kernel)
    gated = config.model_type == "llama"
    for i, weights in enumerate(packed.calm):
        cut = keep if i == len(packed.calm) - 1 else None
        qkv = multiplied(rows, weights.qkv, kernel=kernel)
        attended = Rows(attend(i, qkv))
        if cut is not None:
            x, attended = x[cut], attended.at(cut)
        deltas = [multiplied(attended, weights.out, kernel=kernel)]
        if isinstance(weights, LlamaWeights):
            mlp_norm = Norm(weights.mlp_norm, None, norms[0].epsilon)
            x, rows = normed(x, deltas, mlp_norm, fp8=fp8, kernel=kernel)
            deltas, wide = [], weights.gate_up
        else:
            wide = weights.up
            rows = rows if cut is None else rows.at(cut)
        inside = activated(multiplied(rows, wide, kernel=kernel), gated=gated, fp8=fp8, kernel=kernel)
        deltas.append(multiplied(inside, weights.down, kernel=kernel))
        x, rows = normed(x, deltas, norms[i + 1], fp8=fp8 and i < len(packed.calm) - 1, kernel=kernel)
    return rows.values


def on_its_way(scores: Tensor) -> Callable[[], NDArray[np.float32]]:
    """Send scores to the CPU as soon as they are there; what comes back waits for them, and not for later work."""
    if scores.device.type != "cuda":
        return scores.numpy
    there = torch.empty(scores.shape, dtype=scores.dtype, pin_memory=True)
    with torch.cuda.device(scores.device):
        there.copy_(scores, non_blocking=True)
        # A thread that spins would keep others from the CPU.
        done = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        done.record()

    def waited() -> NDArray[np.float32]:
        done.synchronize()
        found: NDArray[np.float32] = there.numpy()
        return found

    return waited


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
