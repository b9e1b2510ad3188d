"""What the numbers hide: which types are taken for which, at which confidence, and in which category."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from shelfwise import metrics
from shelfwise.pipelines import doubts
from shelfwise.pipelines.details import CategoryMistakes, Confusion, Details, Grid
from shelfwise.pipelines.evaluation import Curve
from shelfwise.pipelines.scoring import Answers, Rows

SHOWN_CONFUSIONS = 10
SHOWN_IN_CATEGORY = 8  # pairs of types
SHOWN_EXAMPLES = 3
SHOWN_CATEGORIES = 24
SHOWN_TYPES = 16  # of the most confused, where there are no categories
COVERAGE_POINTS = 100
OTHERS = "all others"
NO_CATEGORY = "no category"

Pairs = dict[tuple[int, int], list[str]]  # (true, answered) label positions: the names of their rows


def details(answers: Sequence[Answers], rows: Rows) -> Details:
    """Look behind the numbers.

    Args:
        answers: of the baseline, if there is one, and of the subject, which comes last.
        rows: that they answered.
    """
    subject = answers[-1]
    categories = rows.labels.taxonomy.category
    pairs, shown = mistakes(subject, rows), grid(subject, rows)
    return Details(
        types=type_scores(subject, rows),
        categories=tuple(categories(name) for name in rows.names),
        baseline_types=type_scores(answers[0], rows) if len(answers) > 1 else None,
        confusions=confusions(pairs, rows)[:SHOWN_CONFUSIONS],
        by_category=by_category(pairs, rows, shown.names) if shown.level == "category" else (),
        grid=shown,
        curves=tuple(curve(each, rows) for each in answers),
        suspects=doubts.suspects(subject, rows),
        unsure=doubts.unsure(subject, rows),
    )


def type_scores(answers: Answers, rows: Rows) -> tuple[metrics.TypeScores, ...]:
    """Every type's scores, in the order of `rows.names`."""
    return metrics.per_type(metrics.confusion(rows.targets, answers.predictions, len(rows.names)), rows.names)


def mistakes(answers: Answers, rows: Rows) -> Pairs:
    """The names of the rows that were answered wrongly, by what they are and what they were taken for."""
    pairs: Pairs = {}
    for product, true, answered in zip(rows.products, rows.targets.tolist(), answers.predictions.tolist(), strict=True):
        if true != answered:
            pairs.setdefault((true, answered), []).append(product.name)
    return pairs


def confusions(pairs: Pairs, rows: Rows) -> tuple[Confusion, ...]:
    """The pairs of types that are confused, most often first; ties by name."""
    support = np.bincount(rows.targets, minlength=len(rows.names))
    ranked = sorted(pairs.items(), key=lambda item: (-len(item[1]), rows.names[item[0][0]], rows.names[item[0][1]]))
    return tuple(
        Confusion(
            true=rows.names[true],
            predicted=rows.names[answered],
            count=len(names),
            support=int(support[true]),
            examples=tuple(dict.fromkeys(names))[:SHOWN_EXAMPLES],
        )
        for (true, answered), names in ranked
    )


def by_category(pairs: Pairs, rows: Rows, categories: Sequence[str]) -> tuple[CategoryMistakes, ...]:
    """What goes wrong in each of these categories; those without a mistake are left out."""
    of_type = [rows.labels.taxonomy.category(name) or NO_CATEGORY for name in rows.names]
    support = Counter(of_type[target] for target in rows.targets.tolist())
    grouped: dict[str, Pairs] = {}
    for (true, answered), names in pairs.items():
        grouped.setdefault(of_type[true], {})[true, answered] = names
    return tuple(
        CategoryMistakes(
            category=category,
            support=support[category],
            wrong=sum(map(len, inside.values())),
            elsewhere=sum(len(names) for (_, answered), names in inside.items() if of_type[answered] != category),
            confusions=confusions(inside, rows)[:SHOWN_IN_CATEGORY],
        )
        for category in categories
        if (inside := grouped.get(category))
    )


def grid(answers: Answers, rows: Rows) -> Grid:
    """The confusion matrix by category where there is a taxonomy, else that of the most confused types."""
    if rows.labels.taxonomy:
        true, answered = rows.categories(rows.targets), rows.categories(answers.predictions)
        named = [[name or NO_CATEGORY for name in names] for names in (true, answered)]
        frequent = [name for name, _ in sorted(Counter(named[0]).items(), key=lambda item: (-item[1], item[0]))]
        others = sorted(set(named[1]) - set(frequent))
        return _fold("category", named[0], named[1], [*frequent, *others], SHOWN_CATEGORIES)
    wrong = rows.targets != answers.predictions
    errors = np.bincount(np.concatenate([rows.targets[wrong], answers.predictions[wrong]]), minlength=len(rows.names))
    order = [rows.names[i] for i in np.argsort(-errors, kind="stable").tolist()]
    names = [[rows.names[i] for i in positions.tolist()] for positions in (rows.targets, answers.predictions)]
    return _fold("type", names[0], names[1], order, SHOWN_TYPES)


def _fold(level: str, true: list[str], answered: list[str], order: list[str], most: int) -> Grid:
    """Count pairs of names; those beyond the first `most` of `order` become one."""
    shown = order if len(order) <= most else [*order[: most - 1], OTHERS]
    position = {name: i for i, name in enumerate(shown)}
    last = len(shown) - 1
    counts = metrics.confusion(
        np.array([position.get(name, last) for name in true], np.int64),
        np.array([position.get(name, last) for name in answered], np.int64),
        len(shown),
    )
    return Grid("category" if level == "category" else "type", tuple(shown), tuple(map(tuple, counts.tolist())))


def curve(answers: Answers, rows: Rows) -> Curve:
    """Confidence against accuracy, in bins and by coverage."""
    correct = answers.correct(rows)
    return Curve(
        kind=answers.kind,
        name=answers.name,
        bins=metrics.reliability(answers.confidence, correct),
        coverage=coverage(answers.confidence, correct),
        before=() if answers.raw_confidence is None else metrics.reliability(answers.raw_confidence, correct),
    )


def coverage(confidence: NDArray[np.floating], correct: NDArray[np.bool_]) -> tuple[tuple[float, float], ...]:
    """Accuracy among the surest 1%, 2%, ... 100% of rows (the risk-coverage curve of El-Yaniv and Wiener 2010)."""
    n = len(confidence)
    right = np.cumsum(correct[np.argsort(-confidence, kind="stable")])
    sizes = sorted({-(-n * point // COVERAGE_POINTS) for point in range(1, COVERAGE_POINTS + 1)} - {0})
    return tuple((size / n, float(right[size - 1] / size)) for size in sizes)
