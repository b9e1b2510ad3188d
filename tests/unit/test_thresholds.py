from __future__ import annotations

import numpy as np
import pytest

from shelfwise.thresholds import MIN_SUPPORT, NEVER, fit_groups, fit_threshold, lower_bound


def test_the_threshold_is_the_smallest_that_keeps_the_promise() -> None:
    confidence = np.linspace(1, 0, 1000)
    correct = np.arange(1000) < 600
    threshold, accepted, right, low = fit_threshold(confidence, correct, 0.95)
    assert low == lower_bound(right, accepted)
    assert right == 600
    assert lower_bound(right, accepted) >= 0.95 > lower_bound(right, accepted + 1)
    assert threshold == confidence[accepted - 1]
    assert (confidence >= threshold).sum() == accepted


def test_rows_of_one_confidence_are_accepted_together_or_not_at_all() -> None:
    confidence = np.array([0.9] * 100 + [0.8] * 100)
    correct = np.array([True] * 100 + [True] * 50 + [False] * 50)
    assert fit_threshold(confidence, correct, 0.9)[:3] == (0.9, 100, 100)


@pytest.mark.parametrize(("right", "promise"), [(29, 0.5), (200, 0.999)])
def test_nothing_is_accepted_on_too_little_evidence(right: int, promise: float) -> None:
    threshold, accepted, _, _ = fit_threshold(np.linspace(0.9, 1, right), np.ones(right, bool), promise)
    assert (threshold, accepted) == (NEVER, 0)


def test_the_lower_bound_is_clopper_and_pearsons() -> None:
    """Against two independent implementations; the lower end of a two-sided 90% interval is the one-sided 95% bound."""
    from scipy.stats import binomtest
    from statsmodels.stats.proportion import proportion_confint

    for right, n in ((1, 30), (29, 30), (30, 30), (950, 1000), (59, 59)):
        found = float(lower_bound(right, n))
        exact = binomtest(right, n, alternative="greater").proportion_ci(0.95, method="exact").low
        assert found == pytest.approx(exact)
        assert found == pytest.approx(proportion_confint(right, n, alpha=0.1, method="beta")[0])
    assert lower_bound(0, 10) == 0
    assert lower_bound(58, 58) < 0.95 <= lower_bound(59, 59)  # 0.95 takes 59 right answers of 59


def test_no_rows_give_no_threshold() -> None:
    assert fit_threshold(np.zeros(0), np.zeros(0, bool), 0.9) == (NEVER, 0, 0, 0)
    assert fit_groups(np.zeros(0), np.zeros(0, bool), np.zeros(0, np.int64), 0.9, 0.5) == {}


def test_a_group_gets_the_threshold_of_its_own_rows_and_none_below_that_of_all() -> None:
    confidence = np.tile(np.linspace(1, 0, 200), 2)
    groups = np.repeat([0, 3], 200)
    correct = np.concatenate([np.arange(200) < 100, np.ones(200, bool)])
    own, _, _, _ = fit_threshold(confidence[:200], correct[:200], 0.9)
    assert own > 0.4
    assert fit_groups(confidence, correct, groups, 0.9, floor=0.4) == {0: own, 3: 0.4}


def test_a_rare_group_never_gets_its_own_threshold() -> None:
    rare = MIN_SUPPORT - 1
    groups = np.concatenate([np.zeros(rare, np.int64), np.ones(MIN_SUPPORT, np.int64), -np.ones(50, np.int64)])
    confidence = np.linspace(1, 0.5, len(groups))
    assert fit_groups(confidence, np.ones(len(groups), bool), groups, 0.5, 0.0).keys() == {1}


def test_a_group_that_shows_no_threshold_is_left_to_the_one_above_it() -> None:
    correct = np.arange(100) % 2 == 0
    assert fit_groups(np.linspace(1, 0.5, 100), correct, np.zeros(100, np.int64), 0.9, 0.2) == {}
