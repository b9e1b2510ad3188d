"""When a micro-batch does not fit the memory: the same step again, in smaller parts.

A step's weights change only after its last micro-batch, so gradients can be thrown away and made again with nothing
lost: no checkpoint to go back to, no step twice in the logs, and no copy of the first weights to be kept. The gradient
of a micro-batch is the sum of its parts', for each is divided by the targets of the whole step.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from shelfwise.modeling import sharding

Batch = dict[str, Any]  # a collator's
# What says the same without torch's own class: cuBLAS for its workspace, and the allocator of a CPU.
_OTHER_WORDS = ("CUBLAS_STATUS_ALLOC_FAILED", "DefaultCPUAllocator: can't allocate memory")


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether an error says that a device's memory is full."""
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in _OTHER_WORDS)


def smaller(rows: int) -> int:
    """The next smaller micro-batch size: half, or where that is no whole number, the largest that divides it."""
    return max((size for size in range(1, rows // 2 + 1) if rows % size == 0), default=1)


def parts(inputs: Batch, rows: int, pad_token_id: int) -> Iterator[Batch]:
    """Cut a collated micro-batch into parts of at most so many rows.

    Args:
        inputs: tensors (N, ...), `input_ids` (N, T) among them, right-padded; of a packed model `spans` too.
        rows: most of a part.
        pad_token_id: what fills rows; columns that hold nothing else in a part are left out of it, for the rows of a
            micro-batch stand in order of length.
    """
    whole: Tensor = inputs["input_ids"]
    if len(whole) <= rows:
        yield inputs
        return
    count = -(-len(whole) // rows)
    for number in range(count):
        # Rows stand in order of length. Padded, like lengths together save the most; packed, every part is to have its
        # share of the long rows, or the longest would set the peak.
        mine = slice(number, None, count) if "spans" in inputs else slice(number * rows, (number + 1) * rows)
        part = {name: values[mine] for name, values in inputs.items()}
        filled = (part["input_ids"] != pad_token_id).any(dim=0).nonzero()
        width = int(filled[-1]) + 1 if len(filled) else 1
        yield {name: values[:, :width] if _wide(values, whole) else values for name, values in part.items()}


def _wide(values: Any, whole: Tensor) -> bool:
    """Whether there is a value for each token, padding included."""
    return isinstance(values, Tensor) and values.shape[1:] == whole.shape[1:]


class FittingParts:
    """Runs the micro-batches of a step, each in as many parts as the memory asks for; it never asks for fewer again."""

    def __init__(self, micro_batch_size: int, pad_token_id: int, shrunk: Callable[[int], None]) -> None:
        """Args:
        micro_batch_size: rows that go through the model at once, until the memory is full.
        pad_token_id: see `parts`.
        shrunk: told of each smaller size.
        """
        self.micro_batch_size = micro_batch_size
        self._pad = pad_token_id
        self._shrunk = shrunk
        self._accumulated: list[Batch] = []  # micro-batches whose gradients the step at hand has already

    def begin_step(self) -> None:
        """Forget the step before, whose gradients have been used."""
        self._accumulated = []

    def run(self, model: nn.Module, inputs: Batch, step: Callable[[Batch], Tensor]) -> Tensor:
        """Add a micro-batch's gradients to those of its step.

        Args:
            model: whose gradients they are.
            inputs: a collated micro-batch.
            step: forward and backward of a part; gives its share of the step's loss.

        Returns:
            The micro-batch's share of the step's loss.

        Raises:
            RuntimeError: the memory is full even for one row; or the model is in pieces, where other processes wait for
                this one in the middle of the pass; or the error is another one.
        """
        wanted = [inputs]
        while True:
            try:
                losses = [self._in_parts(each, step) for each in wanted]
            except RuntimeError as error:
                last = self.micro_batch_size == 1 or sharding.is_sharded(model)
                if last or not is_out_of_memory(error):
                    raise
            else:
                self._accumulated.append(inputs)
                return losses[-1]
            # Not in `except`: there the error's traceback holds every tensor of the failed pass.
            model.zero_grad()
            release(inputs["input_ids"].device)
            self.micro_batch_size = smaller(self.micro_batch_size)
            self._shrunk(self.micro_batch_size)
            wanted = [*self._accumulated, inputs]

    def _in_parts(self, inputs: Batch, step: Callable[[Batch], Tensor]) -> Tensor:
        return torch.stack([step(part) for part in parts(inputs, self.micro_batch_size, self._pad)]).sum()


def release(device: torch.device) -> None:
    """Give back what a failed pass still holds."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
