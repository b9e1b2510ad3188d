"""How well answers agree with the truth: accuracy, F1, calibration, and whether a difference is more than chance.

Everything here takes label positions, not names. A target may lie at or above the number of columns C of the
log-probabilities: it stands for an inventory type that the classifier was never taught, which is always answered wrong.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shelfwise.errors import InputError

Z_95 = 1.959963984540054  # two-sided 95% point of the standard normal
TOP = 3  # answers within which top-3 accuracy looks
_FEW = 16  # columns up to which looking for each apart is quicker than sorting all; measured with 426 of them
ECE_BINS = 15  # Guo et al. 2017, "On Calibration of Modern Neural Networks"
# The smallest normal float32 has this logarithm (nats): a probability that underflowed to 0 costs this much, not
# infinity, so that one row can't hide all others in a mean.
LOG_FLOOR = float(np.log(np.finfo(np.float32).tiny))


@dataclass(frozen=True, slots=True)
class Scores:
    """One classifier's answers to N rows, in numbers."""

    n: int  # rows
    accuracy: float
    macro_f1: float  # over the labels that occur among targets or predictions, equal weight each
    weighted_f1: float  # the same F1s, weighted by support
    top3_accuracy: float  # share of rows whose label is among the three most probable
    mean_nll: float  # nats a row, over the rows whose label the classifier knows
    ece: float  # expected calibration error of the first answer, in [0, 1]


@dataclass(frozen=True, slots=True)
class Ranked:
    """N rows' most probable answers: a few numbers a row, where log-probabilities are one a label."""

    answers: NDArray[np.int64]  # (N, K) label positions, most probable first; ties go to the label that comes first
    probabilities: NDArray[np.float32]  # (N, K) of these answers
    of_truth: NDArray[np.float32]  # (N,) log-probability of the true label, floored; -inf where it is unknown


@dataclass(frozen=True, slots=True)
class TypeScores:
    """How one inventory type fares."""

    label: str
    precision: float  # 0 where the type was never predicted
    recall: float  # 0 where no row is of the type
    f1: float
    support: int  # rows that are of the type
    predicted: int  # rows that were called so


@dataclass(frozen=True, slots=True)
class Interval:
    """A two-sided 95% confidence interval."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Bin:
    """One bar of a reliability diagram."""

    low: float  # confidences in (low, high]; the first bin also holds 0
    high: float
    n: int
    confidence: float  # mean confidence of its rows; 0 when empty
    accuracy: float  # share of its rows that are right; 0 when empty


@dataclass(frozen=True, slots=True)
class Paired:
    """Two classifiers on the same rows: who is right where the other is wrong."""

    gains: int  # rows that only the first gets right
    losses: int  # rows that only the second gets right
    p_value: float  # two-sided McNemar mid-p


def _targets(targets: NDArray[np.integer]) -> NDArray[np.int64]:
    checked = np.asarray(targets, np.int64)
    if checked.ndim != 1 or (checked.size and checked.min() < 0):
        raise InputError("Targets must be a flat array of label positions from 0.")
    return checked


def confusion(targets: NDArray[np.integer], predictions: NDArray[np.integer], n: int) -> NDArray[np.int64]:
    """Count who is taken for whom.

    Args:
        targets: (N,) true label positions, each in [0, n).
        predictions: (N,) answered label positions, each in [0, n).
        n: number of labels, C.

    Returns:
        (C, C) counts; rows are the truth, columns the answers.

    Raises:
        InputError: the lengths differ, or a position lies outside [0, n).
    """
    true, answered = _targets(targets), _targets(predictions)
    if true.shape != answered.shape:
        raise InputError(f"{true.size} targets, but {answered.size} predictions.")
    if true.size and max(true.max(), answered.max()) >= n:
        raise InputError(f"A label position is not below the number of labels ({n}).")
    return np.bincount(true * n + answered, minlength=n * n).reshape(n, n)


def _f1(matrix: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """(C,) precision, recall and F1 of a confusion matrix; 0 where undefined, as sklearn's ``zero_division=0``."""
    hits = np.diag(matrix).astype(np.float64)
    predicted, support = matrix.sum(0), matrix.sum(1)
    precision = hits / np.maximum(predicted, 1)
    recall = hits / np.maximum(support, 1)
    return precision, recall, 2 * hits / np.maximum(predicted + support, 1)


