"""Clustered rows are worth fewer, and a promise that is fitted on them takes that into account."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from shelfwise.calibration import Calibration
from shelfwise.clusters import correlation, effective_sizes
from shelfwise.errors import InputError
from shelfwise.thresholds import MIN_SUPPORT, NEVER, fit_groups, fit_threshold
from support import promises


def test_rows_of_one_fate_count_once_a_cluster_and_strangers_count_each() -> None:
    clusters = np.repeat(np.arange(50), 4)
    all_alike = np.repeat(np.arange(50) % 5 > 0, 4)
    assert correlation(all_alike, clusters) == pytest.approx(1, abs=0.03)
    assert effective_sizes(clusters, 1.0)[-1] == pytest.approx(50)
    assert effective_sizes(clusters, 0.0)[-1] == 200
    strangers = np.random.default_rng(0).random(20_000) < 0.8
    assert correlation(strangers, np.repeat(np.arange(2_000), 10)) < 0.01
    assert correlation(strangers, np.arange(20_000)) == 0


def test_the_correlation_is_the_one_that_was_put_in() -> None:
    """Beta-binomial clusters: chances drawn from Beta(a, b) give a correlation of 1 / (a + b + 1)."""
    random = np.random.default_rng(1)

    def found(n_clusters: int) -> float:
        chance = random.beta(4 * 0.8, 4 * 0.2, n_clusters)
        clusters = np.repeat(np.arange(n_clusters), 6)
        return correlation(random.random(len(clusters)) < chance[clusters], clusters)

    assert found(60_000) == pytest.approx(1 / (4 + 1), abs=0.015)
    assert np.mean([found(60) for _ in range(50)]) > 0.25  # few clusters show it badly: on the safe side


def test_what_the_first_rows_are_worth_is_what_kishs_formula_gives_for_them() -> None:
    clusters = np.random.default_rng(2).integers(0, 7, 60) * 3
    worth = effective_sizes(clusters, 0.3)
    for n in (1, 2, 17, 60):
        _, sizes = np.unique(clusters[:n], return_counts=True)
        mean_size = (sizes**2).sum() / n
        assert worth[n - 1] == pytest.approx(n / (1 + (mean_size - 1) * 0.3))
    assert effective_sizes(np.zeros(0, np.int64), 0.3).size == 0


@pytest.mark.parametrize("correct", [np.ones(40, bool), np.zeros(40, bool), np.zeros(0, bool)])
def test_without_both_right_and_wrong_rows_nothing_shows_how_alike_they_are(correct: np.ndarray) -> None:
    assert correlation(correct, np.arange(len(correct)) // 4) == 0


def test_clusters_of_one_row_change_no_threshold() -> None:
    drawn = promises.draw_clustered(np.random.default_rng(0), 300)
    each_for_itself = np.arange(len(drawn.correct))
    plain = fit_threshold(drawn.confidence, drawn.correct, 0.9)
    assert fit_threshold(drawn.confidence, drawn.correct, 0.9, each_for_itself) == plain
    assert plain.accepted > MIN_SUPPORT


def test_a_promise_on_whole_new_clusters_is_kept_at_the_stated_rate_only_with_the_clusters_bound() -> None:
    """200 worlds in each of which whole clusters are new; the truth of what is accepted is read off 4,000 new ones."""
    random = np.random.default_rng(3)
    new = promises.draw_clustered(random, 20_000)
    broken, accepted, worlds = {"rows": 0, "clusters": 0}, 0.0, 200
    for _ in range(worlds):
        seen = promises.draw_clustered(random, 400)
        for bound, clusters in (("rows", None), ("clusters", seen.clusters)):
            threshold = fit_threshold(seen.confidence, seen.correct, 0.9, clusters).confidence
            taken = new.confidence >= threshold
            broken[bound] += bool(taken.any()) and new.chance[taken].mean() < 0.9
        accepted += taken.mean()
    most = binom.ppf(0.99, worlds, 0.05)  # what 99 of 100 such tests stay under at a rate of 5%
    assert broken["clusters"] <= most < broken["rows"]
    assert accepted / worlds > 0.25


def test_groups_take_how_alike_rows_are_from_all_rows() -> None:
    clusters = np.repeat(np.arange(60), 10)
    correct = np.repeat(np.arange(60) % 10 > 0, 10)  # whole clusters are wrong
    confidence = np.linspace(1, 0.5, 600)
    groups = np.where(np.arange(600) < 400, 0, 1)
    correct[:400] = True  # the group alone would show no correlation
    plain = fit_groups(confidence, correct, groups, 0.9, 0.0)
    careful = fit_groups(confidence, correct, groups, 0.9, 0.0, clusters)
    assert plain[0] == confidence[399]
    assert careful.get(0, NEVER) == confidence[399]
    few = groups.copy()
    few[60:400] = -1  # 60 right rows, but of 6 clusters
    assert 0 in fit_groups(confidence, correct, few, 0.9, 0.0)
    assert 0 not in fit_groups(confidence, correct, few, 0.9, 0.0, clusters)


def test_a_calibration_on_clusters_accepts_less_and_says_what_its_bound_is() -> None:
    random = np.random.default_rng(5)
    drawn = promises.draw_clustered(random, 200)
    log_probs = np.log(np.stack([drawn.confidence, 1 - drawn.confidence], axis=1))
    targets = np.where(drawn.correct, 0, 1)
    plain, careful = (Calibration.fit(log_probs, targets, 0.9, clusters=c) for c in (None, drawn.clusters))
    assert careful.threshold > plain.threshold
    assert careful.precision_low >= 0.9
    assert careful.temperature == plain.temperature
    with pytest.raises(InputError, match="clusters of 3 rows"):
        Calibration.fit(log_probs, targets, clusters=np.zeros(3, np.int64))
