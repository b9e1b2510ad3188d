"""What is wrong with a catalogue, row by row and type by type, before any model is trained on it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from shelfwise.data._audit_rows import row_findings
from shelfwise.data._audit_types import type_findings
from shelfwise.data.catalogue import Catalogue
from shelfwise.data.findings import Finding, Kind, product_examples
from shelfwise.data.names import name_key
from shelfwise.data.split import Splits, repeated

_BY_SEVERITY = ("problem", "warning", "info")


@dataclass(frozen=True, slots=True)
class Audit:
    """A catalogue's numbers and findings; problems come first."""

    path: Path
    rows: int
    products: int  # usable rows
    labelled: int
    types: int
    brands: int
    categories: int
    sub_categories: int
    largest_type: tuple[str, int] | None  # with its rows: what always answering it would get right
    # Share of the labelled products that have their text's most frequent type: no model that reads the text alone can
    # be right more often on them. Texts are compared as `names.name_key` does. None without types.
    best_accuracy: float | None
    findings: tuple[Finding, ...]

    def finding(self, kind: Kind) -> Finding | None:
        """The finding of one kind, or None: nothing of that kind was found."""
        return next((finding for finding in self.findings if finding.kind == kind), None)

    def to_json(self) -> dict[str, object]:
        """The audit as one JSON document."""
        largest = self.largest_type
        return {
            "catalogue": str(self.path),
            "rows": self.rows,
            "products": self.products,
            "labelled": self.labelled,
            "types": self.types,
            "brands": self.brands,
            "categories": self.categories,
            "sub_categories": self.sub_categories,
            "largest_type": {"type": largest[0], "rows": largest[1]} if largest else None,
            "best_accuracy": None if self.best_accuracy is None else round(self.best_accuracy, 4),
            "findings": [finding.to_json() for finding in self.findings],
        }


def audit(catalogue: Catalogue, splits: Splits | None = None) -> Audit:
    """Look a catalogue through.

    Args:
        catalogue: from `read_catalogue`.
        splits: also look for what its parts share.

    Raises:
        CatalogueError: the split was made from another catalogue.
    """
    keys = {product.id: name_key(product.name) for product in catalogue.products}
    findings = [*row_findings(catalogue, keys), *type_findings(catalogue)]
    if splits is not None:
        findings.extend(_split_findings(catalogue, splits))
    findings.sort(key=lambda finding: _BY_SEVERITY.index(finding.severity))
    types = Counter(product.label for product in catalogue.labelled if product.label is not None)
    return Audit(
        path=catalogue.path,
        rows=catalogue.row_count,
        products=len(catalogue.products),
        labelled=len(catalogue.labelled),
        types=len(types),
        brands=len({product.brand for product in catalogue.products if product.brand}),
        categories=len({product.category for product in catalogue.products if product.category}),
        sub_categories=len({product.sub_category for product in catalogue.products if product.sub_category}),
        largest_type=types.most_common(1)[0] if types else None,
        best_accuracy=_best_accuracy(catalogue),
        findings=tuple(findings),
    )


def _best_accuracy(catalogue: Catalogue) -> float | None:
    by_text: dict[str, Counter[str]] = defaultdict(Counter)
    for product in catalogue.labelled:
        by_text[name_key(product.text)][product.label or ""] += 1
    rows = sum(counter.total() for counter in by_text.values())
    return sum(max(counter.values()) for counter in by_text.values()) / rows if rows else None


def _split_findings(catalogue: Catalogue, splits: Splits) -> Iterator[Finding]:
    parts = splits.parts(catalogue)
    if shared := repeated([*parts.train, *parts.validation], parts.test):
        yield Finding(
            "names_shared_between_parts",
            "warning",
            len(shared),
            f"Products of test whose name train or validation holds too ({len(shared) / len(parts.test):.1%}). They "
            "make scores too good; use --strategy grouped.",
            product_examples(shared),
        )
    taught = {product.label for product in parts.train}
    if untaught := [product for product in parts.test if product.label not in taught]:
        yield Finding(
            "types_missing_from_train",
            "warning",
            len({product.label for product in untaught}),
            f"Types of test that train does not hold ({len(untaught):,} rows), so none can be right. Use --strategy "
            "grouped.",
            product_examples(untaught),
        )