def macro_f1(targets: NDArray[np.integer], predictions: NDArray[np.integer]) -> float:
    """Mean F1 over the labels that occur in targets or predictions: sklearn's ``f1_score(average="macro")``.

    A label that is absent from both has no say; one that is answered but never true, or true but never answered,
    counts with an F1 of 0.
    """
    return _averages(_targets(targets), _targets(predictions))[0]


def _averages(true: NDArray[np.int64], answered: NDArray[np.int64]) -> tuple[float, float]:
    """Macro and weighted F1; both 0 without rows."""
    if not true.size:
        return 0.0, 0.0
    present, compact = np.unique(np.concatenate([true, answered]), return_inverse=True)
    matrix = confusion(compact[: true.size], compact[true.size :], len(present))
    f1 = _f1(matrix)[2]
    return float(f1.mean()), float(np.average(f1, weights=matrix.sum(1)))


def rank(log_probs: NDArray[np.floating], targets: NDArray[np.integer], keep: int = TOP) -> Ranked:
    """Reduce log-probabilities to what scoring needs of them.

    Args:
        log_probs: (N, C) natural logarithms; each row's exponentials sum to 1.
        targets: (N,) true label positions; at or above C for a type the classifier doesn't know.
        keep: answers to keep of each row; cut to C.

    Raises:
        InputError: the numbers of rows differ.
    """
    true = _targets(targets)
    if log_probs.ndim != 2 or len(log_probs) != len(true):
        raise InputError(f"{len(true)} targets, but log-probabilities of shape {log_probs.shape}.")
    answers = top(log_probs, keep)
    of_truth = np.full(len(true), -np.inf, np.float32)
    known = np.flatnonzero(true < log_probs.shape[1])
    of_truth[known] = np.maximum(log_probs[known, true[known]], LOG_FLOOR)
    return Ranked(answers, np.exp(np.take_along_axis(log_probs, answers, axis=1)).astype(np.float32), of_truth)


def top(scores: NDArray[np.floating], keep: int) -> NDArray[np.int64]:
    """(N, keep) columns of each row's highest of (N, C) scores, highest first; of equal ones the first comes first.

    Args:
        scores: -inf is one too; NaN is not.
        keep: cut to C.
    """
    n_rows, n_columns = scores.shape
    if keep > _FEW:
        return np.argsort(-scores, axis=1, kind="stable")[:, :keep]
    found = np.empty((n_rows, min(keep, n_columns)), np.int64)
    left = np.maximum(scores, np.finfo(scores.dtype).min)  # so that -inf is below all, and marks what was taken
    rows = np.arange(n_rows)
    for place in range(found.shape[1]):
        found[:, place] = left.argmax(axis=1)
        left[rows, found[:, place]] = -np.inf
    return found


def scores(log_probs: NDArray[np.floating], targets: NDArray[np.integer]) -> Scores:
    """Score a classifier; arguments and errors as of `rank`."""
    return scores_of(rank(log_probs, targets), targets)


