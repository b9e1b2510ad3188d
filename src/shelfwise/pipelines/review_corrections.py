"""Settled products as rows of a catalogue, with where each answer came from.

Provenance stands behind the columns of a catalogue, under names that no role is recognised by, so what is written here
trains as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from shelfwise.config import Columns
from shelfwise.data.catalogue import product_of, recognise
from shelfwise.data.names import name_key
from shelfwise.data.reader import RowStream, open_rows
from shelfwise.errors import CatalogueError
from shelfwise.pipelines.predict_plan import free_names
from shelfwise.records import Product, RawRow, Reject
from shelfwise.review.items import Item, Recorded
from shelfwise.text import fold, normalise

if TYPE_CHECKING:
    from shelfwise.review.store import Store

CATALOGUE = ("product", "brand", "category", "sub_category", "type")
PROVENANCE = (
    "reviewed_by",
    "reviewed_at",  # ISO 8601, UTC
    "review",  # accept or correct
    "review_comment",
    "predicted_type",
    "predicted_confidence",
    "predicted_by",
    "review_reason",
    "given_type",
    "review_rows",  # rows that the decision settled
    "review_source",
)
FIRST_REJECTS = 5


@dataclass(slots=True)
class Tally:
    """What was counted while rows were made; `review_export.ExportSummary` says what each is."""

    rows: int = 0
    settled: int = 0
    corrected: int = 0
    matched: int = 0
    changed: int = 0
    appended: int = 0
    rejected: int = 0
    first_rejects: list[Reject] = field(default_factory=list)


def corrections(store: Store, tally: Tally) -> Iterator[tuple[str, ...]]:
    """The settled products, each as one row of `CATALOGUE` and `PROVENANCE`."""
    for item, decision in _settled(store, tally):
        product = (item.name, item.brand, item.category, item.sub_category, item.settled_type or "")
        yield (*product, *_provenance(item, decision))


def _settled(store: Store, tally: Tally) -> Iterator[tuple[Item, Recorded]]:
    """All settled items with the decisions that stand, page by page, counted."""
    after = 0
    while page := store.settled(after=after):
        for item, decision in page:
            tally.settled += 1
            tally.corrected += item.status == "corrected"
            yield item, decision
        after = page[-1][0].id


def _provenance(item: Item, decision: Recorded) -> tuple[str, ...]:
    """In the order of `PROVENANCE`."""
    at = datetime.fromtimestamp(decision.at_s, timezone.utc)
    return (
        decision.reviewer,
        at.isoformat(timespec="seconds"),
        decision.action,
        decision.comment,
        decision.predicted_type,
        f"{decision.confidence:.4f}",
        decision.model,
        item.reason,
        item.given_type or "",
        str(item.rows),
        item.source,
    )


@dataclass(frozen=True, slots=True)
class Merge:
    """A catalogue into which decisions are put."""

    stream: RowStream
    roles: Mapping[str, str]  # role to the catalogue's column

    @classmethod
    def of(cls, catalogue: Path, columns: Columns) -> Merge:
        """Open a catalogue.

        Raises:
            CatalogueError: it can't be read, or a column is missing.
        """
        stream = open_rows(catalogue)
        roles = recognise(stream.columns, columns, catalogue)
        if "type" not in roles:
            raise CatalogueError(f"{catalogue}: no column is recognised as inventory types. Name it with --type.")
        return cls(stream, roles)

    @property
    def headings(self) -> tuple[str, ...]:
        """The catalogue's columns, then `PROVENANCE`; a name that the catalogue already has gets a number."""
        return (*self.stream.columns, *free_names(PROVENANCE, self.stream.columns))

    def rows(self, store: Store, tally: Tally) -> Iterator[tuple[str, ...]]:
        """The catalogue's rows in its order, then the settled products that it lacks."""
        decided = _Decided()
        for item, decision in _settled(store, tally):
            decided.add(item, decision)
        for row in self.stream:
            if isinstance(row, Reject):
                tally.rejected += 1
                tally.first_rejects += [row][: FIRST_REJECTS - len(tally.first_rejects)]
            else:
                yield self._row(row, decided, tally)
        for item, decision in decided.unmatched():
            tally.appended += 1
            yield (*self._new_row(item), *_provenance(item, decision))

    def _row(self, row: RawRow, decided: _Decided, tally: Tally) -> tuple[str, ...]:
        product = product_of(row, self.roles, ())
        found = None if isinstance(product, Reject) else decided.about(product)
        if found is None:
            return (*row.values.values(), *("",) * len(PROVENANCE))
        item, decision = found
        column, label = self.roles["type"], item.settled_type or ""
        tally.matched += 1
        tally.changed += normalise(row.values[column]) != label
        return (*{**row.values, column: label}.values(), *_provenance(item, decision))

    def _new_row(self, item: Item) -> tuple[str, ...]:
        texts = {
            "product": item.name,
            "brand": item.brand,
            "category": item.category,
            "sub_category": item.sub_category,
            "type": item.settled_type or "",
        }
        by_column = {column: texts[role] for role, column in self.roles.items()}
        return tuple(by_column.get(column, "") for column in self.stream.columns)


class _Decided:
    """Finds the decision about a product, and knows those that were about none."""

    def __init__(self) -> None:
        self._by_name: dict[str, dict[str, tuple[Item, Recorded]]] = {}
        self._matched: set[int] = set()

    def add(self, item: Item, decision: Recorded) -> None:
        self._by_name.setdefault(name_key(item.name), {})[fold(item.brand)] = item, decision

    def about(self, product: Product) -> tuple[Item, Recorded] | None:
        of_name = self._by_name.get(name_key(product.name), {})
        # Decisions without a brand come from files without brands, and are about the name.
        found = of_name.get(fold(product.brand)) or (of_name.get("") if len(of_name) == 1 else None)
        if found is not None:
            self._matched.add(found[0].id)
        return found

    def unmatched(self) -> list[tuple[Item, Recorded]]:
        left = [
            found
            for of_name in self._by_name.values()
            for found in of_name.values()
            if found[0].id not in self._matched
        ]
        return sorted(left, key=lambda found: found[0].id)
