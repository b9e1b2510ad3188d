"""Filling the review queue: from a file of predictions, from a label audit, and from live traffic."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from shelfwise.config import Columns
from shelfwise.data.catalogue import product_of, read_catalogue, recognise
from shelfwise.data.names import name_key
from shelfwise.data.written import WrittenFile, WrittenRow, path_of, ranking_of, share_of, text_of
from shelfwise.errors import CatalogueError, InputError
from shelfwise.pipelines import label_audit, predict_plan
from shelfwise.records import LEVELS, Level, Prediction, Product, RawRow, Reject
from shelfwise.review.items import Example, NewItem
from shelfwise.storage import sha256
from shelfwise.text import normalise

if TYPE_CHECKING:
    from shelfwise.review.store import Store

Kind = Literal["predictions", "label audit"]

FIRST_REJECTS = 5
_PROGRESS_ROWS = 1_000
_AUDIT = "label audit"  # stands for the model, whose name the audit's file does not hold
_ORIGIN_DIGITS = 24  # of the file's SHA-256: 96 bits
_ESSENTIAL: dict[Kind, tuple[str, ...]] = {
    "predictions": ("predicted_type", "confidence"),
    "label audit": ("suggested_type", "confidence", "given_confidence"),
}


@dataclass(frozen=True, slots=True)
class LoadSummary:
    """What loading one file did."""

    source: Path
    kind: Kind
    rows: int  # of the file
    wanted: int  # rows for review, or all of them; those that were loaded before count too
    items: int  # new in the queue
    rejected: int
    first_rejects: tuple[Reject, ...]

    def to_json(self) -> dict[str, object]:
        """The summary as one JSON document."""
        return {
            "source": str(self.source),
            "kind": self.kind,
            "rows": self.rows,
            "wanted": self.wanted,
            "items": self.items,
            "rejected": self.rejected,
            "first_rejects": [{"source": reject.source, "reason": reject.reason} for reject in self.first_rejects],
        }


def load_file(
    store: Store,
    source: Path,
    columns: Columns = Columns(),  # noqa: B008  frozen
    *,
    every_row: bool = False,
    progress: Callable[[int], None] | None = None,
) -> LoadSummary:
    """Put the rows of a file into the queue: `LoadJob.of` and `LoadJob.run`, and what they raise."""
    return LoadJob.of(source, columns, every_row=every_row).run(store, progress)


def examples_of(catalogue: Path, columns: Columns = Columns()) -> tuple[Example, ...]:  # noqa: B008  frozen
    """The labelled products of a catalogue, to show reviewers what a type holds: for `Store.add_examples`.

    Raises:
        CatalogueError: the catalogue can't be read, or has no types.
    """
    products = read_catalogue(catalogue, columns, labels="required").labelled
    return tuple(Example(product.label, product.name, product.brand) for product in products if product.label)


def live_item(product: Product, prediction: Prediction, model: str) -> NewItem:
    """One answer of a service as a row for the queue.

    Args:
        product: what was asked; its text is what the model read.
        prediction: the answer.
        model: which classifier answered.
    """
    return NewItem(
        name=product.name,
        name_key=name_key(product.name),
        prediction=prediction,
        model=model,
        reason="live traffic",
        brand=product.brand,
        text=product.text,
        category=product.category,
        sub_category=product.sub_category,
        source="live",
    )


@dataclass(frozen=True, slots=True)
class _Layout:
    """What the columns of a file are."""

    kind: Kind
    ours: Mapping[str, str]  # as predict or the audit calls it, to the file's column
    roles: Mapping[str, str]  # "product" and others, to the input's columns


def _layout(file: WrittenFile, columns: Columns) -> _Layout:
    added: dict[Kind, list[str]] = {
        "predictions": [column.name for column in predict_plan.ADDED],
        "label audit": [column.name for column in label_audit.ADDED],
    }
    found = {kind: _ours(names, file.columns) for kind, names in added.items()}
    kinds = [kind for kind in added if all(name in found[kind] for name in _ESSENTIAL[kind])]
    if not kinds:
        raise CatalogueError(
            f"{file.path}: neither a file of predictions (columns {', '.join(_ESSENTIAL['predictions'])}) nor of a "
            f"label audit ({', '.join(_ESSENTIAL['label audit'])}). Write one with `shelfwise predict` or `shelfwise "
            "audit-labels`."
        )
    # Each is written behind the columns of its input, so of both the one further to the right was written last.
    kind = max(kinds, key=lambda kind: file.columns.index(found[kind][_ESSENTIAL[kind][0]]))
    ours = found[kind]
    rest = [column for column in file.columns if column not in ours.values()]
    return _Layout(kind, ours, recognise(rest, columns, file.path))


def _ours(names: Sequence[str], columns: Sequence[str]) -> dict[str, str]:
    """The last column of each name, numbered or not: an earlier one of the same name is the input's."""
    found = {}
    for name in names:
        of_name = [column for column in columns if re.fullmatch(rf"{name}(_\d+)?", column)]
        if of_name:
            found[name] = of_name[-1]
    return found


