from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from sklearn import metrics as sklearn_metrics
from sklearn.calibration import calibration_curve
from statsmodels.stats import contingency_tables
from statsmodels.stats.proportion import proportion_confint

from shelfwise import metrics
from shelfwise.errors import InputError

LABELS = 9


def random_answers(seed: int, rows: int = 400) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """(rows, LABELS) log-probabilities that favour the truth a little, and targets that skip some labels."""
    random = np.random.default_rng(seed)
    targets = random.choice([0, 1, 2, 4, 7], rows)
    logits = random.normal(size=(rows, LABELS))
    logits[np.arange(rows), targets] += 1
    logits[:, 5] = -50  # never answered, never true
    return (logits - np.log(np.exp(logits).sum(1, keepdims=True))).astype(np.float32), targets


@pytest.mark.parametrize("seed", range(5))
def test_every_score_equals_that_of_scikit_learn(seed: int) -> None:
    log_probs, targets = random_answers(seed)
    answers = log_probs.argmax(1)
    found = metrics.scores(log_probs, targets)
    every = range(LABELS)
    assert found.n == len(targets)
    assert found.accuracy == pytest.approx(sklearn_metrics.accuracy_score(targets, answers))
    for average, value in (("macro", found.macro_f1), ("weighted", found.weighted_f1)):
        assert value == pytest.approx(sklearn_metrics.f1_score(targets, answers, average=average, zero_division=0))
    top3 = sklearn_metrics.top_k_accuracy_score(targets, log_probs, k=3, labels=list(every))
    assert found.top3_accuracy == pytest.approx(top3)
    probabilities = np.exp(log_probs.astype(np.float64))
    probabilities /= probabilities.sum(1, keepdims=True)
    nll = sklearn_metrics.log_loss(targets, probabilities, labels=list(every))
    assert found.mean_nll == pytest.approx(nll, rel=1e-5)
    assert metrics.macro_f1(targets, answers) == found.macro_f1


def test_the_confusion_matrix_and_the_per_type_scores_equal_those_of_scikit_learn() -> None:
    log_probs, targets = random_answers(7)
    answers = log_probs.argmax(1)
    matrix = metrics.confusion(targets, answers, LABELS)
    assert matrix.dtype == np.int64
    assert (matrix == sklearn_metrics.confusion_matrix(targets, answers, labels=range(LABELS))).all()
    expected = sklearn_metrics.precision_recall_fscore_support(targets, answers, labels=range(LABELS), zero_division=0)
    found = metrics.per_type(matrix, tuple("abcdefghi"))
    assert "".join(row.label for row in found) == "abcdefghi"
    assert np.allclose([(r.precision, r.recall, r.f1, r.support) for r in found], np.transpose(expected))
    assert [r.predicted for r in found] == np.bincount(answers, minlength=LABELS).tolist()


def test_a_label_the_classifier_does_not_know_is_always_wrong_and_counts_in_macro_f1() -> None:
    log_probs = np.log(np.array([[0.8, 0.2], [0.4, 0.6]], np.float32))
    known = metrics.scores(log_probs, np.array([0, 1]))
    assert (known.accuracy, known.macro_f1, known.top3_accuracy) == (1, 1, 1)
    unknown = metrics.scores(log_probs, np.array([0, 5]))
    assert unknown.accuracy == unknown.top3_accuracy == 0.5
    assert unknown.macro_f1 == pytest.approx(1 / 3)  # right, answered but never true, true but never answered
    assert unknown.mean_nll == pytest.approx(-math.log(0.8))


def test_ties_go_to_the_label_that_comes_first() -> None:
    even = np.log(np.full((1, 4), 0.25, np.float32))
    assert metrics.rank(even, np.array([0]), keep=9).answers.tolist() == [[0, 1, 2, 3]]
    assert metrics.scores(even, np.array([0])).accuracy == 1
    assert metrics.scores(even, np.array([3])).top3_accuracy == 0


def test_rows_can_be_ranked_in_pieces() -> None:
    log_probs, targets = random_answers(3)
    pieces = [metrics.rank(log_probs[i : i + 77], targets[i : i + 77]) for i in range(0, len(targets), 77)]
    whole = metrics.Ranked(
        np.concatenate([piece.answers for piece in pieces]),
        np.concatenate([piece.probabilities for piece in pieces]),
        np.concatenate([piece.of_truth for piece in pieces]),
    )
    assert metrics.scores_of(whole, targets) == metrics.scores(log_probs, targets)


def test_a_probability_that_underflowed_costs_much_but_not_infinity() -> None:
    log_probs = np.array([[0.0, -np.inf]], np.float32)
    assert metrics.scores(log_probs, np.array([1])).mean_nll == pytest.approx(87.3, abs=0.1)


def test_no_rows_score_nothing_and_fail_nowhere() -> None:
    empty = metrics.scores(np.zeros((0, 3), np.float32), np.zeros(0, np.int64))
    assert empty.n == 0
    assert empty.macro_f1 == 0
    assert metrics.expected_calibration_error(np.zeros(0), np.zeros(0, bool)) == 0


