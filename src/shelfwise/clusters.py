"""Rows that come in clusters, as products of one brand do, tell less than as many rows that have nothing in common.

Where whole clusters were held out, what a classifier gets wrong it gets wrong by the cluster: one new brand, many
alike mistakes. A bound that takes the rows for independent is then too narrow. Kish (1965, "Survey Sampling") counts
such rows as fewer: n rows are worth n / (1 + (m - 1) * correlation), m being the size of the cluster that a row is in
on average. Korn and Graubard (1998, "Confidence intervals for proportions with small expected number of positive counts
estimated from survey data") put that number into Clopper and Pearson's bound, and so does `thresholds`.

Measured on validation rows of BigBasket with whole brands held out (181), SmolLM2-135M on brand and name: the accuracy
varies 14 times as much as that of independent rows would. Fitted on one half of the brands and looked up on the other,
200 times, a promise of 0.90 fell short in 23% of the halves; with this bound in none of the 10 where it accepted
anything. Equal names held out whole make the variance 1.3 times as large.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def correlation(correct: NDArray[np.bool_], clusters: NDArray[np.integer]) -> float:
    """How alike rows of one cluster are in being right: 0 as strangers, 1 all or none.

    It is the correlation that gives Kish's formula the design effect that the rows show: the variance of their share of
    right ones over clusters (the linearised ratio estimator of survey sampling), over that of independent rows. One
    standard error is added to that variance, for few clusters show it badly: promises of 0.90 and 0.95 to 150 simulated
    clusters broke in 13% and 9% of 200 worlds without it, and in 6% and 3% with it; in 20% and 16% with rows taken for
    independent. Of 400 clusters 3% and 2%, and 22% and 12% (benchmarks/results/thresholds.json).

    Args:
        correct: (N,) whether the answers are right.
        clusters: (N,) the cluster of each row.
    """
    _, of_row = np.unique(clusters, return_inverse=True)
    sizes = np.bincount(of_row).astype(np.float64)
    n, k = len(of_row), len(sizes)
    share = float(correct.mean()) if n else 0.0
    mean_size = float((sizes**2).sum()) / max(n, 1)
    if k < 2 or mean_size <= 1 or not 0 < share < 1:
        return 0.0
    right = np.bincount(of_row, weights=correct)
    squares = (right - share * sizes) ** 2
    variance = (float(squares.sum()) * k / (k - 1) + float(squares.std()) * k**0.5) / n**2
    effect = variance / (share * (1 - share) / n)
    return float(np.clip((effect - 1) / (mean_size - 1), 0, 1))


def effective_sizes(clusters: NDArray[np.integer], alike: float) -> NDArray[np.float64]:
    """(N,) how many independent rows the first 1, 2, ... N rows are worth.

    Args:
        clusters: (N,) the cluster of each row, in the order in which rows are taken.
        alike: the rows' `correlation`.
    """
    n = len(clusters)
    order = np.argsort(clusters, kind="stable")
    ranked = clusters[order]
    begins = np.flatnonzero(np.append(True, ranked[1:] != ranked[:-1])[:n])
    earlier = np.empty(n, np.int64)  # rows of the same cluster that were taken before
    earlier[order] = np.arange(n) - np.repeat(begins, np.diff(np.append(begins, n)))
    taken = np.arange(1, n + 1)
    mean_size = np.cumsum(2 * earlier + 1) / taken  # the sum of squared cluster sizes grows so by each row
    sizes: NDArray[np.float64] = taken / (1 + (mean_size - 1) * alike)
    return sizes
