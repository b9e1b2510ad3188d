"""How much classifiers lose when names are written otherwise: the same products, their names perturbed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from shelfwise.config import Role
from shelfwise.data.perturb import KINDS, Perturbation, perturb
from shelfwise.metrics import Interval, accuracy_interval
from shelfwise.pipelines.asking import Panel, Progress
from shelfwise.pipelines.evaluation import Drop, Robustness, TypeDrop
from shelfwise.pipelines.scoring import Answers, Rows
from shelfwise.records import Product

TITLES: dict[Perturbation, str] = {  # for people
    "typo": "A typing error",
    "dropped_brand": "Brand left out",
    "dropped_size": "Size or pack left out",
    "abbreviation": "Abbreviations",
    "case": "Upper, lower or title case",
    "punctuation": "More punctuation",
    "hinglish": "Hinglish spellings",
    "reordered": "Words in another order",
}
SEED = 0
WORST_TYPES = 5
MIN_TYPE_ROWS = 20  # perturbed names of a type, all kinds together, below which its drop is left untold


def robustness(
    panel: Panel, plain: Sequence[Answers], rows: Rows, *, seed: int = SEED, progress: Progress | None = None
) -> tuple[Robustness, ...]:
    """Ask for the perturbed names of all rows, each kind where it applies.

    Args:
        panel: those who gave `plain`.
        plain: their answers to the names as they are, in their order.
        rows: what they answered.
        seed: of the perturbations.
        progress: as of `Panel.answer`.
    """
    positions, kinds, products = [], [], []
    for kind in KINDS:
        for i, product in enumerate(rows.products):
            text = perturbed_text(product, kind, seed, panel.text_columns)
            if text is not None:
                positions.append(i)
                kinds.append(kind)
                products.append(replace(product, text=text))
    if not products:
        return tuple(Robustness(given.kind, given.name, (), ()) for given in plain)
    at = np.array(positions)
    changed = Rows(tuple(products), rows.labels, rows.names, rows.targets[at], None)
    of_kind = np.array(kinds)
    found = []
    for given, asked in zip(plain, panel.answer(changed, progress, what="perturbed"), strict=True):
        before, after = given.correct(rows)[at], asked.correct(changed)
        drops = tuple(_drop(kind, before[mine], after[mine]) for kind in KINDS if (mine := of_kind == kind).any())
        found.append(Robustness(given.kind, given.name, drops, _worst_types(changed, before, after)))
    return tuple(found)


def perturbed_text(product: Product, kind: Perturbation, seed: int, text_columns: Sequence[Role]) -> str | None:
    """What the classifier reads of a product whose name is perturbed; None where that changes nothing.

    A brand is dropped from wherever it is read: from the name, and as a column of its own.
    """
    name = perturb(product.name, kind, seed, product.brand)
    read = {
        "product": name or product.name,
        "brand": "" if kind == "dropped_brand" else product.brand,
        "category": product.category,
        "sub_category": product.sub_category,
    }
    text = " ".join(filter(None, (read[role] for role in text_columns)))
    return text if text and text != product.text else None


def _drop(kind: Perturbation, before: NDArray[np.bool_], after: NDArray[np.bool_]) -> Drop:
    n, right, still = len(before), int(before.sum()), int(after.sum())
    return Drop(
        perturbation=kind,
        n=n,
        before=right / n,
        after=still / n,
        after_interval=accuracy_interval(still, n),
        drop=(right - still) / n,
        interval=drop_interval(before, after),
    )


def _worst_types(rows: Rows, before: NDArray[np.bool_], after: NDArray[np.bool_]) -> tuple[TypeDrop, ...]:
    """The types that lose most over all kinds together."""
    size = len(rows.names)
    support, right, still = (
        np.bincount(rows.targets, weights, size) for weights in (None, before.astype(float), after.astype(float))
    )
    told = [
        TypeDrop(rows.names[i], int(support[i]), float(right[i] / support[i]), float(still[i] / support[i]))
        for i in np.flatnonzero((support >= MIN_TYPE_ROWS) & (right > still)).tolist()
    ]
    return tuple(sorted(told, key=lambda drop: (drop.after - drop.before, drop.label))[:WORST_TYPES])


def drop_interval(before: NDArray[np.bool_], after: NDArray[np.bool_]) -> Interval:
    """95% interval of the loss of accuracy on the same rows.

    Joins Wilson's intervals of the two accuracies by their correlation: method 10 of Newcombe 1998, "Improved
    confidence intervals for the difference between binomial proportions based on paired data".

    Args:
        before: (N,) whether the answers to the plain names are right, N > 0.
        after: (N,) whether those to the perturbed names are.
    """
    n = len(before)
    both, lost = int((before & after).sum()), int((before & ~after).sum())
    won, neither = int((~before & after).sum()), int((~before & ~after).sum())
    first, second = (both + lost) / n, (both + won) / n
    of_first, of_second = accuracy_interval(both + lost, n), accuracy_interval(both + won, n)
    margins = (both + lost) * (won + neither) * (both + won) * (lost + neither)
    excess = float(both * neither - lost * won)
    if excess > 0:
        excess = max(excess - n / 2, 0.0)
    correlation = excess / math.sqrt(margins) if margins else 0.0

    def reach(one: float, other: float) -> float:
        return math.sqrt(max(one * one - 2 * correlation * one * other + other * other, 0.0))

    drop = first - second
    return Interval(
        drop - reach(first - of_first.low, of_second.high - second),
        drop + reach(second - of_second.low, of_first.high - first),
    )
