"""Laying rows of tokens into tiles: whole rows, next to no gaps, one fixed length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

TILE_LENGTHS = (64, 128)  # tokens; attention inside a tile costs with its square, so the shortest that holds all rows


@dataclass(frozen=True, slots=True)
class Tiles:
    """Where N rows stand side by side. T = tiles times tile length."""

    position: Tensor  # (T,) int32, of each token in its own row; 0 for padding
    row: Tensor  # (T,) int32, which row a token belongs to; -1 for padding
    keep: Tensor  # (K,) int64, the positions whose hidden states are wanted, row after row

    def to(self, device: torch.device) -> Tiles:
        """The same on another device; to a GPU without waiting for it."""
        tensors = (self.position, self.row, self.keep)
        if device.type == "cuda":
            tensors = tuple(tensor.pin_memory() for tensor in tensors)  # type: ignore[assignment]
        return Tiles(*(tensor.to(device, non_blocking=True) for tensor in tensors))

    def ids(self, padded: Tensor, pad_token_id: int) -> Tensor:
        """(T,) token ids from rows that are padded on the right, (N, W)."""
        ids = padded[self.row.clamp(min=0).long(), self.position.long()]
        return torch.where(self.row >= 0, ids, pad_token_id)


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


def lay(sizes: Sequence[int], kept: Sequence[tuple[int, int]], length: int, *, rounding: bool = False) -> Tiles:
    """Lay rows into tiles, longest first, each into the fullest tile that still has room (best-fit decreasing).

    Product names are short beside a tile, so the gaps are small: 2% of the tokens of 256 BigBasket names in tiles of
    64, 26% of 8 (docs/lab-notes.md).

    Args:
        sizes: tokens of each of N rows, none more than `length`.
        kept: of each row, the first position whose hidden state is wanted, and the position behind the last.
        length: tokens a tile.
        rounding: add empty tiles, see `rounded`.

    Raises:
        ValueError: a row that no tile holds.
    """
    starts, tiles = places(sizes, length)
    tiles = rounded(tiles) if rounding else tiles
    position = torch.zeros(tiles * length, dtype=torch.int32)
    of_row = torch.full((tiles * length,), -1, dtype=torch.int32)
    within = _ranges([0] * len(sizes), sizes)
    at = torch.repeat_interleave(torch.tensor(starts), torch.tensor(sizes)) + within
    position[at] = within.int()
    of_row[at] = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes)).int()
    rows, columns = kept_cells(kept)
    return Tiles(position, of_row, torch.tensor(starts)[rows] + columns)


def kept_cells(kept: Sequence[tuple[int, int]]) -> tuple[Tensor, Tensor]:
    """(K,) rows and (K,) positions of what `lay` keeps, in the order of ``Tiles.keep``: they index padded tensors."""
    first, behind = zip(*kept, strict=True)
    counts = torch.tensor(behind) - torch.tensor(first)
    return torch.repeat_interleave(torch.arange(len(kept)), counts), _ranges(first, behind)


def _ranges(first: Sequence[int], behind: Sequence[int]) -> Tensor:
    """The whole numbers from each `first` up to, and without, its `behind`, one range after the other."""
    start, stop = torch.tensor(first), torch.tensor(behind)
    counts = stop - start
    begins = torch.repeat_interleave(counts.cumsum(0) - counts, counts)
    return torch.arange(int(counts.sum())) - begins + torch.repeat_interleave(start, counts)


def places(sizes: Sequence[int], length: int) -> tuple[list[int], int]:
    """Where each row begins, and how many tiles it takes."""
    if sizes and max(sizes) > length:
        raise ValueError(f"a row of {max(sizes)} tokens does not fit a tile of {length}")
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
