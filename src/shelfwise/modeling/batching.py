"""From encodings to batches: right-padded, never masked, short rows beside short rows.

A causal model never looks right, so padding on the right of the last real token can't change that token's output:
verified exact on both architectures (docs/lab-notes.md). Leaving the mask out keeps attention on its fast path.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from shelfwise.prompts import IGNORE_INDEX


@dataclass(frozen=True, slots=True)
class Item:
    """One training row."""

    input_ids: list[int]  # prompt; for `completion` also the completion's ids, EOS included
    target: int  # the label's index
    prompt_length: int  # where the completion begins


class Items(Dataset[Item]):
    """Training rows by position."""

    def __init__(self, items: Sequence[Item]) -> None:
        self._items = items

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> Item:
        return self._items[index]

    def lengths(self) -> list[int]:
        """Number of tokens of each row."""
        return [len(item.input_ids) for item in self._items]


def pad(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    """Right-pad rows of ids: (N, T) int64, T the longest row's length."""
    width = max(map(len, rows))
    return torch.tensor([[*row, *[value] * (width - len(row))] for row in rows], dtype=torch.long)


@dataclass(frozen=True, slots=True)
class HeadCollator:
    """Rows of the `head` objective: `input_ids` (N, T) and `labels` (N,), the label indices."""

    pad_token_id: int

    def __call__(self, items: Sequence[Item]) -> dict[str, Tensor]:
        """Collate a micro-batch."""
        return {
            "input_ids": pad([item.input_ids for item in items], self.pad_token_id),
            "labels": torch.tensor([item.target for item in items]),
        }


@dataclass(frozen=True, slots=True)
class CompletionCollator:
    """Rows of the `completion` objective: `labels` (N, T) hold the next token where it is completion or EOS."""

    pad_token_id: int

    def __call__(self, items: Sequence[Item]) -> dict[str, Tensor]:
        """Collate a micro-batch. Position t's label is token t + 1, so no shift is left to the loss."""
        labels = [
            [IGNORE_INDEX] * (item.prompt_length - 1) + item.input_ids[item.prompt_length :] + [IGNORE_INDEX]
            for item in items
        ]
        return {
            "input_ids": pad([item.input_ids for item in items], self.pad_token_id),
            "labels": pad(labels, IGNORE_INDEX),
        }


@dataclass(frozen=True, slots=True)
class Spans:
    """Rows without padding, and the positions of each that are asked for.

    They stay on the CPU, where the next batch is laid out while the GPU is at work.
    """

    rows: Sequence[Sequence[int]]  # token ids of N rows
    kept: Sequence[tuple[int, int]]  # of each row, the first position, and the one behind the last

    @classmethod
    def last(cls, rows: Sequence[Sequence[int]]) -> Spans:
        """The last token of each row."""
        return cls(rows, [(len(row) - 1, len(row)) for row in rows])

    def __getitem__(self, part: slice) -> Spans:
        return Spans(self.rows[part], self.kept[part])


@dataclass(frozen=True, slots=True)
class SpanCollator:
    """Another collator's batch, with `spans` of the rows."""

    collator: HeadCollator | CompletionCollator

    def __call__(self, items: Sequence[Item]) -> dict[str, Any]:
        """Collate a micro-batch."""
        rows = [item.input_ids for item in items]
        if isinstance(self.collator, HeadCollator):
            spans = Spans.last(rows)
        else:
            spans = Spans(rows, [(item.prompt_length - 1, len(item.input_ids) - 1) for item in items])
        return {**self.collator(items), "spans": spans}


class StepSampler(Sampler[int]):
    """A shuffled order in which each optimiser step is a random draw, and each micro-batch holds rows of like length.

    The permutation is cut into steps of `batch_size` rows, as plain shuffling would; inside a step rows are sorted by
    length, so that its micro-batches need little padding. Which rows make a step is untouched, so the gradient of each
    step is that of plain shuffling. The order depends on the seed and the epoch alone: a resumed run continues it.

    Where there is no padding to save, the longest rows of a step side by side would only set a higher peak: of two
    micro-batches of BigBasket's names the longer held 1.3 times the mean's tokens, and cost LLaMA2-7B in full 12 GiB
    (docs/lab-notes.md). There each micro-batch is a random draw of its step's rows, in order of length within itself.
    """

    def __init__(
        self, lengths: Sequence[int], batch_size: int, micro_batch_size: int, seed: int, *, padded: bool = True
    ) -> None:
        """Args:
        lengths: tokens of each row.
        batch_size: rows of an optimiser step.
        micro_batch_size: rows that go through the model at once.
        seed: of the permutations.
        padded: whether rows are filled up to the longest of their micro-batch.
        """
        self._lengths = torch.tensor(lengths)
        self._batch_size = batch_size
        self._micro_batch_size = micro_batch_size
        self._seed = seed
        self._padded = padded
        self.epoch = 0

    def __len__(self) -> int:
        return len(self._lengths)

    def set_epoch(self, epoch: int) -> None:
        """Choose the permutation of an epoch, counted from 0."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + self.epoch)
        order = torch.randperm(len(self._lengths), generator=generator)
        for step in torch.split(order, self._batch_size):
            rows = self._by_length(step) if self._padded else step
            micro = [self._by_length(part) for part in torch.split(rows, self._micro_batch_size)]
            # The last micro-batch of a step may be short; Trainer counts rows, so it has to stay last.
            whole = micro if len(micro[-1]) == self._micro_batch_size else micro[:-1]
            for position in torch.randperm(len(whole), generator=generator).tolist():
                yield from whole[position].tolist()
            if len(whole) < len(micro):
                yield from micro[-1].tolist()

    def _by_length(self, rows: Tensor) -> Tensor:
        return rows[torch.argsort(self._lengths[rows], stable=True)]


def inference_batches(lengths: Sequence[int], token_budget: int) -> Iterator[list[int]]:
    """Cut rows into batches of like length.

    Args:
        lengths: tokens of each row.
        token_budget: padded tokens a batch may hold; a longer row makes a batch alone.

    Yields:
        Positions of the rows of a batch, longest batches first, so that a lack of memory shows at once.
    """
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    start = 0
    while start < len(order):
        width = max(1, lengths[order[start]])
        size = max(1, token_budget // width)
        yield order[start : start + size]
        start += size
