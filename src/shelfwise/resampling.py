"""The rows of an evaluation drawn with replacement, and figures of all draws at once.

A figure of a thousand draws costs a few sums over rows and not a thousand evaluations: 5,511 rows and 426 labels take
0.07 s to draw and 0.07 s a classifier to score, on one busy core (`benchmarks/evaluation_overhead.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from shelfwise.errors import InputError
from shelfwise.hierarchy import Overlaps
from shelfwise.metrics import ECE_BINS, bin_of

DRAWS = 1000
FEWEST_DRAWS = 200
# Of many rows fewer draws are made: their intervals are narrow, and 1,000 draws of a million rows would take minutes.
MOST_WORK = 200_000_000  # rows times draws
BLOCK = 4_000_000  # rows times draws at a time: bounds the memory, at 10 bytes each, 100 if each row has its own label
KEPT = 64_000_000  # rows times draws that are kept for the next figure; above, they are drawn again

Draws = NDArray[np.float64]  # (draws,) a figure in each draw
Counts = NDArray[np.uint8]  # (N, b) how often each row is in each of b draws; 255 times is out of the question


def draws_for(n: int, draws: int = DRAWS) -> int:
    """How many draws of N rows are made where `draws` are asked for: fewer of very many rows (`MOST_WORK`)."""
    return min(draws, max(FEWEST_DRAWS, MOST_WORK // n))


@dataclass(frozen=True, slots=True)
class Resamples:
    """Draws of N rows. Made once per evaluation and shared, so that classifiers are compared on the same draws."""

    n: int  # rows
    draws: int
    seed: int
    kept: tuple[Counts, ...] = ()  # the blocks, where they are few

    @classmethod
    def draw(cls, n: int, draws: int = DRAWS, seed: int = 0) -> Resamples:
        """Draw rows with replacement.

        Args:
            n: rows.
            draws: how often at most; see `draws_for`.
            seed: the same seed draws the same rows.

        Raises:
            InputError: there is nothing to draw.
        """
        if n < 1 or draws < 1:
            raise InputError(f"The bootstrap needs rows and draws: {n} rows, {draws} draws.")
        fresh = cls(n, draws_for(n, draws), seed)
        return cls(n, fresh.draws, seed, tuple(fresh._drawn())) if n * fresh.draws <= KEPT else fresh

    def blocks(self) -> Iterator[Counts]:
        """(N, b) counts of some draws at a time, the same every time."""
        return iter(self.kept) if self.kept else self._drawn()

    def _drawn(self) -> Iterator[Counts]:
        random = np.random.default_rng(self.seed)
        step = max(1, BLOCK // self.n)
        for start in range(0, self.draws, step):
            counts = np.empty((min(step, self.draws - start), self.n), np.uint8)
            for row in counts:
                row[:] = np.bincount(random.integers(0, self.n, self.n), minlength=self.n)
            # A row's counts side by side: sums over rows then run along the memory.
            yield np.ascontiguousarray(counts.T)


class Figures(Protocol):
    """Two figures of each draw."""

    @property
    def rows(self) -> int:
        """N."""

    def figures(self, counts: Counts) -> NDArray[np.float64]:
        """(2, b) from (N, b)."""


def draws_of(resamples: Resamples, of: Figures) -> tuple[Draws, Draws]:
    """Both figures in each draw.

    Raises:
        InputError: the figures are of other rows.
    """
    if resamples.n != of.rows:
        raise InputError(f"{resamples.n:,} rows were drawn from, but {of.rows:,} were answered.")
    first, second = np.concatenate([of.figures(counts) for counts in resamples.blocks()], axis=1)
    return first, second


@dataclass(frozen=True, slots=True)
class _Groups:
    """Items that share a key, in the order of their keys."""

    order: NDArray[np.intp]
    starts: NDArray[np.intp]
    keys: NDArray[np.int64]

    @classmethod
    def of(cls, keys: NDArray[np.integer]) -> _Groups:
        order = np.argsort(keys, kind="stable")
        found, starts = np.unique(np.asarray(keys, np.int64)[order], return_index=True)
        return cls(order, starts, found)

    def sums(self, counts: NDArray[np.integer]) -> NDArray[np.int64]:
        """(groups, b) from (items, b)."""
        return np.add.reduceat(counts[self.order], self.starts, axis=0, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class F1Figures:
    """Macro and weighted F1. Rows that have truth and answer in common are counted as one cell."""

    rows: int
    labels: int  # that occur among truth or answers
    cells: _Groups  # of rows
    by_truth: _Groups  # of cells
    by_answer: _Groups  # of cells
    right: NDArray[np.intp]  # cells whose answer is right
    right_labels: NDArray[np.int64]  # and the label of each

    @classmethod
    def of(cls, targets: NDArray[np.integer], answers: NDArray[np.integer]) -> F1Figures:
        """Of (N,) true and (N,) answered label positions."""
        if len(targets) != len(answers):
            raise InputError(f"{len(targets)} targets, but {len(answers)} answers.")
        present, compact = np.unique(np.concatenate([targets, answers]), return_inverse=True)
        true, answered = compact.reshape(2, -1)
        cells = _Groups.of(true * len(present) + answered)
        of_truth, of_answer = np.divmod(cells.keys, len(present))
        right = np.flatnonzero(of_truth == of_answer)
        by_truth, by_answer = _Groups.of(of_truth), _Groups.of(of_answer)
        return cls(len(targets), len(present), cells, by_truth, by_answer, right, of_truth[right])

    def figures(self, counts: Counts) -> NDArray[np.float64]:
        """(2, b) macro F1, over the labels that occur in the draw, and weighted F1."""
        in_cell = self.cells.sums(counts)
        support, answered, hits = np.zeros((3, self.labels, counts.shape[1]))
        support[self.by_truth.keys] = self.by_truth.sums(in_cell)
        answered[self.by_answer.keys] = self.by_answer.sums(in_cell)
        hits[self.right_labels] = in_cell[self.right]
        occurs = support + answered
        f1 = 2 * hits / np.maximum(occurs, 1)
        return np.stack([f1.sum(0) / np.count_nonzero(occurs, axis=0), (f1 * support).sum(0) / self.rows])


@dataclass(frozen=True, slots=True)
class SumFigures:
    """Calibration error and hierarchical F1: made of sums over rows, which one matrix product gives for many draws."""

    weights: NDArray[np.float32]  # (bins + 2, N): gap by bin of confidence; nodes shared; nodes in all

    @classmethod
    def of(cls, confidence: NDArray[np.floating], right: NDArray[np.bool_], overlaps: Overlaps | None) -> SumFigures:
        """Of N answers: their probabilities, whether they are right, and what they share with the truth."""
        weights = np.zeros((ECE_BINS + 2, len(right)), np.float32)
        weights[bin_of(confidence), np.arange(len(right))] = right - confidence
        if overlaps is not None:
            weights[-2:] = overlaps.shared, overlaps.of_truth + overlaps.of_answer
        return cls(weights)

    @property
    def rows(self) -> int:
        """N."""
        return int(self.weights.shape[1])

    def figures(self, counts: Counts) -> NDArray[np.float64]:
        """(2, b) expected calibration error, and hierarchical F1; that is 0 without a taxonomy."""
        sums = (self.weights @ counts.astype(np.float32)).astype(np.float64)
        return np.stack([np.abs(sums[:-2]).sum(0) / self.rows, 2 * sums[-2] / np.maximum(sums[-1], 1)])
