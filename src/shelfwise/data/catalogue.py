"""From rows to products: which column plays which role, what a name is, and what makes a catalogue usable."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from shelfwise.config import Columns, Role
from shelfwise.data._cells import shown
from shelfwise.data.reader import open_rows
from shelfwise.errors import CatalogueError, did_you_mean
from shelfwise.records import Product, RawRow, Reject
from shelfwise.text import fold, normalise

# Compared without regard to case, and with spaces and dashes as underscores; the first that a file has is taken.
RECOGNISED: dict[str, tuple[str, ...]] = {
    "product": ("product", "product_name", "name", "title"),
    "type": ("type", "inventory_type", "product_type", "label"),
    "brand": ("brand", "brand_name"),
    "category": ("category",),
    "sub_category": ("sub_category", "subcategory"),
}
EMPTY_NAME = "the product name is empty"
MAX_TEXT = 1_000  # characters of a name, a type, a brand; BigBasket's longest name has 125
_COLUMNS_TOLD = 30


@dataclass(frozen=True, slots=True)
class Catalogue:
    """A file of products, read and judged row by row."""

    path: Path
    fingerprint: str  # SHA-256 over id, name, label and brand of every product, and the number of rows
    columns: Mapping[str, str]  # role ("product", "type", "brand", "category", "sub_category") to the file's column
    products: tuple[Product, ...]
    rejects: tuple[Reject, ...]
    row_count: int  # products and rejects; ids are below it
    untidy_labels: tuple[int, ...] = ()  # ids of products whose type has stray spaces or invisible characters

    @property
    def labelled(self) -> tuple[Product, ...]:
        """The products that have an inventory type."""
        return tuple(product for product in self.products if product.label is not None)


def read_catalogue(
    path: Path,
    columns: Columns = Columns(),  # noqa: B008  frozen
    text_columns: Sequence[Role] = ("product",),
    *,
    labels: Literal["required", "optional"] = "optional",
    options: bool = True,
) -> Catalogue:
    """Read a file of products.

    Args:
        path: as `reader.open_rows` takes it.
        columns: which column plays which role; None is recognised by its usual names.
        text_columns: what a model is to read, in this order.
        labels: whether a file without any inventory type is an error.
        options: whether who calls can name columns with --product, --type and the like; else a message advises to
            rename them in the file.

    Raises:
        CatalogueError: the file can't be read, a column is missing, or no row is usable.
    """
    stream = open_rows(path)
    roles = recognise(stream.columns, columns, path, options=options)
    _require_roles(path, stream.columns, roles, text_columns, labels, options)
    products: list[Product] = []
    rejects: list[Reject] = []
    untidy: list[int] = []
    label_column = roles.get("type")
    for row in stream:
        product = product_of(row, roles, text_columns) if isinstance(row, RawRow) else row
        if isinstance(product, Reject):
            rejects.append(product)
            continue
        products.append(product)
        if label_column is not None and product.label is not None and row.values[label_column] != product.label:
            untidy.append(product.id)
    if not products:
        raise CatalogueError(
            f"{path}: no usable row among {len(rejects):,}; the first, {rejects[0].source}: {rejects[0].reason}."
        )
    row_count = len(products) + len(rejects)
    fingerprint = _fingerprint(products, row_count)
    catalogue = Catalogue(path, fingerprint, roles, tuple(products), tuple(rejects), row_count, tuple(untidy))
    if labels == "required" and not catalogue.labelled:
        mend = "Name another with --type." if options else "Give that name to the column that holds them."
        raise CatalogueError(
            f"{path}: no product has an inventory type: column '{roles['type']}' is empty in every row. {mend}"
        )
    return catalogue


def require_trainable(catalogue: Catalogue) -> None:
    """Refuse a catalogue that there is nothing to learn from.

    Raises:
        CatalogueError: no inventory types, or only one.
    """
    types = {product.label for product in catalogue.labelled}
    if not types:
        raise CatalogueError(f"{catalogue.path}: no product has an inventory type, so there is nothing to learn.")
    if len(types) == 1:
        raise CatalogueError(
            f"{catalogue.path}: all {len(catalogue.labelled):,} products have the same inventory type, "
            f"'{next(iter(types))}'; telling types apart takes at least two. Is --type the right column?"
        )


def recognise(columns: Sequence[str], wanted: Columns, path: Path, *, options: bool = True) -> Mapping[str, str]:
    """Which of a file's columns plays which role.

    Args:
        columns: the file's.
        wanted: columns named by the user; a role left None goes to the first of its `RECOGNISED` names that the file
            has and that plays no other role.
        path: the file, for messages.
        options: as for `read_catalogue`.

    Returns:
        Role to column, for the roles that were found; "product" always is.

    Raises:
        CatalogueError: a wanted column is not there, or no column holds product names.
    """
    by_canonical: dict[str, str] = {}
    for column in columns:
        by_canonical.setdefault(_canonical(column), column)
    roles: dict[str, str] = {}
    for role, name in wanted.model_dump(exclude_none=True).items():
        found = name if name in columns else by_canonical.get(_canonical(name))
        if found is None:
            what = f"(--{role.replace('_', '-')})" if options else f"for the {role.replace('_', '-')}"
            mend = "" if options else " Rename the one that is meant."
            raise CatalogueError(
                f"{path}: there is no column '{name}' {what}.{did_you_mean(name, columns)} {_told(columns)}{mend}"
            )
        roles[role] = found
    taken = set(roles.values())
    for role, usual in RECOGNISED.items():
        free = [by_canonical[name] for name in usual if name in by_canonical and by_canonical[name] not in taken]
        if role not in roles and free:
            roles[role] = free[0]
            taken.add(free[0])
    if "product" not in roles:
        raise CatalogueError(
            f"{path}: no column is recognised as product names ({', '.join(RECOGNISED['product'])}). {_told(columns)} "
            f"{_naming('product', options)} The file's first line must hold the columns' names."
        )
    return roles


def product_of(row: RawRow, roles: Mapping[str, str], text_columns: Sequence[Role]) -> Product | Reject:
    """One row as a product, or why it is none.

    Args:
        row: from `reader.open_rows`.
        roles: from `recognise`, for the same file.
        text_columns: what a model is to read: their texts joined with single spaces, without the empty ones.
    """
    texts = _texts_of(row, roles)
    if isinstance(texts, Reject):
        return texts
    return Product(
        id=row.id,
        source=row.source,
        name=texts["product"],
        label=texts.get("type") or None,
        brand=texts.get("brand", ""),
        category=texts.get("category", ""),
        sub_category=texts.get("sub_category", ""),
        text=_joined(texts, text_columns),
    )


def text_of(row: RawRow, roles: Mapping[str, str], text_columns: Sequence[Role]) -> str | Reject:
    """The `text` of `product_of` alone."""
    if len(roles) == 1:  # names alone, the usual case, at a third of the time
        name = normalise(row.values[roles["product"]])
        if 0 < len(name) <= MAX_TEXT:
            return name
    texts = _texts_of(row, roles)
    return texts if isinstance(texts, Reject) else _joined(texts, text_columns)


def _texts_of(row: RawRow, roles: Mapping[str, str]) -> dict[str, str] | Reject:
    """Normalised texts by role."""
    texts = {role: normalise(row.values[column]) for role, column in roles.items()}
    if not texts["product"]:
        return Reject(row.id, row.source, EMPTY_NAME, row.values)
    if max(map(len, texts.values())) > MAX_TEXT:
        role, text = next((role, text) for role, text in texts.items() if len(text) > MAX_TEXT)
        what = f"column '{shown(roles[role])}' holds {len(text):,} characters; a {role.replace('_', '-')}"
        return Reject(row.id, row.source, f"{what} has at most {MAX_TEXT:,}", row.values)
    return texts


def _joined(texts: Mapping[str, str], text_columns: Sequence[Role]) -> str:
    """What a model reads: the texts of some roles, without the empty ones; the name where there is none."""
    return " ".join([text for role in text_columns if (text := texts.get(role))]) or texts["product"]


def rejects_table(rejects: Iterable[Reject]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Rejected rows as a table to write.

    Returns:
        Headings (source, reason, then the file's columns), all different, and one row of as many cells a reject.
    """
    rejected = list(rejects)
    columns = tuple(dict.fromkeys(column for reject in rejected for column in reject.values))
    rows = [(r.source, r.reason, *(r.values.get(column, "") for column in columns)) for r in rejected]
    ours = (name if name not in columns else f"reject_{name}" for name in ("source", "reason"))
    return (*ours, *columns), rows


