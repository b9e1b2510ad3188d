"""Few rows at once: one copy to the GPU, one launch and one copy back, where there would be some eighty calls of torch.

Each call of torch lets go of Python's lock and has to get it back from the threads that take requests.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from shelfwise.modeling.packed.tiles import Tiles

ROWS_A_TILE = 16  # of a recorded batch; names of fewer than four tokens each are too many for it
Forward = Callable[[Tiles], Tensor]  # to (K, C)


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
            forward: from tiles to (K, C) scores.
        """
        self._tokens, self._most, self._pad = tiles * tile, tiles * ROWS_A_TILE, pad_token_id
        on_gpu = device.type == "cuda"
        staged = torch.zeros(3 * self._tokens + self._most, dtype=torch.int32, pin_memory=on_gpu)
        self._staged = staged
        self._ids, self._position, self._end, self._keep = np.split(
            staged.numpy(), [self._tokens, 2 * self._tokens, 3 * self._tokens]
        )
        self._own_end = np.arange(self._tokens, dtype=np.int32) % tile + 1
        self._write(None)
        self._given = staged.to(device)
        self._forward = forward
        self._graph: torch.cuda.CUDAGraph | None = None
        if on_gpu:
            self._record(device)

    def answer(self, laid: Tiles) -> Tensor:
        """(K, C) scores on the CPU of rows in no more tiles than these."""
        rows = len(laid.keep)
        self._write(laid)
        if self._graph is None:
            self._given.copy_(self._staged)
            return self._run()[:rows]
        self._given.copy_(self._staged, non_blocking=True)
        self._graph.replay()
        self._answers[:rows].copy_(self._scores[:rows], non_blocking=True)
        self._done.record()
        self._done.synchronize()
        return self._answers[:rows].clone()

    def _record(self, device: torch.device) -> None:
        self._run()  # kernels are compiled and libraries set up outside of the recording
        torch.cuda.synchronize(device)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            self._scores = self._run()
        self._answers = torch.empty(self._scores.shape, pin_memory=True)
        self._done = torch.cuda.Event()  # type: ignore[no-untyped-call]

    def _run(self) -> Tensor:
        ids, position, end, keep = torch.split(self._given, [self._tokens] * 3 + [self._most])
        return self._forward(Tiles(ids.long(), position, end, keep.long()))

    def _write(self, laid: Tiles | None) -> None:
        filled, rows = (len(laid.ids), len(laid.keep)) if laid else (0, 0)
        self._ids[filled:] = self._pad
        self._position[filled:] = 0
        self._end[filled:] = self._own_end[filled:]
        self._keep[rows:] = 0
        if laid:
            self._ids[:filled] = laid.ids.numpy()
            self._position[:filled] = laid.position.numpy()
            self._end[:filled] = laid.end.numpy()
            self._keep[:rows] = laid.keep.numpy()
