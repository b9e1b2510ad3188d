"""Few rows at once: one copy to the GPU, one launch and one copy back, where there would be some eighty calls of torch.

Each call of torch lets go of Python's lock and has to get it back from the threads that take requests.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from numpy.typing import NDArray

ROWS_A_TILE = 16  # of a recorded batch; names of fewer than four tokens each are too many for it
Forward = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]  # ids, position, row, keep to (K, C)
_ORDER = np.arange(128, dtype=np.int32)


class Recorded:
    """A batch of one size: a CUDA graph, with room for what goes in and what comes out. For one thread at a time.

    On a CPU the batch is computed each time.
    """

    def __init__(self, tiles: int, tile: int, pad_token_id: int, device: torch.device, forward: Forward) -> None:
        """Record it.

        Args:
            tiles: of the batch.
            tile: tokens a tile.
            pad_token_id: stands where no row does.
            device: of the model.
            forward: from (T,) ids, int64, positions and rows, int32, and (K,) kept positions, int64, to (K, C) scores.
        """
        self._tokens, self._most, self._pad = tiles * tile, tiles * ROWS_A_TILE, pad_token_id
        on_gpu = device.type == "cuda"
        staged = torch.zeros(3 * self._tokens + self._most, dtype=torch.int32, pin_memory=on_gpu)
        self._staged, self._numbers = staged, staged.numpy()
        self._write([], [])
        self._given = staged.to(device)
        self._forward = forward
        self._graph: torch.cuda.CUDAGraph | None = None
        if on_gpu:
            self._record(device)

    def answer(self, rows: Sequence[Sequence[int]], starts: Sequence[int]) -> Tensor:
        """(N, C) scores on the CPU of rows of tokens that begin at `starts`."""
        self._write(rows, starts)
        if self._graph is None:
            self._given.copy_(self._staged)
            return self._run()[: len(rows)]
        self._given.copy_(self._staged, non_blocking=True)
        self._graph.replay()
        self._answers[: len(rows)].copy_(self._scores[: len(rows)], non_blocking=True)
        self._done.record()
        self._done.synchronize()
        return self._answers[: len(rows)].clone()

    def _record(self, device: torch.device) -> None:
        self._run()  # kernels are compiled and libraries set up outside of the recording
        torch.cuda.synchronize(device)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            self._scores = self._run()
        self._answers = torch.empty(self._scores.shape, pin_memory=True)
        self._done = torch.cuda.Event()  # type: ignore[no-untyped-call]

    def _run(self) -> Tensor:
        ids, position, row, keep = torch.split(self._given, [self._tokens] * 3 + [self._most])
        return self._forward(ids.long(), position, row, keep.long())

    def _write(self, rows: Sequence[Sequence[int]], starts: Sequence[int]) -> None:
        ids, position, of_row, keep = self._parts()
        ids.fill(self._pad)
        position.fill(0)
        of_row.fill(-1)
        keep.fill(0)
        for i, (row, start) in enumerate(zip(rows, starts, strict=True)):
            end = start + len(row)
            ids[start:end] = row
            position[start:end] = _ORDER[: len(row)]
            of_row[start:end] = i
            keep[i] = end - 1

    def _parts(self) -> tuple[NDArray[np.int32], ...]:
        tokens = self._tokens
        return tuple(np.split(self._numbers, [tokens, 2 * tokens, 3 * tokens]))
