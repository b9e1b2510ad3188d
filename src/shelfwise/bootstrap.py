"""How far the figures of an evaluation may be from what they would be on average: the bootstrap over rows.

N rows are drawn from the N evaluated ones with replacement, again and again, and each figure is reckoned for each
draw (Efron and Tibshirani 1993, "An Introduction to the Bootstrap"). Which interval is made of the draws was chosen
by its coverage on synthetic rows of known truth (`benchmarks/intervals.py`; the numbers are in its results):

- **Macro-F1, weighted F1, hierarchical F1**: percentiles of the draws, moved by the draws' bias so that they lie
  around the figure. A draw lacks some of the rare types, which lowers its macro-F1: with 426 types and 5,511 rows plain
  percentiles hold the mean macro-F1 of such tests in 79 of 100 cases, moved ones in 92. Each draw counts the types that
  occur in it, as the figure itself does; counting those of all rows left 1 of 100. The interval speaks of tests of this
  size. Over rows without end macro-F1 is higher (0.72 where such tests give 0.68), for a type that is answered and by
  chance is not among the truth counts 0; no interval from one test of this size holds that.
- **ECE**: it is a mean of absolute gaps, so noise makes it too high, in the sample and in each draw once more. The
  bias is a sum on the scale of squares (Kumar, Liang and Ma 2019, "Verified uncertainty calibration", correct it
  there) and is taken off twice. Plain percentiles never hold the true 0 of a calibrated classifier; this one holds
  true errors of 0 to 0.1 in 90 to 100 of 100 cases, with 200 rows and with 5,511.
- **The difference of two classifiers in macro-F1** on the same draws: plain percentiles, for the biases cancel. They
  hold the true difference in 91 to 97 of 100 cases; where there is none, 3 to 8 of 100 tests find one.
- **Shares** (categories, new names) need no bootstrap: Wilson's interval is good also where all or none are right.

What no bootstrap sees are mistakes that no row shows: a figure of 1 on a handful of rows gets the interval [1, 1].
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shelfwise.hierarchy import Overlaps
from shelfwise.metrics import Interval, Ranked, accuracy_interval
from shelfwise.resampling import Draws, F1Figures, Resamples, SumFigures, draws_of

__all__ = ["Difference", "Intervals", "Resamples", "difference", "f1_draws", "intervals_of"]


@dataclass(frozen=True, slots=True)
class Intervals:
    """95% intervals of the figures beyond accuracy."""

    macro_f1: Interval
    weighted_f1: Interval
    ece: Interval
    category_accuracy: Interval | None = None  # None without a taxonomy, as the next two
    sub_category_accuracy: Interval | None = None
    hierarchical_f1: Interval | None = None
    new_name_accuracy: Interval | None = None  # None where it is unknown which names are new, or none is


@dataclass(frozen=True, slots=True)
class Difference:
    """How much higher a figure is for one classifier than for another on the same rows."""

    value: float
    interval: Interval  # of the value
    p_value: float  # two-sided: 0.05 where the interval would just touch 0


def intervals_of(
    resamples: Resamples,
    ranked: Ranked,
    targets: NDArray[np.integer],
    *,
    category_right: NDArray[np.bool_] | None = None,
    overlaps: Overlaps | None = None,
    new: NDArray[np.bool_] | None = None,
) -> Intervals:
    """All of one classifier's intervals.

    Args:
        resamples: of these N rows.
        ranked: the classifier's answers, calibrated, as `metrics.rank` gives them.
        targets: (N,) true label positions.
        category_right: (N,) whether the answer is in the right category; None without a taxonomy.
        overlaps: what answers and truth share in the taxonomy (`hierarchy.overlaps`); None without a taxonomy.
        new: (N,) whether training had no row of this name; None where unknown.

    Raises:
        InputError: the numbers of rows differ.
    """
    answered = ranked.answers[:, 0]
    right = np.equal(answered, targets)
    scored, summed = F1Figures.of(targets, answered), SumFigures.of(ranked.probabilities[:, 0], right, overlaps)
    macro, weighted = draws_of(resamples, scored)
    errors, hierarchical = draws_of(resamples, summed)
    every = np.ones((resamples.n, 1), np.uint8)  # the rows themselves, as one draw
    (of_macro, of_weighted), (of_errors, of_hierarchical) = scored.figures(every)[:, 0], summed.figures(every)[:, 0]
    return Intervals(
        macro_f1=recentred(of_macro, macro),
        weighted_f1=recentred(of_weighted, weighted),
        ece=without_noise(of_errors, errors),
        category_accuracy=None if category_right is None else _share(category_right),
        sub_category_accuracy=None if overlaps is None else _share(overlaps.sub_category_right),
        hierarchical_f1=None if overlaps is None else recentred(of_hierarchical, hierarchical),
        new_name_accuracy=_share(right[new]) if new is not None and new.any() else None,
    )


def f1_draws(resamples: Resamples, targets: NDArray[np.integer], answers: NDArray[np.integer]) -> tuple[Draws, Draws]:
    """Macro and weighted F1 in each draw, over the labels that occur in it.

    Args:
        resamples: of N rows.
        targets: (N,) true label positions.
        answers: (N,) answered label positions.

    Raises:
        InputError: the numbers of rows differ.
    """
    return draws_of(resamples, F1Figures.of(targets, answers))


def recentred(value: float, draws: Draws) -> Interval:
    """Percentiles of a figure in [0, 1], moved so that the mean of the draws falls on its value."""
    low, high = np.quantile(draws, [0.025, 0.975]) - (draws.mean() - value)
    return Interval(max(0.0, float(low)), min(1.0, float(high)))


def without_noise(error: float, draws: Draws) -> Interval:
    """Interval of the true calibration error behind one that noise makes too high; see the head of this module."""
    squares = draws**2
    noise = squares.mean() - error**2  # what the draws add to the sample's error, and the sample to the true one
    low, high = np.sqrt(np.maximum(np.quantile(squares, [0.025, 0.975]) - 2 * noise, 0.0))
    return Interval(float(low), min(1.0, float(high)))


def difference(first: float, second: float, first_draws: Draws, second_draws: Draws) -> Difference:
    """Paired bootstrap of the difference between two classifiers' figures.

    The interval holds the percentiles of the differences; the p-value is twice the smaller share of draws on one
    side of 0, draws on 0 counted to both sides, with the observed rows as one more draw (Davison and Hinkley 1997,
    "Bootstrap Methods and their Application", section 4.2), so that it is never 0.

    Args:
        first: the figure of the first classifier.
        second: the figure of the second.
        first_draws: (draws,) of the first.
        second_draws: (draws,) of the second, from the same resamples.
    """
    apart = first_draws - second_draws
    low, high = np.quantile(apart, [0.025, 0.975])
    beyond = 1 + min(int((apart <= 0).sum()), int((apart >= 0).sum()))
    p_value = min(1.0, 2 * beyond / (1 + len(apart)))
    return Difference(first - second, Interval(float(low), float(high)), p_value)


def _share(right: NDArray[np.bool_]) -> Interval:
    return accuracy_interval(int(right.sum()), len(right))
