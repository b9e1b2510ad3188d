"""Worlds where it is known what a promise comes to: a scorer that says one thing, and the chances that hold in fact."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shelfwise.calibration import Calibration
from shelfwise.labels import Labels, Taxonomy
from shelfwise.records import LEVELS
from shelfwise.thresholds import Shelves

C, SUB_CATEGORIES, CATEGORIES = 30, 10, 5
FREQUENCY = (_weights := 1 / np.arange(1, C + 1)) / _weights.sum()
NAMES = tuple(f"t{i:02}" for i in range(C))
TAXONOMY = Taxonomy({name: ((f"c{i % CATEGORIES}", f"s{i % SUB_CATEGORIES}", 1),) for i, name in enumerate(NAMES)})
SHELVES = Shelves.of(Labels(NAMES, TAXONOMY))


@dataclass(frozen=True)
class Sample:
    """N rows of a world."""

    log_probs: NDArray[np.float64]  # (N, C) what the scorer says
    truth: NDArray[np.float64]  # (N, C) the probabilities that hold
    targets: NDArray[np.int64]  # (N,) drawn from these


def draw(random: np.random.Generator, bias: NDArray[np.float64], rows: int, uneven: float = 0.0) -> Sample:
    """Rows of a world.

    Types fall in frequency as 1/rank. Most doubts are within a sub-category (types of like remainder by 10) or a
    category (by 5).

    Args:
        random: what all is drawn from.
        bias: (C,) how much likelier each type is than the scorer says, nats.
        rows: N.
        uneven: how far rows differ in how sure the scorer sounds, which no temperature undoes: the standard deviation
            of the logarithm of what a row's logits are multiplied by.
    """
    true_type = random.choice(C, rows, p=FREQUENCY)
    logits = random.normal(size=(rows, C))
    for nodes in (CATEGORIES, SUB_CATEGORIES):
        logits += random.normal(3, 2, (rows, 1)) * (np.arange(C) % nodes == true_type[:, None] % nodes)
    logits[np.arange(rows), true_type] += random.normal(3, 2, rows)
    spoken = logits * np.exp(random.normal(0, uneven, (rows, 1))) if uneven else logits
    said, true = (np.exp(x) / np.exp(x).sum(1, keepdims=True) for x in (spoken, logits + bias))
    targets = np.minimum((random.random((rows, 1)) > true.cumsum(1)).sum(1), C - 1)
    return Sample(np.log(said), true, targets)


@dataclass(frozen=True)
class Outcome:
    """What the promise came to in one world; precisions are true ones, not those of a sample of targets."""

    accepted: tuple[float, ...]  # share of the rows accepted at each level of `records.LEVELS`
    precision: tuple[float | None, ...]  # of them; None where nothing was accepted
    of_types: tuple[float, ...]  # precision of each type with a threshold of its own under which anything was accepted


def outcome(calibration: Calibration, new: Sample) -> Outcome:
    """Hold a calibration's decisions on new rows against the truth."""
    decided = calibration.decide(calibration.probabilities(new.log_probs), SHELVES)
    chances = (new.truth, *(nodes.sums(new.truth) for nodes in SHELVES.above))
    accepted: list[float] = []
    precision: list[float | None] = []
    for level in range(len(LEVELS) - 1):
        taken = decided.level == level
        accepted.append(float(taken.mean()))
        precision.append(float(chances[level][taken, decided.node[taken]].mean()) if taken.any() else None)
    own = [NAMES.index(name) for name in calibration.by_type]
    rows_of = [(decided.level == 0) & (decided.node == position) for position in own]
    of_types = [float(new.truth[rows, i].mean()) for rows, i in zip(rows_of, own, strict=True) if rows.any()]
    return Outcome(tuple(accepted), tuple(precision), tuple(of_types))


@dataclass(frozen=True)
class Clustered:
    """N answers in clusters that share a fate, as the products of a new brand do."""

    confidence: NDArray[np.float64]  # (N,)
    chance: NDArray[np.float64]  # (N,) of being right, in fact
    correct: NDArray[np.bool_]  # (N,) drawn from it
    clusters: NDArray[np.int64]  # (N,)


def draw_clustered(random: np.random.Generator, clusters: int, fate: float = 1.0) -> Clustered:
    """Answers of whole clusters, of 1 to 200 rows, many small and few large.

    Args:
        random: what all is drawn from.
        clusters: how many.
        fate: standard deviation of what a cluster's rows have in common, on the logit of being right.
    """
    sizes = np.minimum(np.ceil(random.pareto(1.0, clusters) * 3 + 1e-9), 200).astype(np.int64)
    of_row = np.repeat(np.arange(clusters), sizes)
    sure = random.normal(2, 2, len(of_row))
    chance = 1 / (1 + np.exp(-(sure + random.normal(0, fate, clusters)[of_row])))
    return Clustered(1 / (1 + np.exp(-sure)), chance, random.random(len(of_row)) < chance, of_row)