@dataclass(slots=True)
class LoadJob:
    """One file on its way into the queue, and what was counted. It runs once."""

    file: WrittenFile
    layout: _Layout
    every_row: bool
    digest: str  # of the file, as its rows are known by
    rows: int = 0
    wanted: int = 0
    rejected: int = 0
    first_rejects: list[Reject] = field(default_factory=list)

    @classmethod
    def of(cls, source: Path, columns: Columns = Columns(), *, every_row: bool = False) -> LoadJob:  # noqa: B008
        """Look at a file's columns.

        Args:
            source: what `shelfwise predict` or `shelfwise audit-labels` wrote, in any format.
            columns: which column plays which role; None is recognised by its usual names.
            every_row: of predictions, also rows that were accepted; of an audit all rows are taken anyway.

        Raises:
            CatalogueError: the file can't be read, or is neither.
        """
        file = WrittenFile(source)
        layout = _layout(file, columns)
        if layout.kind == "predictions" and "decision" not in layout.ours and not every_row:
            raise CatalogueError(
                f"{source}: there is no column 'decision', so nothing says which rows are for review. Load all rows "
                "with --all."
            )
        return cls(file, layout, every_row, sha256(source)[:_ORIGIN_DIGITS])

    def run(self, store: Store, progress: Callable[[int], None] | None = None) -> LoadSummary:
        """Put the rows into the queue. The same file loaded again adds nothing, also after an interruption.

        Args:
            store: the queue.
            progress: called now and then with the number of rows done.

        Raises:
            CatalogueError: the file can't be read on from a line that is named; rows before it may be in the queue.
            StorageError: the store refused.
        """
        items = store.add(self._items(progress))
        return LoadSummary(
            source=self.file.path,
            kind=self.layout.kind,
            rows=self.rows,
            wanted=self.wanted,
            items=items,
            rejected=self.rejected,
            first_rejects=tuple(self.first_rejects),
        )

    def _items(self, progress: Callable[[int], None] | None) -> Iterator[NewItem]:
        for row in self.file:
            self.rows += 1
            item = row if isinstance(row, Reject) else self._item(row)
            if isinstance(item, Reject):
                self.rejected += 1
                if self.rejected <= FIRST_REJECTS:
                    self.first_rejects.append(item)
            elif item is not None:
                self.wanted += 1
                yield item
            if progress is not None and self.rows % _PROGRESS_ROWS == 0:
                progress(self.rows)

    def _item(self, row: WrittenRow) -> NewItem | Reject | None:
        """The row for the queue; None where it is not for review, and why where it can't be used."""
        texts = {column: text_of(row.values.get(column)) for column in self.layout.roles.values()}
        product = product_of(RawRow(row.id, row.source, texts), self.layout.roles, ("product",))
        if isinstance(product, Reject):
            return product
        audit = self.layout.kind == "label audit"
        try:
            if not audit and not self.every_row and self._cell(row, "decision") == "accept":
                return None
            return self._audited(row, product) if audit else self._predicted(row, product)
        except (ValueError, InputError) as error:
            return Reject(row.id, row.source, str(error), texts)

    def _cell(self, row: WrittenRow, name: str) -> object:
        return row.values.get(self.layout.ours[name]) if name in self.layout.ours else None

    def _predicted(self, row: WrittenRow, product: Product) -> NewItem:
        label, confidence = self._type(row, "predicted_type"), share_of(self._cell(row, "confidence"))
        ranking = self._cell(row, "top_k")
        path, sure_path = self._cell(row, "path"), self._cell(row, "sure_path")
        prediction = Prediction(
            label=label,
            confidence=confidence,
            decision="accept" if self._cell(row, "decision") == "accept" else "review",
            level=_level(text_of(self._cell(row, "level"))),
            top_k=((label, confidence),) if ranking in (None, "") else ranking_of(ranking),
            path=(label,) if path in (None, "") else path_of(path, label),
            sure_path=() if sure_path in (None, "") else path_of(sure_path, label),
        )
        return self._new(row, product, prediction, text_of(self._cell(row, "model")) or "unknown", None)

    def _audited(self, row: WrittenRow, product: Product) -> NewItem:
        label, confidence = self._type(row, "suggested_type"), share_of(self._cell(row, "confidence"))
        given_confidence = share_of(self._cell(row, "given_confidence"))
        ranked = ((label, confidence), *([(product.label, given_confidence)] if product.label else ()))
        prediction = Prediction(label, confidence, "review", "", ranked, (label,), ())
        return self._new(row, product, prediction, _AUDIT, 1 - given_confidence)

    def _type(self, row: WrittenRow, name: str) -> str:
        label = normalise(text_of(self._cell(row, name)))
        if not label:
            raise ValueError(f"column '{self.layout.ours[name]}' is empty")
        return label

    def _new(
        self, row: WrittenRow, product: Product, prediction: Prediction, model: str, doubt: float | None
    ) -> NewItem:
        return NewItem(
            name=product.name,
            name_key=name_key(product.name),
            prediction=prediction,
            model=model,
            reason="low confidence" if self.layout.kind == "predictions" else "label audit",
            brand=product.brand,
            text=product.text,
            category=product.category,
            sub_category=product.sub_category,
            source=row.source,
            given_type=product.label,
            doubt=doubt,
            origin=f"{self.digest}:{row.id}",
        )


def _level(text: str) -> Level:
    return next((level for level in LEVELS if level == text), "")
