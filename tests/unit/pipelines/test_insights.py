from __future__ import annotations

import numpy as np
import pytest

from shelfwise.labels import Labels, Taxonomy
from shelfwise.pipelines import doubts, insights
from shelfwise.pipelines.scoring import Rows, majority
from support.answers import answers_of, products


def test_confusions_are_ranked_by_number_with_examples_of_their_own() -> None:
    rows = Rows.of(products(["a", "a", "a", "b", "c", "c"]), Labels(("a", "b", "c")), None)
    found = insights.confusions(insights.mistakes(answers_of(rows, [1, 1, 2, 1, 0, 2]), rows), rows)
    assert [(c.true, c.predicted, c.count, c.support) for c in found] == [
        ("a", "b", 2, 3),
        ("a", "c", 1, 3),
        ("c", "a", 1, 2),
    ]
    assert found[0].examples == ("Thing 0", "Thing 1")


def test_the_grid_is_by_category_where_there_is_one_and_loses_no_row() -> None:
    names = [f"t{i:02}" for i in range(40)]
    products_ = products(names * 2)
    answered = [*range(40), *range(1, 40), 0]
    taxonomy = Taxonomy({name: ((f"category {i // 8}", "", 1),) for i, name in enumerate(names)})
    with_categories = Rows.of(products_, Labels(tuple(names), taxonomy), None)
    grid = insights.grid(answers_of(with_categories, answered), with_categories)
    assert (grid.level, len(grid.names)) == ("category", 5)
    assert np.sum(grid.counts) == 80
    assert np.trace(np.array(grid.counts)) == 80 - 5
    without = Rows.of(products_, Labels(tuple(names)), None)
    grid = insights.grid(answers_of(without, answered), without)
    assert (grid.level, len(grid.names), grid.names[-1]) == ("type", insights.SHOWN_TYPES, insights.OTHERS)
    assert np.sum(grid.counts) == 80


def test_coverage_counts_the_surest_answers_first() -> None:
    found = insights.coverage(np.array([0.2, 0.9, 0.6, 0.4]), np.array([False, True, True, False]))
    assert found == ((0.25, 1.0), (0.5, 1.0), (0.75, pytest.approx(2 / 3)), (1.0, 0.5))


def test_the_majority_ranks_types_by_their_number() -> None:
    rows = Rows.of(products(["b", "b", "b", "a", "a", "z"]), Labels(("a", "b", "c")), None)
    found = majority(rows)
    assert found.predictions.tolist() == [1] * 6
    assert found.ranked.answers[0].tolist() == [1, 0, 2]
    assert found.ranked.of_truth[-1] == -np.inf  # z is unknown
    assert found.confidence[0] == pytest.approx(0.6)


def test_each_category_opens_to_its_own_mistakes() -> None:
    taxonomy = Taxonomy({"a": (("X", "", 3),), "b": (("X", "", 1),), "c": (("Y", "", 2),), "d": (("Z", "", 1),)})
    rows = Rows.of(products(["a", "a", "a", "b", "c", "c", "d"]), Labels(("a", "b", "c", "d"), taxonomy), None)
    answers = answers_of(rows, [1, 1, 2, 1, 0, 2, 3])
    found = insights.by_category(insights.mistakes(answers, rows), rows, ["X", "Y", "Z"])
    assert [(each.category, each.support, each.wrong, each.elsewhere) for each in found] == [
        ("X", 4, 3, 1),
        ("Y", 2, 1, 1),  # Z is without a mistake and left out
    ]
    assert [(pair.true, pair.predicted, pair.count, pair.support) for pair in found[0].confusions] == [
        ("a", "b", 2, 3),
        ("a", "c", 1, 3),
    ]
    assert found[1].confusions[0].examples == ("Thing 4",)


def test_the_catalogue_is_doubted_where_an_answer_is_much_surer_than_the_given_type() -> None:
    rows = Rows.of(products(["a", "a", "a", "a", "b", "z"]), Labels(("a", "b")), None)
    answers = answers_of(
        rows, [1, 1, 1, 0, 0, 0], [0.9, 0.95, 0.7, 0.99, 0.8, 0.99], [0.02, 0.01, 0.25, 0.99, 0.1, 0.0]
    )
    found = doubts.suspects(answers, rows)
    # The third row's margin is 0.45, the fourth is right, and the type of the last was never taught.
    assert [(doubt.source, doubt.given, doubt.answered) for doubt in found] == [
        ("x.csv:3", "a", "b"),
        ("x.csv:2", "a", "b"),
        ("x.csv:6", "b", "a"),
    ]
    assert [doubt.margin for doubt in found] == pytest.approx([0.94, 0.88, 0.7])
    assert len(doubts.suspects(answers, rows, most=2)) == 2


def test_a_name_that_repeats_is_doubted_once() -> None:
    names = ["Blue Rice", "blue  RICE", "Blue Rice", "Red Rice"]
    rows = Rows.of(products(["a", "a", "c", "a"], names), Labels(("a", "b", "c")), None)
    found = doubts.suspects(answers_of(rows, [1, 1, 1, 1], [0.9, 0.9, 0.8, 0.7]), rows)
    assert sorted((doubt.name, doubt.given) for doubt in found) == [
        ("Blue Rice", "a"),
        ("Blue Rice", "c"),
        ("Red Rice", "a"),
    ]


def test_the_least_sure_answers_come_first_right_or_wrong() -> None:
    rows = Rows.of(products(["a", "a", "b"]), Labels(("a", "b")), None)
    found = doubts.unsure(answers_of(rows, [0, 1, 1], [0.6, 0.4, 0.5]), rows, most=2)
    assert [(doubt.source, doubt.confidence) for doubt in found] == [
        ("x.csv:3", pytest.approx(0.4)),
        ("x.csv:4", pytest.approx(0.5)),
    ]