def test_calibration_error_is_the_gap_between_confidence_and_accuracy() -> None:
    confidence = np.array([0.95] * 10 + [0.55] * 10)
    correct = np.array([True] * 8 + [False] * 2 + [True] * 5 + [False] * 5)
    assert metrics.expected_calibration_error(confidence, correct) == pytest.approx(0.5 * 0.15 + 0.5 * 0.05)


def test_bins_are_closed_on_the_right_and_hold_zero_and_one() -> None:
    bins = metrics.reliability(np.array([0.0, 0.5, 0.500001, 1.0]), np.ones(4, bool), bins=2)
    assert [b.n for b in bins] == [2, 2]
    assert (bins[0].low, bins[1].high) == (0, 1)


def test_the_calibration_error_is_that_of_torchmetrics() -> None:
    from torch import from_numpy
    from torchmetrics.functional.classification import multiclass_calibration_error

    log_probs, targets = random_answers(11, rows=3000)
    probabilities = from_numpy(np.exp(log_probs))
    expected = multiclass_calibration_error(probabilities, from_numpy(targets), LABELS, n_bins=15, norm="l1")
    assert metrics.scores(log_probs, targets).ece == pytest.approx(float(expected), abs=1e-5)


def test_the_reliability_diagram_is_that_of_scikit_learn() -> None:
    log_probs, targets = random_answers(12, rows=3000)
    confidence, right = np.exp(log_probs.max(1)), log_probs.argmax(1) == targets
    accuracy, mean = calibration_curve(right, confidence, n_bins=15)
    found = [each for each in metrics.reliability(confidence, right) if each.n]
    assert [(each.accuracy, each.confidence) for each in found] == [
        (pytest.approx(a), pytest.approx(c)) for a, c in zip(accuracy, mean, strict=True)
    ]


@pytest.mark.parametrize(("correct", "n"), [(0, 10), (10, 10), (41, 50), (4370, 5511)])
def test_the_accuracy_interval_is_wilsons(correct: int, n: int) -> None:
    found = metrics.accuracy_interval(correct, n)
    assert (found.low, found.high) == pytest.approx(proportion_confint(correct, n, method="wilson"))


def test_without_rows_the_accuracy_may_be_anything() -> None:
    assert metrics.accuracy_interval(0, 0) == metrics.Interval(0, 1)


@pytest.mark.parametrize(("gains", "losses"), [(0, 0), (1, 0), (7, 7), (3, 12), (12, 3), (900, 1100)])
def test_mcnemars_mid_p_equals_the_binomial_sum(gains: int, losses: int) -> None:
    first = np.array([True] * gains + [False] * losses + [True] * 5 + [False] * 5)
    second = np.array([False] * gains + [True] * losses + [True] * 5 + [False] * 5)
    found = metrics.mcnemar(first, second)
    assert (found.gains, found.losses) == (gains, losses)
    n, fewer = gains + losses, min(gains, losses)
    expected = 2 * stats.binom.cdf(fewer, n, 0.5) - stats.binom.pmf(fewer, n, 0.5) if n else 1
    assert found.p_value == pytest.approx(expected)


@pytest.mark.parametrize(("gains", "losses"), [(0, 0), (1, 0), (7, 7), (3, 12), (12, 3), (900, 1100)])
def test_both_forms_of_mcnemars_test_agree_with_statsmodels(gains: int, losses: int) -> None:
    exact = contingency_tables.mcnemar([[5, gains], [losses, 5]], exact=True).pvalue if gains + losses else 1
    assert metrics.sign_test(gains, losses) == pytest.approx(exact)
    half = stats.binom.pmf(min(gains, losses), gains + losses, 0.5) if gains + losses else 0
    twice = 2 * stats.binom.cdf(min(gains, losses), gains + losses, 0.5)  # exact is cut at 1 where both are alike
    assert metrics.sign_test(gains, losses, mid_p=True) == pytest.approx(min(1, twice - half))


def test_wrong_shapes_and_positions_are_refused() -> None:
    log_probs = np.zeros((2, 3), np.float32)
    for targets in (np.array([0]), np.array([0, -1]), np.array([[0, 1]])):
        with pytest.raises(InputError):
            metrics.scores(log_probs, targets)
    with pytest.raises(InputError, match="not below the number of labels"):
        metrics.confusion(np.array([0]), np.array([3]), 3)
    with pytest.raises(InputError, match="1 targets, but 2 predictions"):
        metrics.confusion(np.array([0]), np.array([1, 2]), 3)
    with pytest.raises(InputError, match="same rows"):
        metrics.mcnemar(np.ones(2, bool), np.ones(3, bool))


def test_the_highest_columns_are_those_of_a_stable_sort() -> None:
    rng = np.random.default_rng(5)
    scores = rng.integers(0, 6, (200, 30)).astype(np.float32)  # many ties
    scores[rng.random(scores.shape) < 0.3] = -np.inf
    scores[0] = -np.inf
    for keep in (1, 3, 16, 17, 30, 40):
        expected = np.argsort(-scores, axis=1, kind="stable")[:, :keep]
        assert (metrics.top(scores, keep) == expected).all()
