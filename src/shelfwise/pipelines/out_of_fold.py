"""What a classifier thinks of every labelled row when it has not seen that row's name."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from shelfwise.baseline import Baseline
from shelfwise.calibration import Calibration
from shelfwise.data.names import name_key
from shelfwise.errors import InputError
from shelfwise.labels import Labels
from shelfwise.recalibration import fit_temperature
from shelfwise.records import Product

MAX_CELLS = 500_000_000  # of the (N, C) table: 2 GB as float32

Progress = Callable[[int, int], None]  # folds done, folds in all


@dataclass(frozen=True, slots=True)
class Judgement:
    """What was learned from some rows about H others, C labels."""

    log_probs: NDArray[np.float32]  # (H, C) natural logarithms, uncalibrated; each row's exponentials sum to 1
    seen: NDArray[np.int64]  # positions of the labels that were learned


class Judge(Protocol):
    """What is fitted on the other folds and then asked for one."""

    @property
    def name(self) -> str:
        """For texts: "the baseline", "smollm2-135m"."""
        ...

    def judge(self, rest: Sequence[Product], held: Sequence[Product], labels: Labels) -> Judgement:
        """Learn from the labelled products `rest`, and score the H products `held`, of other names."""
        ...


@dataclass(frozen=True, slots=True)
class BaselineJudge:
    """The linear baseline: seconds a fold."""

    seed: int = 0
    name: str = "the baseline"

    def judge(self, rest: Sequence[Product], held: Sequence[Product], labels: Labels) -> Judgement:
        """Fit and score, as `Judge` says."""
        targets = [labels.index(product.label or "", product.source) for product in rest]
        fitted = Baseline.fit([product.text for product in rest], targets, len(labels), self.seed)
        return Judgement(fitted.log_probs([product.text for product in held]), fitted.seen)


@dataclass(frozen=True, slots=True)
class OutOfFold:
    """N labelled rows and their probabilities, C labels."""

    labels: Labels
    targets: NDArray[np.int64]  # (N,) positions of the given types
    probabilities: NDArray[np.float32]  # (N, C) calibrated; each row sums to 1
    judged: NDArray[np.bool_]  # (N,) whether the fold's training rows had the given type: without one, nobody can tell
    temperature: float

    @property
    def suggestions(self) -> NDArray[np.int64]:
        """(N,) positions of the most probable types."""
        best: NDArray[np.int64] = self.probabilities.argmax(axis=1)
        return best

    @property
    def given_confidence(self) -> NDArray[np.float32]:
        """(N,) probabilities of the given types."""
        given: NDArray[np.float32] = self.probabilities[np.arange(len(self.targets)), self.targets]
        return given


def out_of_fold(
    products: Sequence[Product],
    *,
    folds: int,
    seed: int,
    judge: Judge | None = None,
    progress: Progress | None = None,
) -> OutOfFold:
    """Score every row by a classifier that was fitted on the other folds.

    One temperature serves all folds: it is a single number fitted on all rows, so what a row adds to it says nothing
    of its own type.

    Args:
        products: N labelled products.
        folds: at least 2, at most the number of different names.
        seed: of the folds, and of the baseline's fits.
        judge: what is fitted; None: the baseline.
        progress: called before the first fold and after each.

    Raises:
        InputError: too few names for so many folds, fewer than two types to learn from, or more cells than memory
            should hold.
    """
    labels = Labels.of(products)
    targets = np.array([labels.index(product.label or "") for product in products], np.int64)
    if len(products) * len(labels) > MAX_CELLS:
        raise InputError(
            f"{len(products):,} products of {len(labels):,} types make a table of more than {MAX_CELLS:,} "
            "probabilities. Audit a part of the catalogue at a time."
        )
    judge = judge or BaselineJudge(seed)
    log_probs = np.empty((len(products), len(labels)), np.float32)
    judged = np.zeros(len(products), np.bool_)
    if progress is not None:
        progress(0, folds)
    for done, (rest, held) in enumerate(_folds(products, targets, folds, seed), 1):
        found = judge.judge([products[i] for i in rest], [products[i] for i in held], labels)
        log_probs[held] = found.log_probs
        judged[held] = np.isin(targets[held], found.seen)
        if progress is not None:
            progress(done, folds)
    temperature = fit_temperature(log_probs[judged], targets[judged]) if judged.any() else 1.0
    probabilities = Calibration(temperature=temperature).probabilities(log_probs)
    return OutOfFold(labels, targets, probabilities, judged, temperature)


def _folds(
    products: Sequence[Product], targets: NDArray[np.int64], folds: int, seed: int
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """(training rows, held rows) of each fold: no name on both sides, types spread as evenly as their names allow."""
    from sklearn.model_selection import StratifiedGroupKFold

    keys = {key: i for i, key in enumerate(dict.fromkeys(name_key(product.name) for product in products))}
    if not 2 <= folds <= len(keys):
        raise InputError(
            f"{folds} folds of {len(keys):,} different names: --folds must be 2 or more, and at most the number of "
            "names."
        )
    groups = np.array([keys[name_key(product.name)] for product in products])
    # sklearn refuses folds where no type has a row for each; with one stratum it only keeps names together.
    strata = targets if np.bincount(targets).max() >= folds else np.zeros_like(targets)
    cutter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # Types with fewer rows than folds are the rule in a catalogue; `OutOfFold.judged` tells what follows.
        warnings.filterwarnings("ignore", message="The least populated class")
        return list(cutter.split(groups, strata, groups))
