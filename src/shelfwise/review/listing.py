"""Reading the store: items, history, counts."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, func, select

from shelfwise.review.items import (
    MAX_NAME,
    Example,
    Filter,
    Item,
    Override,
    Progress,
    Recorded,
    ReviewerCount,
    UnknownItemError,
    clean,
)
from shelfwise.review.schema import DECISIONS, EXAMPLES, ITEMS, QUEUE_ORDER, item_of, items_with_siblings, recorded_of
from shelfwise.text import fold


def item(connection: Connection, item_id: int, now: float) -> Item:
    """One item.

    Raises:
        UnknownItemError: there is none of this number.
    """
    row = connection.execute(items_with_siblings().where(ITEMS.c.id == known_id(item_id))).one_or_none()
    if row is None:
        raise UnknownItemError(f"There is no item {item_id} in this store.")
    return item_of(row, now)


def known_id(item_id: int) -> int:
    """The number, if a database can hold it.

    Raises:
        UnknownItemError: it can't, so there is no such item.
    """
    if not 0 < item_id < 2**63:
        raise UnknownItemError(f"There is no item {item_id} in this store.")
    return item_id


def history(connection: Connection, item_id: int) -> tuple[Recorded, ...]:
    """All decisions on an item, oldest first."""
    found = select(DECISIONS).where(DECISIONS.c.item_id == known_id(item_id)).order_by(DECISIONS.c.id)
    return tuple(map(recorded_of, connection.execute(found)))


def items(connection: Connection, wanted: Filter, limit: int, offset: int, now: float) -> tuple[Item, ...]:
    """Items in the order of the queue."""
    # First which, then what: else the items of the same name would be counted for all that are sorted.
    page = _matching(select(ITEMS.c.id), wanted).order_by(*QUEUE_ORDER).limit(limit).offset(offset).subquery()
    found = items_with_siblings().where(ITEMS.c.id.in_(select(page.c.id))).order_by(*QUEUE_ORDER)
    return tuple(item_of(row, now) for row in connection.execute(found))


def count(connection: Connection, wanted: Filter) -> int:
    """How many items match."""
    return int(connection.execute(_matching(select(func.count()).select_from(ITEMS), wanted)).scalar_one())


def _matching(query: Select[Any], wanted: Filter) -> Select[Any]:
    conditions: list[ColumnElement[bool]] = []
    if wanted.status == "settled":
        conditions.append(ITEMS.c.status.in_(("accepted", "corrected")))
    elif wanted.status == "skipped":
        conditions += [ITEMS.c.status == "open", ITEMS.c.skips > 0]
    elif wanted.status is not None:
        conditions.append(ITEMS.c.status == wanted.status)
    for column, value in (
        (ITEMS.c.reason, wanted.reason),
        (ITEMS.c.predicted_type, wanted.predicted_type),
        (ITEMS.c.settled_type, wanted.settled_type),
    ):
        if value is not None:
            conditions.append(column == clean(value, "A filter", MAX_NAME))
    if wanted.search:
        sought = fold(clean(wanted.search, "The search", MAX_NAME))
        conditions.append(ITEMS.c.folded.contains(sought, autoescape=True))
    return query.where(*conditions)


def settled(connection: Connection, after: int, limit: int, now: float) -> tuple[tuple[Item, Recorded], ...]:
    """Settled items above a number with the decisions that stand, by number."""
    found = (
        items_with_siblings()
        .where(ITEMS.c.status.in_(("accepted", "corrected")), ITEMS.c.id > after)
        .order_by(ITEMS.c.id)
        .limit(limit)
    )
    rows = connection.execute(found).all()
    standing = select(DECISIONS).where(DECISIONS.c.id.in_([row.settled_by for row in rows]))
    decisions = {row.id: recorded_of(row) for row in connection.execute(standing)}
    return tuple((item_of(row, now), decisions[row.settled_by]) for row in rows)


def progress(connection: Connection, now: float) -> Progress:
    """Counts over all items."""
    by_status = select(ITEMS.c.status, func.count(), func.sum(ITEMS.c.rows)).group_by(ITEMS.c.status)
    counts = {status: (items, int(rows)) for status, items, rows in connection.execute(by_status)}
    is_open = select(func.count()).select_from(ITEMS).where(ITEMS.c.status == "open")
    skipped = connection.execute(is_open.where(ITEMS.c.skips > 0)).scalar_one()
    held = is_open.where(ITEMS.c.leased_by.is_not(None), ITEMS.c.leased_until_s > now)
    leased = connection.execute(held).scalar_one()
    none = (0, 0)
    return Progress(
        open=counts.get("open", none)[0],
        accepted=counts.get("accepted", none)[0],
        corrected=counts.get("corrected", none)[0],
        skipped=skipped,
        leased=leased,
        open_rows=counts.get("open", none)[1],
        settled_rows=counts.get("accepted", none)[1] + counts.get("corrected", none)[1],
        reviewers=_reviewers(connection),
    )


def _reviewers(connection: Connection) -> tuple[ReviewerCount, ...]:
    standing = (
        select(DECISIONS.c.reviewer, ITEMS.c.status, func.count())
        .join(ITEMS, ITEMS.c.settled_by == DECISIONS.c.id)
        .where(ITEMS.c.status.in_(("accepted", "corrected")))
        .group_by(DECISIONS.c.reviewer, ITEMS.c.status)
    )
    counts: dict[str, dict[str, int]] = {}
    for reviewer, status, number in connection.execute(standing):
        counts.setdefault(reviewer, {})[status] = number
    found = [ReviewerCount(name, of.get("accepted", 0), of.get("corrected", 0)) for name, of in counts.items()]
    return tuple(sorted(found, key=lambda one: (-one.accepted - one.corrected, one.reviewer)))


def overrides(connection: Connection, limit: int) -> tuple[Override, ...]:
    """Predicted types and what people put in their place, most frequent first."""
    number = func.count()
    found = (
        select(ITEMS.c.predicted_type, ITEMS.c.settled_type, number)
        .where(ITEMS.c.status == "corrected")
        .group_by(ITEMS.c.predicted_type, ITEMS.c.settled_type)
        .order_by(number.desc(), ITEMS.c.predicted_type, ITEMS.c.settled_type)
        .limit(limit)
    )
    return tuple(Override(*row) for row in connection.execute(found))


def types(connection: Connection) -> frozenset[str]:
    """Every type that an item or an example names."""
    columns = (ITEMS.c.predicted_type, ITEMS.c.given_type, ITEMS.c.settled_type, EXAMPLES.c.type)
    found = {label for column in columns for label in connection.scalars(select(column).distinct()) if label}
    for ranked in connection.scalars(select(ITEMS.c.top_k)):
        found.update(label for label, _ in json.loads(ranked))
    return frozenset(found)


def examples(connection: Connection, wanted: str, limit: int) -> tuple[Example, ...]:
    """Products of a type: settled ones first, newest decision first, then added ones; no name twice."""
    wanted = clean(wanted, "The type", MAX_NAME)
    decided = (
        select(ITEMS.c.name, ITEMS.c.brand)
        .where(ITEMS.c.settled_type == wanted)
        .order_by(ITEMS.c.settled_by.desc())
        .limit(limit)
    )
    added = (
        select(EXAMPLES.c.name, EXAMPLES.c.brand)
        .where(EXAMPLES.c.type == wanted)
        .order_by(EXAMPLES.c.position)
        .limit(limit)
    )
    rows = [*connection.execute(decided), *connection.execute(added)]
    found = {(name, brand): Example(wanted, name, brand) for name, brand in rows}
    return tuple(found.values())[:limit]
