"""How far wrong an answer is: scores over a taxonomy that need not be a tree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shelfwise.labels import Taxonomy


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


def hierarchy_scores(
    targets: NDArray[np.integer], predictions: NDArray[np.integer], names: Sequence[str], taxonomy: Taxonomy
) -> HierarchyScores:
    """Score answers by the ancestors that they share with the truth.

    A type's node set is the type, and every sub-category and category that it was seen under: with several parents all
    of them count, as Kiritchenko, Matwin, Nock and Famili (2006) define it for directed acyclic graphs. A type that
    the taxonomy does not hold is its own only node. With T and P the node sets of truth and answer::

        precision = sum |T & P| / sum |P|,  recall = sum |T & P| / sum |T|

    Args:
        targets: (N,) true positions in `names`.
        predictions: (N,) answered positions in `names`.
        names: the labels, in the order that the positions mean.
        taxonomy: where the labels sit.

    Returns:
        The scores; all 0 for no rows.
    """
    pairs, counts = np.unique(np.stack([targets, predictions]), axis=1, return_counts=True)
    levels = [_Levels.of(name, taxonomy) for name in names]
    shared = true_size = answered_size = 0
    apart = {"right": 0, "sub_category": 0, "category": 0, "elsewhere": 0}
    for true, answered, n in zip(*pairs.tolist(), counts.tolist(), strict=True):
        truth, answer = levels[true], levels[answered]
        same = int(true == answered)
        shared += n * (
            same + len(truth.sub_categories & answer.sub_categories) + len(truth.categories & answer.categories)
        )
        true_size += n * len(truth)
        answered_size += n * len(answer)
        apart[_distance(truth, answer, same=bool(same))] += n
    rows = len(targets)
    precision = shared / answered_size if answered_size else 0.0
    recall = shared / true_size if true_size else 0.0
    return HierarchyScores(
        sub_category_accuracy=(apart["right"] + apart["sub_category"]) / rows if rows else 0.0,
        precision=precision,
        recall=recall,
        f1=2 * precision * recall / (precision + recall) if shared else 0.0,
        wrong=rows - apart["right"],
        wrong_same_sub_category=apart["sub_category"],
        wrong_same_category=apart["category"],
        wrong_elsewhere=apart["elsewhere"],
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


def _distance(truth: _Levels, answer: _Levels, *, same: bool) -> str:
    if same:
        return "right"
    if truth.sub_categories & answer.sub_categories:
        return "sub_category"
    return "category" if truth.categories & answer.categories else "elsewhere"
