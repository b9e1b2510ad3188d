"""The confidences from which answers keep a promise: of all answers, of one type, of one category."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from shelfwise.clusters import correlation, effective_sizes
from shelfwise.labels import Labels

NEVER = 1.01  # a threshold above every probability: no answer is accepted
MIN_SUPPORT = 30  # validation rows that a threshold must rest on


class Threshold(NamedTuple):
    """A confidence that keeps a promise, and the rows that show it."""

    confidence: float  # `NEVER` where none does
    accepted: int  # rows at or above it
    right: int  # of the accepted
    low: float  # the lower 95% bound of the share of right ones


Count = NDArray[np.integer] | NDArray[np.floating] | float


def lower_bound(right: Count, n: Count) -> NDArray[np.float64]:
    """Clopper and Pearson's (1934) one-sided lower 95% bound of a share; 0 where nothing is right.

    Of clustered rows the counts are effective ones (`clusters`), and no whole numbers.
    """
    from scipy.stats import beta

    bound = beta.ppf(0.05, right, np.asarray(n) - right + 1)
    return np.where(np.asarray(right) > 0, bound, 0.0)


def fit_threshold(
    confidence: NDArray[np.floating],
    correct: NDArray[np.bool_],
    promise: float,
    clusters: NDArray[np.integer] | None = None,
    alike: float | None = None,
) -> Threshold:
    """The smallest confidence at which answers still keep the promise.

    The bound is looked up at every confidence, so it is no strict guarantee; measured, it comes close to one. In 300
    bootstrap draws each of 150, 500 and 2,000 validation rows (the baseline on BigBasket), the true precision at the
    threshold fell short of a promise of 0.90 or 0.95 in 2 to 5% of the draws, and of 0.98 in up to 8%.

    Args:
        confidence: (N,) calibrated probabilities of the answers.
        correct: (N,) whether they are right.
        promise: the precision that the accepted answers' lower 95% bound must reach, on `MIN_SUPPORT` rows or more.
        clusters: (N,) the cluster of each row, where whole clusters were held out; None: the rows are independent.
        alike: the `clusters.correlation` of the rows; None: told from these.
    """
    order = np.argsort(-confidence, kind="stable")
    ranked = confidence[order]
    right = np.cumsum(correct[order], dtype=np.int64)
    accepted = np.arange(1, len(ranked) + 1)
    worth = accepted.astype(np.float64)
    if clusters is not None and len(ranked):
        worth = effective_sizes(clusters[order], correlation(correct, clusters) if alike is None else alike)
    low = lower_bound(right * (worth / accepted), worth)
    # Rows of equal confidence are accepted together or not at all.
    last_of_its_value = np.append(ranked[1:] != ranked[:-1], True)[: len(ranked)]
    keeps = last_of_its_value & (worth >= MIN_SUPPORT) & (low >= promise)
    if not keeps.any():
        return Threshold(NEVER, 0, 0, 0.0)
    position = int(np.flatnonzero(keeps)[-1])
    return Threshold(float(ranked[position]), int(accepted[position]), int(right[position]), float(low[position]))


def fit_groups(
    confidence: NDArray[np.floating],
    correct: NDArray[np.bool_],
    groups: NDArray[np.integer],
    promise: float,
    floor: float,
    clusters: NDArray[np.integer] | None = None,
) -> dict[int, float]:
    """Each group's own threshold, where its rows show one; never below the one of all rows.

    The more thresholds are fitted, the more of them are lucky. Held at or above the threshold of all rows, own ones
    can only take answers away: the promise broke in 0 to 3% of simulated worlds, without the floor in up to 8.5%
    (docs/lab-notes.md, "thresholds of types").

    Args:
        confidence: (N,) calibrated probabilities of the answers.
        correct: (N,) whether they are right.
        groups: (N,) the group of each answer; negative for none.
        promise: the precision that accepted answers are to have in each group.
        floor: the threshold of all rows.
        clusters: (N,) as for `fit_threshold`; how alike their rows are is told from all N, for a group has few.

    Returns:
        Thresholds by group. Groups of less than `MIN_SUPPORT` rows, and those where no threshold keeps the promise,
        are left out.
    """
    found = {}
    alike = None if clusters is None else correlation(correct, clusters)
    for group in np.flatnonzero(np.bincount(groups[groups >= 0]) >= MIN_SUPPORT).tolist():
        own = groups == group
        in_clusters = None if clusters is None else clusters[own]
        threshold = fit_threshold(confidence[own], correct[own], promise, in_clusters, alike)
        if threshold.accepted:
            found[group] = max(threshold.confidence, floor)
    return found


@dataclass(frozen=True, slots=True, eq=False)
class Nodes:
    """One level above C labels. A label that was seen under several nodes counts for its most frequent one."""

    paths: tuple[tuple[str, ...], ...]  # K nodes, sorted: (category,) each, or (category, sub-category)
    of_label: NDArray[np.int64]  # (C,) positions in `paths`; -1 for a label that the taxonomy puts under none
    _order: NDArray[np.int64]  # the labels that have a node, those of one node together
    _starts: NDArray[np.int64]  # (K,) where each node begins in `_order`

    @classmethod
    def of(cls, labels: Labels, depth: int) -> Nodes:
        """The nodes at a depth: 1 for categories, 2 for sub-categories.

        Sub-categories of one name under two categories are two nodes.
        """
        above = [labels.taxonomy.path(name)[:-1][:depth] for name in labels]
        paths = tuple(sorted({path for path in above if len(path) == depth}))
        position = {path: i for i, path in enumerate(paths)}
        of_label = np.array([position.get(path, -1) for path in above], np.int64)
        order = np.argsort(of_label, kind="stable")[int((of_label < 0).sum()) :]
        return cls(paths, of_label, order, np.searchsorted(of_label[order], np.arange(len(paths))))

    def sums(self, probabilities: NDArray[np.floating]) -> NDArray[np.float64]:
        """(N, K) probabilities of the nodes from (N, C) of the labels; each row sums to 1 or less."""
        if not self.paths:
            return np.zeros((len(probabilities), 0))
        # Sums in a fixed order, unlike a matrix product's: a text's answer must not depend on its neighbours.
        summed = np.add.reduceat(probabilities[:, self._order].astype(np.float64), self._starts, axis=1)
        return np.minimum(summed, 1.0)

    def best(self, probabilities: NDArray[np.floating]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """(N,) the most probable node of each row, the first among equals, and (N,) its probability.

        Without any node: -1, and 0.
        """
        if not self.paths:
            return np.full(len(probabilities), -1, np.int64), np.zeros(len(probabilities))
        sums = self.sums(probabilities)
        node = sums.argmax(axis=1)
        return node, sums[np.arange(len(node)), node]

    def named(self, thresholds: dict[int, float]) -> dict[str, float]:
        """Thresholds by the last level's name instead of by node."""
        return {self.paths[node][-1]: threshold for node, threshold in thresholds.items()}


