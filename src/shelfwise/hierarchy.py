"""How far wrong an answer is: scores over a taxonomy that need not be a tree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shelfwise.labels import Taxonomy

# How far an answer is from the truth: nearer is smaller.
RIGHT, SAME_SUB_CATEGORY, SAME_CATEGORY, ELSEWHERE = range(4)


@dataclass(frozen=True, slots=True)
class HierarchyScores:
    """N answers held against the taxonomy."""

    sub_category_accuracy: float  # share of rows whose answer shares a sub-category with the truth, or is right
    precision: float  # hierarchical precision, recall and F1 of Kiritchenko et al. 2006, micro-averaged
    recall: float
    f1: float
    wrong: int  # rows; the three below sum to it
    wrong_same_sub_category: int
    wrong_same_category: int  # another sub-category of a category that both sit under
    wrong_elsewhere: int


@dataclass(frozen=True, slots=True)
class Overlaps:
    """What the node sets of truth and answer share, row by row (see `overlaps`)."""

    shared: NDArray[np.int64]  # (N,) nodes in both
    of_truth: NDArray[np.int64]  # (N,) nodes of the true type
    of_answer: NDArray[np.int64]  # (N,) nodes of the answered one
    distance: NDArray[np.int64]  # (N,) RIGHT, SAME_SUB_CATEGORY, SAME_CATEGORY or ELSEWHERE

    @property
    def sub_category_right(self) -> NDArray[np.bool_]:
        """(N,) whether the answer is right or shares a sub-category with the truth."""
        return self.distance <= SAME_SUB_CATEGORY


def overlaps(
    targets: NDArray[np.integer], predictions: NDArray[np.integer], names: Sequence[str], taxonomy: Taxonomy
) -> Overlaps:
    """Hold each answer's ancestors against those of the truth.

    A type's node set is the type, and every sub-category and category that it was seen under: with several parents all
    of them count, as Kiritchenko, Matwin, Nock and Famili (2006) define it for directed acyclic graphs. A type that
    the taxonomy does not hold is its own only node.

    Args:
        targets: (N,) true positions in `names`.
        predictions: (N,) answered positions in `names`.
        names: the labels, in the order that the positions mean.
        taxonomy: where the labels sit.
    """
    pairs, of_row = np.unique(np.asarray(targets) * len(names) + predictions, return_inverse=True)
    found = np.zeros((len(pairs), 4), np.int64)
    levels: dict[int, _Levels] = {}
    for i, pair in enumerate(pairs.tolist()):
        true, answered = divmod(pair, len(names))
        for position in (true, answered):
            if position not in levels:
                levels[position] = _Levels.of(names[position], taxonomy)
        truth, answer = levels[true], levels[answered]
        shared = len(truth.sub_categories & answer.sub_categories) + len(truth.categories & answer.categories)
        distance = _distance(truth, answer, same=true == answered)
        found[i] = shared + (true == answered), len(truth), len(answer), distance
    return Overlaps(*found[of_row.reshape(-1)].T)


def scores_of_overlaps(rows: Overlaps) -> HierarchyScores:
    """Score N answers.

    With T and P the node sets of truth and answer, micro-averaged as Kiritchenko et al. (2006) do::

        precision = sum |T & P| / sum |P|,  recall = sum |T & P| / sum |T|

    Returns:
        The scores; all 0 for no rows.
    """
    shared, true_size, answered_size = int(rows.shared.sum()), int(rows.of_truth.sum()), int(rows.of_answer.sum())
    apart = np.bincount(rows.distance, minlength=ELSEWHERE + 1).tolist()
    n = len(rows.shared)
    return HierarchyScores(
        sub_category_accuracy=(apart[RIGHT] + apart[SAME_SUB_CATEGORY]) / n if n else 0.0,
        precision=shared / answered_size if answered_size else 0.0,
        recall=shared / true_size if true_size else 0.0,
        f1=2 * shared / (true_size + answered_size) if n else 0.0,
        wrong=n - apart[RIGHT],
        wrong_same_sub_category=apart[SAME_SUB_CATEGORY],
        wrong_same_category=apart[SAME_CATEGORY],
        wrong_elsewhere=apart[ELSEWHERE],
    )


@dataclass(frozen=True, slots=True)
class _Levels:
    """A type's ancestors."""

    categories: frozenset[str]
    sub_categories: frozenset[str]

    @classmethod
    def of(cls, name: str, taxonomy: Taxonomy) -> _Levels:
        paths = taxonomy.paths.get(name, ())
        return cls(frozenset(c for c, _, _ in paths if c), frozenset(s for _, s, _ in paths if s))

    def __len__(self) -> int:
        return 1 + len(self.categories) + len(self.sub_categories)


def _distance(truth: _Levels, answer: _Levels, *, same: bool) -> int:
    if same:
        return RIGHT
    if truth.sub_categories & answer.sub_categories:
        return SAME_SUB_CATEGORY
    return SAME_CATEGORY if truth.categories & answer.categories else ELSEWHERE
