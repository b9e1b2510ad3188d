"""The part of the audit that looks at inventory types and the taxonomy above them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping

from shelfwise.data.catalogue import Catalogue
from shelfwise.data.findings import EXAMPLES, Example, Finding, Kind, Severity
from shelfwise.data.names import name_key
from shelfwise.records import Product

_MOST_COMPARED = 5_000  # types; each is searched in each other, and a catalogue with more has another defect

Rows = Counter[str]  # type to number of rows
First = Mapping[str, Product]  # type to the first product that has it


def type_findings(catalogue: Catalogue) -> Iterator[Finding]:
    """Findings about inventory types; none where the catalogue has no types."""
    rows = Counter(product.label for product in catalogue.labelled if product.label is not None)
    first: dict[str, Product] = {}
    for product in catalogue.labelled:
        first.setdefault(product.label or "", product)
    if len(rows) == 1:
        message = "Inventory type, the same in all rows: there is nothing to tell apart. Is --type the right column?"
        yield _about("single_type", "problem", list(rows), message, first)
    yield from _rare(rows, first)
    yield from _spelling(catalogue, rows, first)
    yield from _syntax(rows, first)
    yield from _taxonomy(catalogue, rows, first)


def _about(kind: Kind, severity: Severity, types: Collection[str], message: str, first: First) -> Finding:
    """A finding that counts types, with the first ones as examples."""
    shown = sorted(types, key=lambda label: first[label].id)[:EXAMPLES]
    return Finding(kind, severity, len(types), message, tuple(Example(first[label].source, label) for label in shown))


def _rare(rows: Rows, first: First) -> Iterator[Finding]:
    levels: tuple[tuple[Kind, Severity, int, str], ...] = (
        ("types_with_one_row", "warning", 2, "Types with one row: too few to learn from and to measure. Add products."),
        ("types_under_5_rows", "warning", 5, "Types with fewer than 5 rows. Add products, or merge them with others."),
        ("types_under_10_rows", "info", 10, "Types with fewer than 10 rows. Expect their scores to be unsteady."),
    )
    told = 0
    for kind, severity, bound, message in levels:
        rare = [label for label, count in rows.items() if count < bound]
        if len(rare) > told:  # else the level before has named all of them
            told = len(rare)
            yield _about(kind, severity, rare, message, first)


def _spelling(catalogue: Catalogue, rows: Rows, first: First) -> Iterator[Finding]:
    if catalogue.untidy_labels:
        untidy = set(catalogue.untidy_labels)
        sources = [Example(p.source, p.label or "") for p in catalogue.products if p.id in untidy]
        message = "Rows whose type has stray spaces or invisible characters. They are trimmed when read."
        yield Finding("untidy_types", "warning", len(untidy), message, tuple(sources[:EXAMPLES]))
    spellings: dict[str, list[str]] = defaultdict(list)
    for label in rows:
        spellings[name_key(label)].append(label)
    alike = [label for labels in spellings.values() if len(labels) > 1 for label in labels]
    if alike:
        message = "Types that differ from another only in case, spaces or punctuation. Settle on one spelling."
        yield _about("types_differing_in_spelling", "warning", alike, message, first)


def _syntax(rows: Rows, first: First) -> Iterator[Finding]:
    """Names of types that trip programs which cut, search or shorten them; Shelfwise does none of these."""
    total = rows.total()
    if commas := [label for label in rows if "," in label]:
        share = sum(rows[label] for label in commas) / total
        message = f"Types with a comma ({share:.0%} of the rows). Nothing to mend; programs that cut at commas fail."
        yield _about("types_with_commas", "info", commas, message, first)
    if len(rows) <= _MOST_COMPARED:
        folded = [label.casefold() for label in rows]
        within = [label for label, own in zip(rows, folded, strict=True) if sum(own in other for other in folded) > 1]
        if within:
            message = "Types whose name stands within another's. Nothing to mend; programs that search for names fail."
            yield _about("types_within_types", "info", within, message, first)
    words = Counter(label.split()[0] for label in rows)
    if sharing := [label for label in rows if words[label.split()[0]] > 1]:
        message = (
            "Types that share their first word with another. Nothing to mend; the first word can't tell them apart."
        )
        yield _about("types_sharing_first_word", "info", sharing, message, first)


def _taxonomy(catalogue: Catalogue, rows: Rows, first: First) -> Iterator[Finding]:
    categories: dict[str, set[str]] = defaultdict(set)
    sub_categories: dict[str, set[str]] = defaultdict(set)
    parents: dict[str, set[str]] = defaultdict(set)
    sources: dict[str, str] = {}
    for product in catalogue.labelled:
        label = product.label or ""
        if product.category:
            categories[label].add(product.category)
        if product.sub_category:
            sub_categories[label].add(product.sub_category)
            sources.setdefault(product.sub_category, product.source)
            if product.category:
                parents[product.sub_category].add(product.category)
    total = rows.total()
    if several := [label for label, above in categories.items() if len(above) > 1]:
        share = sum(rows[label] for label in several) / total
        message = f"Types under several categories ({share:.0%} of the rows). Check these rows, or split the types."
        yield _about("types_in_several_categories", "warning", several, message, first)
    if several := [label for label, above in sub_categories.items() if len(above) > 1]:
        share = sum(rows[label] for label in several) / total
        message = (
            f"Types under several sub-categories ({share:.0%} of the rows). Predictions show the most frequent one."
        )
        yield _about("types_in_several_sub_categories", "info", several, message, first)
    if split := [name for name, above in parents.items() if len(above) > 1]:
        message = "Sub-categories under several categories, so the taxonomy is not a tree. Check that it is meant."
        found = tuple(Example(sources[name], f"{name} < {' | '.join(sorted(parents[name]))}") for name in split)
        yield Finding("sub_categories_in_several_categories", "info", len(split), message, found[:EXAMPLES])