@dataclass(frozen=True, slots=True, eq=False)
class Decided:
    """How deep N answers are sure."""

    level: NDArray[np.int64]  # (N,) positions in `records.LEVELS`
    node: NDArray[np.int64]  # (N,) what is sure at that level: a position among labels or nodes; -1 where nothing is

    @classmethod
    def joined(cls, parts: Iterable[Decided]) -> Decided:
        """The parts one after the other."""
        parts = list(parts)
        return cls(np.concatenate([p.level for p in parts]), np.concatenate([p.node for p in parts]))


@dataclass(frozen=True, slots=True, eq=False)
class Shelves:
    """The levels of a run's labels, deepest first, laid out for arithmetic."""

    labels: Labels
    paths: tuple[tuple[str, ...], ...]  # (C,) of each label, from the category down
    sub_categories: Nodes
    categories: Nodes

    @classmethod
    def of(cls, labels: Labels) -> Shelves:
        """Lay out the labels' taxonomy."""
        return cls(labels, tuple(map(labels.taxonomy.path, labels)), Nodes.of(labels, 2), Nodes.of(labels, 1))

    @property
    def above(self) -> tuple[Nodes, Nodes]:
        """The levels above the type, as `records.LEVELS` orders them."""
        return self.sub_categories, self.categories

    def path(self, level: int, node: int) -> tuple[str, ...]:
        """What is sure, from the category down; () where nothing is."""
        if level == 0:
            return self.paths[node]
        return self.above[level - 1].paths[node] if node >= 0 else ()

    def right(self, decided: Decided, targets: NDArray[np.integer]) -> NDArray[np.bool_]:
        """(N,) whether what is sure is true; targets at or above C are of a type that the run doesn't know."""
        n_labels = len(self.labels)
        truth = [np.arange(n_labels), *(nodes.of_label for nodes in self.above)]
        right = np.zeros(len(targets), np.bool_)
        for level, of_label in enumerate(truth):
            true = np.append(of_label, -1)[np.minimum(targets, n_labels)]
            right |= (decided.level == level) & (true == decided.node) & (true >= 0)
        return right
