"""A classifier's answers to labelled rows, and the line that they earn in the table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shelfwise import metrics
from shelfwise.bootstrap import Intervals, Resamples, intervals_of
from shelfwise.calibration import Calibration
from shelfwise.hierarchy import Overlaps, overlaps, scores_of_overlaps
from shelfwise.labels import Labels
from shelfwise.pipelines.evaluation import (
    Band,
    Decisions,
    Kind,
    LevelDecisions,
    Standing,
    TypePromise,
    TypeVerdict,
    Verdict,
)
from shelfwise.records import LEVELS, Product

TOP_K = 5  # answers kept of each row
MAJORITY = "most frequent type"


@dataclass(frozen=True, slots=True)
class Rows:
    """N labelled products, and what they are measured against."""

    products: tuple[Product, ...]
    labels: Labels  # C labels of the run
    names: tuple[str, ...]  # the labels, then the types of the rows that the run doesn't know
    targets: NDArray[np.int64]  # (N,) positions in `names`
    new: NDArray[np.bool_] | None  # (N,) whether training had no row of this name; None where that is unknown

    @classmethod
    def of(cls, products: Sequence[Product], labels: Labels, new: NDArray[np.bool_] | None) -> Rows:
        """Rows of labelled products."""
        given = [product.label or "" for product in products]
        names = (*labels.names, *sorted({label for label in given if label not in labels}))
        position = {name: i for i, name in enumerate(names)}
        targets = np.fromiter((position[label] for label in given), np.int64, len(given))
        return cls(tuple(products), labels, names, targets, new)

    def categories(self, positions: NDArray[np.integer]) -> list[str | None]:
        """The category of each label position; None for a type that the run's taxonomy doesn't hold."""
        of_label = [self.labels.taxonomy.category(name) for name in self.names]
        return [of_label[position] for position in positions.tolist()]


@dataclass(frozen=True, slots=True)
class Answers:
    """What one classifier answered to all rows."""

    kind: Kind
    name: str
    ranked: metrics.Ranked
    calibration: Calibration
    seconds: float | None  # of scoring; None where nothing had to be scored
    level: NDArray[np.int64]  # (N,) how deep the answers are sure, as positions in `records.LEVELS`
    sure_right: NDArray[np.bool_]  # (N,) whether they are right at that level
    raw_confidence: NDArray[np.float32] | None = None  # (N,) of the predictions before calibration; None: none was

    @property
    def predictions(self) -> NDArray[np.int64]:
        """(N,) label positions."""
        return self.ranked.answers[:, 0]

    @property
    def confidence(self) -> NDArray[np.float32]:
        """(N,) calibrated probabilities of the predictions."""
        return self.ranked.probabilities[:, 0]

    def correct(self, rows: Rows) -> NDArray[np.bool_]:
        """(N,) whether the predictions are right."""
        return np.equal(self.predictions, rows.targets)


def majority(rows: Rows) -> Answers:
    """The best that one fixed answer can do: each type as probable as it is frequent among these very rows."""
    counts = np.bincount(rows.targets, minlength=len(rows.names))[: len(rows.labels)]
    with np.errstate(divide="ignore"):
        log_probs = np.log(counts / max(counts.sum(), 1)).astype(np.float32)
    one = metrics.rank(log_probs[None], np.zeros(1, np.int64), TOP_K)
    n = len(rows.targets)
    known = rows.targets < len(log_probs)
    of_truth = np.full(n, -np.inf, np.float32)
    of_truth[known] = log_probs[rows.targets[known]]
    ranked = metrics.Ranked(np.repeat(one.answers, n, axis=0), np.repeat(one.probabilities, n, axis=0), of_truth)
    unsure = np.full(n, LEVELS.index(""))
    return Answers("majority", MAJORITY, ranked, Calibration(), None, unsure, np.zeros(n, np.bool_))


def standing(answers: Answers, rows: Rows, resamples: Resamples, bands: Sequence[Band] = ()) -> Standing:
    """The numbers of one classifier.

    Args:
        answers: to all rows.
        rows: N of them.
        resamples: of N rows; the same for all classifiers of an evaluation.
        bands: how it fares on some of the rows (`pipelines.breakdown`).
    """
    correct, category_right = answers.correct(rows), _category_right(answers, rows)
    shared = (
        overlaps(rows.targets, answers.predictions, rows.names, rows.labels.taxonomy)
        if category_right is not None
        else None
    )
    new = rows.new
    is_majority = answers.kind == "majority"
    return Standing(
        kind=answers.kind,
        name=answers.name,
        scores=metrics.scores_of(answers.ranked, rows.targets),
        interval=metrics.accuracy_interval(int(correct.sum()), len(correct)),
        category_accuracy=None if category_right is None else float(category_right.mean()),
        hierarchy=None if shared is None else scores_of_overlaps(shared),
        new_name_accuracy=float(correct[new].mean()) if new is not None and new.any() else None,
        decisions=None if is_majority else decisions(answers, rows),
        seconds=answers.seconds,
        intervals=None if is_majority else _intervals(answers, rows, resamples, category_right, shared),
        bands=tuple(bands),
        ece_before=None
        if answers.raw_confidence is None
        else metrics.expected_calibration_error(answers.raw_confidence, correct),
    )


def _intervals(
    answers: Answers,
    rows: Rows,
    resamples: Resamples,
    category_right: NDArray[np.bool_] | None,
    shared: Overlaps | None,
) -> Intervals:
    new = rows.new if rows.new is not None and rows.new.any() else None
    return intervals_of(
        resamples, answers.ranked, rows.targets, category_right=category_right, overlaps=shared, new=new
    )


def _category_right(answers: Answers, rows: Rows) -> NDArray[np.bool_] | None:
    """(N,) whether the answers are of the right category, whatever the type; None without a taxonomy."""
    if not rows.labels.taxonomy:
        return None
    true, answered = rows.categories(rows.targets), rows.categories(answers.predictions)
    same = [t is not None and t == a for t, a in zip(true, answered, strict=True)]
    return answers.correct(rows) | np.array(same, np.bool_)


def decisions(answers: Answers, rows: Rows) -> Decisions:
    """Hold the run's promise against what came of it."""
    calibration = answers.calibration
    accepted, share, precision, interval, verdict = _held(answers, LEVELS.index("type"))
    return Decisions(
        promise=calibration.promise,
        threshold=calibration.threshold,
        stricter_types=int((calibration.thresholds(rows.labels) > calibration.threshold).sum()),
        accepted=accepted,
        accepted_share=share,
        precision=precision,
        interval=interval,
        verdict=verdict,
        above=(
            LevelDecisions("sub_category", *_held(answers, LEVELS.index("sub_category"))),
            LevelDecisions("category", *_held(answers, LEVELS.index("category"))),
        )
        if rows.labels.taxonomy
        else (),
        types=_promises(answers, rows),
    )


