"""Putting rows into the queue: each counts once, and rows of one name and brand are one item."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, Row, func, insert, select, tuple_, update

from shelfwise.review.database import Database
from shelfwise.review.items import MAX_NAME, Example, NewItem, clean
from shelfwise.review.schema import EXAMPLES, ITEMS, ORIGINS, prediction_columns
from shelfwise.text import fold

CHUNK = 500  # rows a transaction: reviewers wait for a loader no longer than this takes
EXAMPLES_PER_TYPE = 20
_Group = tuple[str, str]  # name_key, brand_key


def add(database: Database, items: Iterable[NewItem], clock: Callable[[], float]) -> int:
    """Add rows, a chunk in a transaction; returns how many items are new."""
    left, new = iter(items), 0
    while chunk := list(itertools.islice(left, CHUNK)):
        new += database.write(lambda connection, chunk=chunk: _add_chunk(connection, chunk, clock()))  # type: ignore[misc]
    return new


def _add_chunk(connection: Connection, chunk: Sequence[NewItem], now: float) -> int:
    groups: dict[_Group, list[NewItem]] = {}
    for item in _uncounted(connection, chunk):
        groups.setdefault((item.name_key, item.brand_key), []).append(item)
    known = {(row.name_key, row.brand_key): row for row in _known(connection, list(groups))}
    ids = {group: row.id for group, row in known.items()}
    for group, row in known.items():
        _count_to(connection, row, groups[group])
    new = [_columns(members, now) for group, members in groups.items() if group not in known]
    if new:
        made = insert(ITEMS).returning(ITEMS.c.id, ITEMS.c.name_key, ITEMS.c.brand_key)
        ids.update({(row.name_key, row.brand_key): row.id for row in connection.execute(made, new)})
    origins = [
        {"origin": item.origin, "item_id": ids[group]}
        for group, members in groups.items()
        for item in members
        if item.origin is not None
    ]
    if origins:
        connection.execute(insert(ORIGINS), origins)
    return len(new)


def _uncounted(connection: Connection, chunk: Sequence[NewItem]) -> list[NewItem]:
    """The rows of a chunk that were not added before, the first of each origin."""
    origins = [item.origin for item in chunk if item.origin is not None]
    counted = set(connection.execute(select(ORIGINS.c.origin).where(ORIGINS.c.origin.in_(origins))).scalars())
    fresh = []
    for item in chunk:
        if item.origin is None or item.origin not in counted:
            fresh.append(item)
            counted.add(item.origin)
    return fresh


def _known(connection: Connection, groups: Sequence[_Group]) -> Sequence[Row[Any]]:
    if not groups:
        return []
    known = select(ITEMS).where(tuple_(ITEMS.c.name_key, ITEMS.c.brand_key).in_(groups))
    return connection.execute(known.order_by(ITEMS.c.id).with_for_update()).all()


def _count_to(connection: Connection, row: Row[Any], members: Sequence[NewItem]) -> None:
    """Count rows to an item that is there; an open one takes the prediction of another model."""
    rows, doubt = row.rows + sum(member.rows for member in members), row.doubt
    changes: dict[str, Any] = {}
    newest = members[-1]
    if row.status == "open" and newest.model != row.model:
        doubt = newest.doubt
        changes = {
            **prediction_columns(newest.prediction, newest.model),
            "reason": newest.reason,
            "given_type": newest.given_type,
            "doubt": doubt,
            "version": row.version + 1,
        }
    changes |= {"rows": rows, "priority": rows * doubt}
    connection.execute(update(ITEMS).where(ITEMS.c.id == row.id).values(changes))


def _columns(members: Sequence[NewItem], now: float) -> dict[str, Any]:
    """A new item of these rows; the first speaks for all."""
    first, rows = members[0], sum(member.rows for member in members)
    doubt = first.doubt or 0.0
    return {
        "name_key": first.name_key,
        "brand_key": first.brand_key,
        "folded": fold(f"{first.name} {first.brand}"),
        "name": first.name,
        "brand": first.brand,
        "text": first.text or first.name,
        "category": first.category,
        "sub_category": first.sub_category,
        "source": first.source,
        **prediction_columns(first.prediction, first.model),
        "reason": first.reason,
        "given_type": first.given_type,
        "rows": rows,
        "doubt": doubt,
        "priority": rows * doubt,
        "status": "open",
        "skips": 0,
        "version": 1,
        "added_at_s": now,
    }


def add_examples(database: Database, examples: Iterable[Example]) -> int:
    """Add examples up to `EXAMPLES_PER_TYPE` of each type, all in one transaction; returns how many are new."""
    wanted: dict[str, dict[_Group, None]] = {}
    for example in examples:
        label = clean(example.type, "The type", MAX_NAME, empty=False)
        named = clean(example.name, "name", MAX_NAME, empty=False), clean(example.brand, "brand", MAX_NAME)
        of_type = wanted.setdefault(label, {})
        if len(of_type) < EXAMPLES_PER_TYPE:
            of_type[named] = None
    return database.write(lambda connection: sum(_add_of_type(connection, *entry) for entry in wanted.items()))


def _add_of_type(connection: Connection, label: str, names: Iterable[_Group]) -> int:
    of_type = EXAMPLES.c.type == label
    known = {tuple(row) for row in connection.execute(select(EXAMPLES.c.name, EXAMPLES.c.brand).where(of_type))}
    start = connection.execute(select(func.count()).select_from(EXAMPLES).where(of_type)).scalar_one()
    new = [name for name in names if name not in known][: max(0, EXAMPLES_PER_TYPE - start)]
    rows = [
        {"type": label, "position": position, "name": name, "brand": brand}
        for position, (name, brand) in enumerate(new, start)
    ]
    if rows:
        connection.execute(insert(EXAMPLES), rows)
    return len(rows)
