"""Which rows a person should look at first: probable mistakes of the catalogue, and the answers least sure of."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from shelfwise.pipelines.details import Doubt
from shelfwise.pipelines.scoring import Answers, Rows
from shelfwise.text import fold

SUSPECT_MARGIN = 0.5  # the answer is to be this much surer than the given type before the catalogue is doubted
SHOWN_SUSPECTS = 20
SHOWN_UNSURE = 10


def suspects(answers: Answers, rows: Rows, most: int = SHOWN_SUSPECTS) -> tuple[Doubt, ...]:
    """Rows that the classifier, which was not trained on them, confidently calls something else than the catalogue.

    Ranked by the margin between the probability of the answer and that of the given type, largest first: the
    normalised margin of Northcutt, Jiang and Chuang (2021, "Confident Learning"). Rows of a type that the run was
    never taught are left out: it can't contradict what it does not know.
    """
    of_given = np.exp(answers.ranked.of_truth.astype(np.float64))
    margin = answers.confidence - of_given
    wanted = ~answers.correct(rows) & np.isfinite(answers.ranked.of_truth) & (margin >= SUSPECT_MARGIN)
    order = np.argsort(-margin, kind="stable")
    return _first(order[wanted[order]].tolist(), answers, rows, most)


def unsure(answers: Answers, rows: Rows, most: int = SHOWN_UNSURE) -> tuple[Doubt, ...]:
    """The rows answered with the least confidence (Lewis and Gale 1994), least first."""
    return _first(np.argsort(answers.confidence, kind="stable").tolist(), answers, rows, most)


def _first(order: Iterable[int], answers: Answers, rows: Rows, most: int) -> tuple[Doubt, ...]:
    """The first rows of an order, without those that only repeat the name, type and answer of one before."""
    found: dict[tuple[str, str, str], Doubt] = {}
    for i in order:
        if len(found) == most:
            break
        product, given, answered = rows.products[i], rows.names[rows.targets[i]], rows.names[answers.predictions[i]]
        doubt = Doubt(
            name=product.name,
            source=product.source,
            given=given,
            answered=answered,
            confidence=float(answers.confidence[i]),
            of_given=float(np.exp(answers.ranked.of_truth[i])),
        )
        found.setdefault((fold(product.name), given, answered), doubt)
    return tuple(found.values())