def _promises(answers: Answers, rows: Rows) -> tuple[TypePromise, ...]:
    """What became of the accepted answers of each type."""
    taken = answers.level == LEVELS.index("type")
    size = len(rows.names)
    accepted = np.bincount(answers.predictions[taken], minlength=size)
    right = np.bincount(answers.predictions[taken & answers.sure_right], minlength=size)
    told = []
    for i in sorted(np.flatnonzero(accepted).tolist(), key=lambda i: (-accepted[i], rows.names[i])):
        n, hits = int(accepted[i]), int(right[i])
        interval = metrics.accuracy_interval(hits, n)
        verdict: TypeVerdict = "too few to tell"
        if hits >= answers.calibration.promise * n:
            verdict = "kept"
        elif _clearly_under(hits, n, answers.calibration.promise):
            verdict = "broken"
        told.append(TypePromise(rows.names[i], n, hits, interval, verdict))
    return tuple(told)


def _clearly_under(right: int, n: int, promise: float) -> bool:
    """Whether so few right ones are improbable where the promise is kept: the upper end of Clopper and Pearson's (1934)
    exact 95% interval lies under it. Wilson's, which is shown, would call 0 of 1 broken."""
    from scipy.stats import binom

    return bool(binom.cdf(right, n, promise) < 0.025)


def _held(answers: Answers, level: int) -> tuple[int, float, float, metrics.Interval, Verdict]:
    """The rows accepted at a level, their share of all, their precision with its interval, and the verdict on it."""
    taken = answers.level == level
    accepted, right = int(taken.sum()), int((answers.sure_right & taken).sum())
    precision = right / accepted if accepted else 0.0
    verdict: Verdict = "nothing accepted"
    if accepted:
        verdict = "kept" if precision >= answers.calibration.promise else "broken"
    return accepted, accepted / len(taken), precision, metrics.accuracy_interval(right, accepted), verdict


def most_frequent(labels: Sequence[str]) -> list[tuple[str, int]]:
    """Labels with their numbers of rows, most rows first; ties by name."""
    return sorted(Counter(labels).items(), key=lambda item: (-item[1], item[0]))
