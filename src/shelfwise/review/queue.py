"""Which item a reviewer gets next, and leases, so that two reviewers get different ones.

The order: what this reviewer has open already, first of all what they took back; then the open items that share their
name with the one just decided, so that one product is thought about once; then

    priority = rows x probability that what stands there is wrong

highest first: the number of wrong rows that one decision is expected to settle. So an unsure answer on a name that
stands in forty rows comes before a slightly less sure one on a name that stands in one. The probability is 1 -
confidence of the predicted type, or of the given type where the label audit doubts that. Items that somebody skipped
come last, and never again to who skipped them.

A lease reserves an item, it does not lock it: a decision on an item that is leased to another is taken, and the other
is told when they decide.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sqlalchemy import ColumnElement, Connection, UnaryExpression, exists, or_, select, update

from shelfwise.review import listing
from shelfwise.review.items import Item
from shelfwise.review.schema import DECISIONS, ITEMS, QUEUE_ORDER, SKIPS

_Order = tuple[ColumnElement[Any] | UnaryExpression[Any], ...]


def lease(connection: Connection, reviewer: str, now: float, until: float, after: int | None) -> Item | None:
    """The reviewer's next item, leased.

    Args:
        connection: in a transaction that writes.
        reviewer: who asks.
        now: seconds since 1970.
        until: when the lease ends.
        after: the item that the reviewer has before them, and which is not meant.
    """
    for condition, order in _wishes(connection, reviewer, now, after):
        wanted = select(ITEMS.c.id).where(ITEMS.c.status == "open", ITEMS.c.id != (after or 0), condition)
        # Rows that another reviewer is taking at this moment are passed over, not waited for.
        found = connection.execute(
            wanted.order_by(*order).limit(1).with_for_update(of=ITEMS, skip_locked=True)
        ).scalar_one_or_none()
        if found is not None:
            connection.execute(
                update(ITEMS).where(ITEMS.c.id == found).values(leased_by=reviewer, leased_until_s=until)
            )
            return listing.item(connection, found, now)
    return None


def _wishes(
    connection: Connection, reviewer: str, now: float, after: int | None
) -> Iterator[tuple[ColumnElement[bool], _Order]]:
    """What to look for, most wanted first: a condition on open items, and their order."""
    held = ITEMS.c.leased_until_s > now
    # A version above 1 was decided before: taking that back is why it is open.
    yield (ITEMS.c.leased_by == reviewer) & held, (ITEMS.c.version.desc(), *QUEUE_ORDER)
    skipped = exists().where(SKIPS.c.item_id == ITEMS.c.id, SKIPS.c.reviewer == reviewer)
    free = or_(ITEMS.c.leased_by.is_(None), ITEMS.c.leased_until_s <= now) & ~skipped
    name = _name_at_hand(connection, reviewer, after)
    if name is not None:
        yield free & (ITEMS.c.name_key == name), QUEUE_ORDER
    yield free, QUEUE_ORDER


def _name_at_hand(connection: Connection, reviewer: str, after: int | None) -> str | None:
    """The name that the reviewer is thinking about: that of `after`, else of their last decision."""
    if after is None:
        after = connection.execute(
            select(DECISIONS.c.item_id).where(DECISIONS.c.reviewer == reviewer).order_by(DECISIONS.c.id.desc()).limit(1)
        ).scalar_one_or_none()
    return connection.execute(select(ITEMS.c.name_key).where(ITEMS.c.id == after)).scalar_one_or_none()


def release(connection: Connection, reviewer: str) -> int:
    """End all leases of a reviewer; returns how many there were."""
    ended = connection.execute(
        update(ITEMS)
        .where(ITEMS.c.leased_by == reviewer, ITEMS.c.status == "open")
        .values(leased_by=None, leased_until_s=None)
    )
    return ended.rowcount