def scores_of(ranked: Ranked, targets: NDArray[np.integer]) -> Scores:
    """Score answers that `rank` has reduced.

    Args:
        ranked: N rows, with at least min(3, C) answers each.
        targets: (N,) true label positions, the ones that `rank` was given.
    """
    true, n = _targets(targets), len(targets)
    if n == 0:
        return Scores(0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    answered = ranked.answers[:, 0]
    macro, weighted = _averages(true, answered)
    of_truth = ranked.of_truth[np.isfinite(ranked.of_truth)]
    return Scores(
        n=n,
        accuracy=float((answered == true).mean()),
        macro_f1=macro,
        weighted_f1=weighted,
        top3_accuracy=float((ranked.answers[:, :TOP] == true[:, None]).any(1).mean()),
        mean_nll=float(-of_truth.mean(dtype=np.float64)) if of_truth.size else 0.0,
        ece=expected_calibration_error(ranked.probabilities[:, 0], answered == true),
    )


def per_type(matrix: NDArray[np.int64], labels: tuple[str, ...]) -> tuple[TypeScores, ...]:
    """Every label's scores, in label order, from a (C, C) confusion matrix."""
    precision, recall, f1 = _f1(matrix)
    support, predicted = matrix.sum(1), matrix.sum(0)
    return tuple(
        TypeScores(label, float(precision[i]), float(recall[i]), float(f1[i]), int(support[i]), int(predicted[i]))
        for i, label in enumerate(labels)
    )


def bin_of(confidence: NDArray[np.floating], bins: int = ECE_BINS) -> NDArray[np.int64]:
    """(N,) which of `bins` equal-width bins each probability is in; open on the left, closed on the right."""
    return np.clip(np.ceil(np.asarray(confidence, np.float64) * bins).astype(np.int64) - 1, 0, bins - 1)


def reliability(confidence: NDArray[np.floating], correct: NDArray[np.bool_], bins: int = ECE_BINS) -> tuple[Bin, ...]:
    """Mean confidence against accuracy in equal-width bins of confidence (Guo et al. 2017).

    Args:
        confidence: (N,) probabilities of the answers given, in [0, 1].
        correct: (N,) whether the answers were right.
        bins: number of bins; each is open on the left and closed on the right.
    """
    which = bin_of(confidence, bins)
    counts = np.bincount(which, minlength=bins)
    some = np.maximum(counts, 1)
    mean = np.bincount(which, weights=confidence, minlength=bins) / some
    right = np.bincount(which, weights=correct, minlength=bins) / some
    return tuple(Bin(i / bins, (i + 1) / bins, int(counts[i]), float(mean[i]), float(right[i])) for i in range(bins))


def expected_calibration_error(
    confidence: NDArray[np.floating], correct: NDArray[np.bool_], bins: int = ECE_BINS
) -> float:
    """Mean gap between confidence and accuracy over `bins` equal-width bins, weighted by rows (Guo et al. 2017)."""
    if not len(confidence):
        return 0.0
    return sum(b.n * abs(b.accuracy - b.confidence) for b in reliability(confidence, correct, bins)) / len(confidence)


def accuracy_interval(correct: int, n: int) -> Interval:
    """Wilson's score interval for a share, 95% two-sided (Wilson 1927); [0, 1] without rows."""
    if n == 0:
        return Interval(0.0, 1.0)
    share, z2 = correct / n, Z_95**2
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z_95 / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return Interval(max(0.0, middle - half), min(1.0, middle + half))


def mcnemar(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> Paired:
    """Test whether two classifiers differ in accuracy, on the rows where exactly one of them is right.

    The mid-p form of the exact test: as powerful as the asymptotic one and valid for small counts
    (Fagerland, Lydersen and Laake 2013, "The McNemar test for binary matched-pairs data").

    Args:
        first: (N,) whether the first classifier is right.
        second: (N,) whether the second is, on the same rows.

    Raises:
        InputError: the numbers of rows differ.
    """
    if first.shape != second.shape:
        raise InputError(f"A paired test needs the same rows: {first.size} against {second.size}.")
    gains, losses = int((first & ~second).sum()), int((second & ~first).sum())
    return Paired(gains, losses, sign_test(gains, losses, mid_p=True))


def sign_test(gains: int, losses: int, *, mid_p: bool = False) -> float:
    """Two-sided p-value of so uneven a number of gains and losses, where either is as likely.

    Args:
        gains: rows that only the first gets right.
        losses: rows that only the second gets right.
        mid_p: count what was observed by half. Without it the test is exact: it errs less often than it may.
    """
    n, fewer = gains + losses, min(gains, losses)
    # Binomial(n, 1/2) in logarithms: the plain form overflows at n = 1,030.
    log_terms = [math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) for k in range(fewer + 1)]
    terms = [math.exp(term - n * math.log(2)) for term in log_terms]
    return min(1.0, 2 * math.fsum(terms) - (terms[-1] if mid_p else 0.0)) if n else 1.0
