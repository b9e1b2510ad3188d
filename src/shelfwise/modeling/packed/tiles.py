"""Laying rows of tokens into tiles: next to no gaps, one fixed length, and what rows begin with alike stands once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

TILE_LENGTHS = (64, 128)  # tokens; attention inside a tile costs with its square, so the shortest that holds all rows

Row = Sequence[int]  # token ids
_COUNTS = (64, 256, 1024, 4096)  # of rows laid together


@dataclass(frozen=True, slots=True)
class Tiles:
    """Where rows stand. T = tiles times tile length.

    A tile holds prefix trees in preorder: a token stands behind those it continues, and all that continue it stand
    behind it without a gap. So a token sees another exactly if that one stands before it and does not end before it,
    which is how tree attention masks tokens (Miao et al. 2024, SpecInfer).
    """

    ids: Tensor  # (T,) int64 token ids
    position: Tensor  # (T,) int32, of each token in its rows; 0 for padding
    end: Tensor  # (T,) int32, the position in the tile behind the last token that continues this one
    keep: Tensor  # (K,) int64, the positions whose hidden states are wanted, row after row

    def to(self, device: torch.device) -> Tiles:
        """The same on another device; to a GPU without waiting for it."""
        tensors = (self.ids, self.position, self.end, self.keep)
        if device.type == "cuda":
            tensors = tuple(tensor.pin_memory() for tensor in tensors)  # type: ignore[assignment]
        return Tiles(*(tensor.to(device, non_blocking=True) for tensor in tensors))


def tile_length(longest: int) -> int | None:
    """The shortest tile that holds a row of so many tokens; None when none does."""
    return next((length for length in TILE_LENGTHS if length >= longest), None)


def rounded(tiles: int) -> int:
    """A number of tiles rounded up, for code that is compiled for each number: three or four of them a run.

    A batch's tokens vary by about 5 times the square root of its rows: by two tiles of 132, by one of 50. Empty tiles
    cost 1 to 2% then; code for any number of tiles costs as much, and takes six times as long to compile
    (docs/lab-notes.md).
    """
    step = 4 if tiles >= 96 else 2 if tiles >= 24 else 1
    return -(-tiles // step) * step


def lay(
    rows: Sequence[Row], kept: Sequence[tuple[int, int]], length: int, pad_token_id: int, *, rounding: bool = False
) -> Tiles:
    """Lay rows into tiles, neighbours in the alphabet side by side, so that they share the tokens they begin with.

    A causal model's state of a token depends on the tokens before it alone, so it is the same for all rows that begin
    alike: it is computed once for those of a tile. Of LLaMA's tokens of BigBasket's names that saves 12% at 672 rows,
    the token that all rows begin with for the most part, and 20% at 8,192; of Falcon's 6 and 11% (docs/lab-notes.md).

    Args:
        rows: token ids of N rows, none empty, none of more than `length`.
        kept: of each row, the first position whose hidden state is wanted, and the position behind the last.
        length: tokens a tile.
        pad_token_id: stands where no row does.
        rounding: add empty tiles, see `rounded`.

    Raises:
        ValueError: a row that no tile holds.
    """
    longest = max(map(len, rows))
    if longest > length:
        raise ValueError(f"a row of {longest} tokens does not fit a tile of {length}")
    order = sorted(range(len(rows)), key=lambda i: tuple(rows[i]))
    bunches, root = _bunches([rows[i] for i in order], length)
    starts, tiles = _places([bunch.size for bunch in bunches], length - root)
    whole = (rounded(tiles) if rounding else tiles) * length
    ids = np.full(whole, pad_token_id, dtype=np.int64)
    position = np.zeros(whole, dtype=np.int32)
    end = np.tile(np.arange(1, length + 1, dtype=np.int32), whole // length)
    if root:  # stands in every tile
        used = slice(0, tiles * length)
        ids[used].reshape(-1, length)[:, :root] = rows[order[0]][:root]
        position[used].reshape(-1, length)[:, :root] = np.arange(root)
        end[used].reshape(-1, length)[:, :root] = length
    found: list[NDArray[np.int64]] = [_NOTHING] * len(rows)
    columns, path, number = np.arange(length), np.empty(length, dtype=np.int64), 0
    for bunch, start in zip(bunches, starts, strict=True):
        first = start // (length - root) * length  # of the tile
        at = first + root + start % (length - root)
        path[:root] = first + columns[:root]
        open_until = root
        for shared in bunch.shared:
            row = rows[order[number]]
            end[path[shared:open_until]] = at - first
            open_until, behind = len(row), at + len(row) - shared
            ids[at:behind] = row[shared:]
            position[at:behind] = columns[shared:open_until]
            path[shared:open_until] = np.arange(at, behind)
            begin, stop = kept[order[number]]
            found[order[number]] = path[begin:stop].copy()
            at, number = behind, number + 1
        end[path[root:open_until]] = at - first
    keep = np.concatenate(found)
    return Tiles(torch.from_numpy(ids), torch.from_numpy(position), torch.from_numpy(end), torch.from_numpy(keep))


_NOTHING = np.empty(0, dtype=np.int64)


@dataclass(slots=True)
class _Bunch:
    """Neighbours in the alphabet, each of which begins with more tokens of the one before it than all rows share."""

    size: int  # tokens, without those that all rows begin with
    shared: list[int] = field(default_factory=list)  # tokens of each row that stand already


def _bunches(rows: Sequence[Row], length: int) -> tuple[list[_Bunch], int]:
    """Cut rows in order into bunches that fit a tile; and how many tokens all rows begin with."""
    root = min(alike(rows[0], rows[-1]), min(map(len, rows)) - 1)
    bunches: list[_Bunch] = []
    before: Row = ()
    for row in rows:
        shared = alike(before, row)
        added = len(row) - shared
        if shared > root and bunches[-1].size + added <= length - root:
            bunches[-1].size += added
            bunches[-1].shared.append(shared)
        else:
            bunches.append(_Bunch(len(row) - root, [root]))
        before = row
    return bunches, root


def alike(a: Row, b: Row) -> int:
    """How many tokens two rows begin with alike."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _places(sizes: Sequence[int], length: int) -> tuple[list[int], int]:
    """Where each bunch begins, and how many tiles they take.

    Longest first, each into the fullest tile that still has room (best-fit decreasing). Product names are short beside
    a tile, so the gaps are small: 2% of the tokens of 256 BigBasket names in tiles of 64, 26% of 8 (docs/lab-notes.md).
    """
    open_by_room: list[list[int]] = [[] for _ in range(length + 1)]  # tiles by the tokens that still fit
    starts, tiles = [0] * len(sizes), 0
    for i in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        size = sizes[i]
        room = next((room for room in range(size, length + 1) if open_by_room[room]), None)
        if room is None:
            tile, room, tiles = tiles, length, tiles + 1
        else:
            tile = open_by_room[room].pop()
        starts[i] = tile * length + length - room
        open_by_room[room - size].append(tile)
    return starts, tiles


