from __future__ import annotations

import numpy as np
import pytest
from statsmodels.stats.multitest import multipletests

from shelfwise.metrics import sign_test
from shelfwise.pipelines.gains import FEWEST_APART, SHOWN, Grouping, benjamini_hochberg


def grouped(*groups: tuple[int, int]) -> tuple[Grouping, np.ndarray, np.ndarray]:
    """Groups named a, b, c... with so many rows that only the first, and only the second, gets right; and 3 more."""
    names = tuple(chr(ord("a") + i) for i in range(len(groups)))
    of_row = np.concatenate([np.full(won + lost + 3, i) for i, (won, lost) in enumerate(groups)])
    first = np.concatenate([[True] * won + [False] * lost + [True] * 3 for won, lost in groups]).astype(bool)
    second = np.concatenate([[False] * won + [True] * lost + [True] * 3 for won, lost in groups]).astype(bool)
    return Grouping(names, (None,) * len(names), of_row), first, second


def test_groups_are_told_from_the_most_gained_to_the_most_lost() -> None:
    grouping, first, second = grouped((3, 4), (20, 1), (0, 0), (2, 30), (9, 0))
    found = grouping.gains(first, second)
    assert [(gain.name, gain.n, gain.gains, gain.losses, gain.net) for gain in found.found] == [
        ("b", 24, 20, 1, 19),
        ("e", 12, 9, 0, 9),
        ("a", 10, 3, 4, -1),
        ("d", 35, 2, 30, -28),
    ]
    assert [gain.name for gain in found.better] == ["b", "e"]
    assert [gain.name for gain in found.worse] == ["d"]
    assert (found.groups, found.tested) == (5, 4)
    assert found.found[0].p_value == sign_test(20, 1)


def test_a_group_with_too_few_products_to_tell_is_never_clear() -> None:
    assert sign_test(FEWEST_APART, 0) < 0.05 <= sign_test(FEWEST_APART - 1, 0)
    grouping, first, second = grouped((FEWEST_APART - 1, 0), (FEWEST_APART, 0))
    few, enough = sorted(grouping.gains(first, second).found, key=lambda gain: gain.name)
    assert few.adjusted_p_value == 1
    assert enough.adjusted_p_value == enough.p_value  # the only group tested
    assert (few.clear, enough.clear) == (False, True)


def test_one_group_in_many_has_to_be_clearer_than_one_alone() -> None:
    grouping, first, second = grouped((10, 1), *[(4, 4)] * 9)
    alone = grouped((10, 1))
    assert not grouping.gains(first, second).better
    assert alone[0].gains(*alone[1:]).better


def test_of_very_many_groups_the_clear_and_the_largest_are_told() -> None:
    grouping, first, second = grouped(*[(1, 0)] * 12, *[(0, 1)] * 4, *[(40, 0)] * 2)
    found = grouping.gains(first, second).found
    assert [gain.clear for gain in found[:2]] == [True, True]
    assert sum(gain.net > 0 for gain in found) == SHOWN
    assert sum(gain.net < 0 for gain in found) == 4


def test_rows_of_no_group_are_left_out() -> None:
    grouping = Grouping(("a",), (None,), np.array([0, -1, -1]))
    found = grouping.gains(np.array([True, True, True]), np.zeros(3, bool))
    assert [(gain.n, gain.gains) for gain in found.found] == [(1, 1)]


@pytest.mark.parametrize("seed", range(4))
def test_p_values_are_adjusted_as_statsmodels_does(seed: int) -> None:
    p_values = np.round(np.random.default_rng(seed).beta(0.4, 1, 30), 2)  # with ties
    assert benjamini_hochberg(p_values.tolist()) == pytest.approx(multipletests(p_values, method="fdr_bh")[1])
    assert benjamini_hochberg([]) == []


def test_where_nothing_differs_few_groups_are_called_clear() -> None:
    random = np.random.default_rng(0)
    clear = 0
    for _ in range(200):
        tosses = random.random(40 * 25) < 0.5
        grouping = Grouping(tuple(map(str, range(40))), (None,) * 40, np.repeat(np.arange(40), 25))
        found = grouping.gains(tosses, ~tosses)
        clear += bool(found.better or found.worse)
    assert clear <= 0.08 * 200