def _require_roles(
    path: Path,
    columns: Sequence[str],
    roles: Mapping[str, str],
    text_columns: Sequence[Role],
    labels: Literal["required", "optional"],
    options: bool,
) -> None:
    for role in text_columns:
        if role not in roles:
            raise CatalogueError(
                f"{path}: the model is to read the {role}, and no column is recognised as that "
                f"({', '.join(RECOGNISED[role])}). {_told(columns)} {_naming(role, options)}"
            )
    if labels == "required" and "type" not in roles:
        raise CatalogueError(
            f"{path}: no column is recognised as inventory types ({', '.join(RECOGNISED['type'])}). {_told(columns)} "
            f"{_naming('type', options)}"
        )


def _naming(role: str, options: bool) -> str:
    if options:
        return f"Name it with --{role.replace('_', '-')} COLUMN."
    return "Rename the one that is meant to one of these."


def _canonical(column: str) -> str:
    return re.sub(r"[\s_-]+", "_", fold(column))


def _told(columns: Sequence[str]) -> str:
    """The file's columns as a sentence."""
    names = [f"'{shown(column)}'" for column in columns[:_COLUMNS_TOLD]]
    more = len(columns) - len(names)
    rest = f" and {more:,} more" if more else ""
    return f"The file's columns are {', '.join(names)}{rest}."


def _fingerprint(products: Iterable[Product], row_count: int) -> str:
    """Normalised text holds no control characters, so these separators keep rows and fields apart."""
    digest = hashlib.sha256(f"{row_count}\x1e".encode())
    for p in products:
        digest.update(f"{p.id}\x1f{p.name}\x1f{p.label or ''}\x1f{p.brand}\x1e".encode())
    return digest.hexdigest()