def computed_shares(rows: Sequence[Row]) -> tuple[tuple[int, float], ...]:
    """Tokens that are computed for each token of the rows, gaps included, where so many rows are laid together.

    The more of them there are, the more begin alike. Each number of rows is drawn once, at random.

    Args:
        rows: token ids, none empty.
    """
    length = tile_length(max(map(len, rows)))
    if length is None:
        return ()
    order = np.random.default_rng(0).permutation(len(rows))
    found = []
    for count in sorted({min(count, len(rows)) for count in _COUNTS}):
        some = [rows[i] for i in order[:count]]
        laid = lay(some, [(0, 1)] * count, length, 0)
        found.append((count, len(laid.ids) / sum(map(len, some))))
    return tuple(found)


def kept_cells(kept: Sequence[tuple[int, int]]) -> tuple[Tensor, Tensor]:
    """(K,) rows and (K,) positions of what `lay` keeps, in the order of ``Tiles.keep``: they index padded tensors."""
    first, behind = (torch.tensor(ends) for ends in zip(*kept, strict=True))
    counts = behind - first
    begins = torch.repeat_interleave(counts.cumsum(0) - counts, counts)
    columns = torch.arange(int(counts.sum())) - begins + torch.repeat_interleave(first, counts)
    return torch.repeat_interleave(torch.arange(len(kept)), counts), columns
