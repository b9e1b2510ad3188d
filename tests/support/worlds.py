"""Worlds whose true figures are known: rows are drawn from them as an evaluation's are from a catalogue."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.int64]
Random = np.random.Generator


@dataclass(frozen=True)
class World:
    """Types that are rare or frequent, and one or more classifiers with a known chance of every answer."""

    frequency: NDArray[np.float64]  # (C,) of the types
    answers: tuple[NDArray[np.float64], ...]  # of each classifier, (C, C): chance of an answer, by true type

    @classmethod
    def zipf(cls, labels: int, seed: int, *, gain: float = 0.0) -> World:
        """Types as unequal as a catalogue's, the rarer the harder; the first of two classifiers is better by `gain`."""
        random = np.random.default_rng(seed)
        frequency = 1 / np.arange(1, labels + 1)
        recall = np.clip(np.linspace(0.9, 0.45, labels) + random.normal(0, 0.1, labels), 0.1, 0.95 - gain)
        confused = np.zeros((labels, labels))
        for label in range(labels):
            # Four types to be mistaken for, the frequent ones more often.
            others = random.choice(labels, min(4, labels - 1), replace=False, p=frequency / frequency.sum())
            confused[label, np.where(others == label, (label + 1) % labels, others)] += 1
        confused /= confused.sum(1, keepdims=True)
        answers = tuple(confused * (1 - right)[:, None] + np.diag(right) for right in (recall + gain, recall))
        return cls(frequency / frequency.sum(), answers)

    def rows(self, n: int, random: Random, alike: float = 0.6) -> tuple[Labels, Labels, Labels]:
        """True types and two classifiers' answers, which share their luck on a part of the rows."""
        truth = random.choice(len(self.frequency), n, p=self.frequency)
        luck = random.random(n)
        other = np.where(random.random(n) < alike, luck, random.random(n))
        first, second = (
            _answered(chances, truth, drawn) for chances, drawn in zip(self.answers, (luck, other), strict=True)
        )
        return truth, first, second

    def accuracy(self, which: int = 0) -> float:
        """Of one classifier, over rows without end."""
        return float(self.frequency @ np.diag(self.answers[which]))

    def f1(self, which: int = 0) -> tuple[float, float]:
        """Macro and weighted F1 of one classifier, over rows without end."""
        hits = self.frequency * np.diag(self.answers[which])
        of_types = 2 * hits / (self.frequency + self.frequency @ self.answers[which])
        return float(of_types.mean()), float(self.frequency @ of_types)


def _answered(chances: NDArray[np.float64], truth: Labels, luck: NDArray[np.float64]) -> Labels:
    """The answers that this luck, in [0, 1), brings."""
    # All types' cumulated chances in one ascending row: those of type i lie between i and i + 1.
    steps = (chances.cumsum(1) + np.arange(len(chances))[:, None]).ravel()
    found = np.searchsorted(steps, truth + luck, side="right") - truth * len(chances)
    return np.clip(found, 0, len(chances) - 1)


def confidences(n: int, gap: float, random: Random) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """How sure a classifier is and whether it is right; its calibration error is |gap|, which is at most 0.2."""
    confidence = 1 - 0.7 * random.beta(1, 3, n)
    confidence = np.clip(confidence, 0.3, 0.8 if gap < 0 else 1.0)
    return confidence, random.random(n) < confidence - gap


def held(low: float, high: float, truth: float) -> bool:
    """Whether an interval holds the truth; the ends belong to it, but for the last bits of their arithmetic."""
    return low - 1e-9 <= truth <= high + 1e-9


def share_held(intervals: Callable[[Random], tuple[float, float]], truth: float, worlds: int, seed: int) -> float:
    """Coverage: in how many of so many draws of rows the interval holds the truth."""
    random = np.random.default_rng(seed)
    return float(np.mean([held(*intervals(random), truth) for _ in range(worlds)]))
