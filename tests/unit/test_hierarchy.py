from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shelfwise.hierarchy import overlaps, scores_of_overlaps
from shelfwise.labels import Taxonomy

NAMES = ("Shampoo", "Hair Oil", "Face Wash", "Rice", "Unknown")
TAXONOMY = Taxonomy(
    {
        "Shampoo": (("Beauty", "Hair", 9),),
        "Hair Oil": (("Beauty", "Hair", 5), ("Food", "Oils", 2)),  # two parents: not a tree
        "Face Wash": (("Beauty", "Skin", 4),),
        "Rice": (("Food", "Grains", 8),),
    }
)
ROWS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=40)


def scores(*pairs):
    true, answered = np.array(pairs).T
    return scores_of_overlaps(overlaps(true, answered, NAMES, TAXONOMY))


def test_right_answers_score_one_at_every_level():
    found = scores((0, 0), (1, 1), (4, 4))
    assert (found.precision, found.recall, found.f1, found.sub_category_accuracy, found.wrong) == (1, 1, 1, 1, 0)


def test_a_worked_example_with_two_parents():
    # Shampoo = {Shampoo, Hair, Beauty}; Hair Oil = {Hair Oil, Hair, Oils, Beauty, Food}: two nodes are shared.
    found = scores((0, 1))
    assert found.precision == pytest.approx(2 / 5)
    assert found.recall == pytest.approx(2 / 3)
    assert found.f1 == pytest.approx(0.5)
    assert found.wrong_same_sub_category == 1


def test_mistakes_are_told_apart_by_how_far_they_are():
    found = scores((0, 1), (0, 2), (0, 3), (3, 1), (3, 3), (0, 4))
    assert (found.wrong, found.wrong_same_sub_category, found.wrong_same_category, found.wrong_elsewhere) == (
        5,
        1,
        2,
        2,
    )
    assert found.sub_category_accuracy == pytest.approx(2 / 6)


@given(ROWS)
def test_scores_equal_the_definition_computed_over_sets(pairs):
    def nodes(position):
        paths = TAXONOMY.paths.get(NAMES[position], ())
        return {("t", position)} | {("c", c) for c, _, _ in paths} | {("s", s) for _, s, _ in paths}

    both = sum(len(nodes(t) & nodes(p)) for t, p in pairs)
    found = scores(*pairs)
    assert found.precision == pytest.approx(both / sum(len(nodes(p)) for _, p in pairs))
    assert found.recall == pytest.approx(both / sum(len(nodes(t)) for t, _ in pairs))
    parts = found.wrong_same_sub_category + found.wrong_same_category + found.wrong_elsewhere
    assert found.wrong == parts == sum(t != p for t, p in pairs)


def test_in_a_tree_the_scores_are_those_of_hiclass():
    from hiclass import metrics as hiclass_metrics

    names = [f"type {i}" for i in range(24)]
    paths = [(f"category {i // 8}", f"shelf {i // 4}", name) for i, name in enumerate(names)]
    tree = Taxonomy({path[-1]: ((*path[:2], 5),) for path in paths})
    random = np.random.default_rng(0)
    true = random.integers(0, 24, 500)
    answered = np.where(random.random(500) < 0.6, true, random.integers(0, 24, 500))
    found = scores_of_overlaps(overlaps(true, answered, names, tree))
    of_both = np.array(paths)[true], np.array(paths)[answered]
    assert found.precision == pytest.approx(hiclass_metrics.precision(*of_both))
    assert found.recall == pytest.approx(hiclass_metrics.recall(*of_both))
    assert found.f1 == pytest.approx(hiclass_metrics.f1(*of_both))
    assert 0.6 < found.f1 < 1


def test_no_rows_score_nothing():
    empty = np.zeros(0, np.int64)
    assert scores_of_overlaps(overlaps(empty, empty, NAMES, TAXONOMY)).f1 == 0
