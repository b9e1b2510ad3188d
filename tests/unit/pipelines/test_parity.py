"""When a changed answer is a tie, and when it is a flip."""

from __future__ import annotations

import numpy as np

from shelfwise.labels import Labels
from shelfwise.pipelines.parity import Comparison, compare_answers

LABELS = Labels(("a", "b", "c"))


def compared(p: list[list[float]], q: list[list[float]], margin: float = 0.02) -> Comparison:
    texts = [f"text {i}" for i in range(len(p))]
    return compare_answers("p", "q", np.array(p, np.float32), np.array(q, np.float32), texts, LABELS, margin)


def test_the_same_answers_neither_flip_nor_tie() -> None:
    found = compared([[0.6, 0.3, 0.1]], [[0.55, 0.35, 0.1]])
    assert (found.flipped, found.ties) == (0, 0)
    assert abs(found.largest_difference - 0.05) < 1e-6


def test_an_answer_that_changes_between_labels_as_good_as_equal_is_a_tie() -> None:
    found = compared([[0.41, 0.40, 0.19]], [[0.40, 0.41, 0.19]])
    assert (found.flipped, found.ties) == (0, 1)


def test_an_answer_that_changes_by_more_than_the_margin_on_either_side_is_a_flip() -> None:
    found = compared([[0.41, 0.40, 0.19], [0.7, 0.2, 0.1]], [[0.2, 0.6, 0.2], [0.345, 0.35, 0.305]])
    assert (found.flipped, found.ties) == (2, 0)
    assert [(flip.text, flip.first, flip.second) for flip in found.flips] == [
        ("text 0", "a", "b"),
        ("text 1", "a", "b"),
    ]


def test_what_is_no_number_is_no_tie() -> None:
    assert compared([[0.6, 0.3, 0.1]], [[float("nan")] * 3]).flipped == 1
