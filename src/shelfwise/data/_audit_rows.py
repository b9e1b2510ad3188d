"""The part of the audit that looks at rows and names."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from shelfwise.data.catalogue import EMPTY_NAME, Catalogue
from shelfwise.data.findings import EXAMPLES, Example, Finding, product_examples
from shelfwise.records import Product

# UTF-8 that was once read as Windows-1252: a no-break space, an accented letter, a dash or quotation mark; or lost.
_GARBLED = re.compile("Â(?=[\\s\u00a0-\u00bf]|$)|Ã[\u0080-\u00bf]|â€|\ufffd")


def row_findings(catalogue: Catalogue, keys: dict[int, str]) -> Iterator[Finding]:
    """Findings about single rows and about names that several rows have.

    Args:
        catalogue: all of it.
        keys: `names.name_key` of every product's name, by id.
    """
    yield from _rejected(catalogue)
    yield from _missing(catalogue)
    garbled = [product for product in catalogue.products if _GARBLED.search(product.name)]
    if garbled:
        yield Finding(
            "garbled_names",
            "warning",
            len(garbled),
            "Names with characters of a wrongly decoded file (Â, â€, Ã©). Export the file again as UTF-8.",
            product_examples(garbled),
        )
    yield from _repeated(catalogue, keys)
    yield from _conflicting(catalogue, keys)


def _rejected(catalogue: Catalogue) -> Iterator[Finding]:
    empty = [reject for reject in catalogue.rejects if reject.reason == EMPTY_NAME]
    others = [reject for reject in catalogue.rejects if reject.reason != EMPTY_NAME]
    if others:
        yield Finding(
            "unreadable_rows",
            "problem",
            len(others),
            "Rows that can't be used and are left out. Mend them by the reason given for each.",
            tuple(Example(reject.source, reject.reason) for reject in others[:EXAMPLES]),
        )
    if empty:
        yield Finding(
            "empty_names",
            "problem",
            len(empty),
            "Rows without a product name, which are left out. Fill in the names.",
            tuple(Example(reject.source, reject.reason) for reject in empty[:EXAMPLES]),
        )


def _missing(catalogue: Catalogue) -> Iterator[Finding]:
    unlabelled = [product for product in catalogue.products if product.label is None]
    if unlabelled and len(unlabelled) < len(catalogue.products):
        yield Finding(
            "rows_without_type",
            "warning",
            len(unlabelled),
            "Rows without an inventory type: nothing is learnt from them. Fill in the types, or have them predicted.",
            product_examples(unlabelled),
        )
    if "brand" in catalogue.columns:
        brandless = [product for product in catalogue.products if not product.brand]
        if brandless:
            yield Finding(
                "rows_without_brand",
                "info",
                len(brandless),
                "Rows without a brand. The split 'brand' goes by their names instead.",
                product_examples(brandless),
            )


def _repeated(catalogue: Catalogue, keys: dict[int, str]) -> Iterator[Finding]:
    seen_rows: set[tuple[str | None, ...]] = set()
    seen_names: set[str] = set()
    duplicates: list[Product] = []
    repeats: list[Product] = []
    for product in catalogue.products:
        row = (product.name, product.label, product.brand, product.category, product.sub_category)
        (duplicates if row in seen_rows else []).append(product)
        (repeats if keys[product.id] in seen_names else []).append(product)
        seen_rows.add(row)
        seen_names.add(keys[product.id])
    if duplicates:
        yield Finding(
            "duplicate_rows",
            "warning",
            len(duplicates),
            "Rows that repeat an earlier row in name, brand, category and type. Remove them, unless they are other "
            "pack sizes.",
            product_examples(duplicates),
        )
    if repeats:
        share = len(repeats) / len(catalogue.products)
        yield Finding(
            "repeated_names",
            "info",
            len(repeats),
            f"Rows that repeat an earlier name ({share:.1%}), but for case, spaces and punctuation. Measure on a "
            "'grouped' split, which keeps one name in one part.",
            product_examples(repeats),
        )


def _conflicting(catalogue: Catalogue, keys: dict[int, str]) -> Iterator[Finding]:
    types: dict[str, Counter[str]] = {}
    first: dict[str, Product] = {}
    for product in catalogue.labelled:
        types.setdefault(keys[product.id], Counter())[product.label or ""] += 1
        first.setdefault(keys[product.id], product)
    conflicting = {key: counter for key, counter in types.items() if len(counter) > 1}
    if conflicting:
        most_rows_first = sorted(conflicting, key=lambda key: (-conflicting[key].total(), first[key].id))
        rows = sum(sum(counter.values()) for counter in conflicting.values())
        yield Finding(
            "conflicting_types",
            "warning",
            len(conflicting),
            f"Names with more than one inventory type ({rows:,} rows). Decide on one, or let the model read more: "
            "--text-columns brand,product.",
            tuple(
                Example(first[key].source, f"{first[key].name} -> {_counted(conflicting[key])}")
                for key in most_rows_first[:EXAMPLES]
            ),
        )


def _counted(types: Counter[str]) -> str:
    return " | ".join(f"{label} ({count})" for label, count in types.most_common())
