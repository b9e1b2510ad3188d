"""On which products a classifier does well: new names and known ones, new brands, rare types, short names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from shelfwise.config import Role
from shelfwise.data.names import name_key
from shelfwise.data.split import Parts
from shelfwise.metrics import accuracy_interval
from shelfwise.pipelines.asking import Panel, Progress
from shelfwise.pipelines.evaluation import Band, Group
from shelfwise.pipelines.scoring import Answers, Rows
from shelfwise.records import Product

SEEN_NAMES = "names that training had"
NEW_NAMES = "names that training did not have"
SEEN_BRANDS = "brands that training had"
NEW_BRANDS = "brands that training did not have"
NO_BRAND = "no brand"
WITHOUT_BRAND = "all products, the brand left out of the text"
NO_TRAINING_ROWS = "types without a training row"
# The smallest number that falls into each band; the last one has no end.
_ROWS_FROM = (1, 5, 20, 100, 500)
_WORDS_FROM = (1, 3, 5, 7, 10)


@dataclass(frozen=True, slots=True)
class Known:
    """What training had, as far as bands look at it."""

    brands: frozenset[str]  # `name_key` of each brand in train or validation
    rows: Counter[str]  # training rows of each type

    @classmethod
    def of(cls, parts: Parts) -> Known:
        """From the parts of the catalogue that the run was trained on.

        Validation counts for brands as it does for names (`split.repeated`): it chose the epoch and the thresholds.
        """
        brands = {name_key(product.brand) for product in (*parts.train, *parts.validation) if product.brand}
        return cls(frozenset(brands), Counter(product.label or "" for product in parts.train))


def bands(answers: Answers, rows: Rows, known: Known | None) -> tuple[Band, ...]:
    """How a classifier fares on rows that have something in common; bands without a row are left out.

    Args:
        answers: to all rows.
        rows: what was asked.
        known: None where the training rows are out of reach; then only the length of names tells rows apart.
    """
    correct = answers.correct(rows)
    found: list[Band] = []
    if rows.new is not None:
        found += _bands("names", [(SEEN_NAMES, ~rows.new), (NEW_NAMES, rows.new)], correct)
    if known is not None:
        found += _bands("brand", _by_brand(rows.products, known), correct)
        found += _bands("frequency", _by_training_rows(rows, known), correct)
    words = np.array([len(product.name.split()) for product in rows.products])
    found += _bands("length", _steps(words, _WORDS_FROM, "{} words"), correct)
    return tuple(found)


def without_brand(
    panel: Panel, plain: Sequence[Answers], rows: Rows, progress: Progress | None = None
) -> tuple[Band | None, ...]:
    """Ask again with the brand left out of the text: what the column adds, where the classifier reads it.

    Only the column is left out; a brand that stands in the name stays there, as it does for a classifier of names.

    Args:
        panel: those who gave `plain`.
        plain: their answers to all rows, in their order; they stand where a product has no brand.
        rows: what they answered.
        progress: as of `Panel.answer`.

    Returns:
        One band of all rows for each of them; None where no text holds a brand from its column.
    """
    if "brand" not in panel.text_columns:
        return (None,) * len(plain)
    texts = [_brandless(product, panel.text_columns) for product in rows.products]
    at = np.flatnonzero([text != product.text for text, product in zip(texts, rows.products, strict=True)])
    if not len(at):
        return (None,) * len(plain)
    products = tuple(replace(rows.products[i], text=texts[i]) for i in at.tolist())
    changed = Rows(products, rows.labels, rows.names, rows.targets[at], None)
    found = []
    for given, asked in zip(plain, panel.answer(changed, progress, what="no brand"), strict=True):
        correct = given.correct(rows).copy()
        correct[at] = asked.correct(changed)
        found.append(_band("brand", WITHOUT_BRAND, correct))
    return tuple(found)


def _brandless(product: Product, text_columns: Sequence[Role]) -> str:
    read = {"product": product.name, "brand": "", "category": product.category, "sub_category": product.sub_category}
    return " ".join(filter(None, (read[role] for role in text_columns)))


def _by_brand(products: Sequence[Product], known: Known) -> list[tuple[str, NDArray[np.bool_]]]:
    """Rows by whether training had their brand; nothing for a catalogue without brands."""
    has = np.array([bool(product.brand) for product in products])
    if not has.any() and not known.brands:
        return []
    seen = np.array([bool(product.brand) and name_key(product.brand) in known.brands for product in products])
    return [(SEEN_BRANDS, seen), (NEW_BRANDS, has & ~seen), (NO_BRAND, ~has)]


def _by_training_rows(rows: Rows, known: Known) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Rows by how many rows of their type the run was trained on."""
    counts = np.array([known.rows[name] for name in rows.names])[rows.targets]
    yield NO_TRAINING_ROWS, counts == 0
    yield from _steps(counts, _ROWS_FROM, "types with {} training rows")


def _steps(counts: NDArray[np.integer], starts: Sequence[int], title: str) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Rows by a count of theirs, in steps that begin at `starts`; `title` has a place for the range."""
    for start, after in zip(starts, (*starts[1:], None), strict=True):
        if after is None:
            yield title.format(f"{start} or more"), counts >= start
        else:
            yield title.format(f"{start} to {after - 1}"), (counts >= start) & (counts < after)


def _bands(group: Group, parts: Iterable[tuple[str, NDArray[np.bool_]]], correct: NDArray[np.bool_]) -> list[Band]:
    return [_band(group, title, correct[mine]) for title, mine in parts if mine.any()]


def _band(group: Group, title: str, correct: NDArray[np.bool_]) -> Band:
    n, right = len(correct), int(correct.sum())
    return Band(group, title, n, right / n, accuracy_interval(right, n))
