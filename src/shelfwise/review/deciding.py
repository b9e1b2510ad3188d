"""Decisions and undo. The record only grows; items hold what stands, and change in the same transaction."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, Select, delete, exists, insert, or_, select, update

from shelfwise.errors import InputError
from shelfwise.review import listing
from shelfwise.review.items import ConflictError, Decision, Item, RecordedAction, UnknownItemError
from shelfwise.review.schema import DECISIONS, ITEMS, SKIPS, recorded_of


def decide(connection: Connection, item_id: int, decision: Decision, now: float) -> Item:
    """Store a decision, or recognise one that is stored already.

    Raises:
        ConflictError: the item is not as the reviewer saw it.
        UnknownItemError: there is no such item.
        InputError: the key was used for another decision.
    """
    together = _locked_together(connection, item_id) if decision.same_name else [_locked(connection, item_id)]
    row = together[0]
    earlier = connection.execute(select(DECISIONS).where(DECISIONS.c.key == decision.key)).one_or_none()
    if earlier is not None:
        _require_repeated(earlier, item_id, decision)
        return listing.item(connection, item_id, now)
    if row.status != "open" or row.version != decision.version:
        raise _conflict(connection, row, now)
    if decision.action == "skip":
        _skip(connection, row, decision, now)
        return listing.item(connection, item_id, now)
    settled_type = decision.type or row.predicted_type
    for member in together:
        key = decision.key if member.id == item_id else f"{decision.key}/{member.id}"
        _settle(connection, member, settled_type, decision, key, now)
    return listing.item(connection, item_id, now)


def _locked(connection: Connection, item_id: int) -> Row[Any]:
    row = connection.execute(
        select(ITEMS).where(ITEMS.c.id == listing.known_id(item_id)).with_for_update()
    ).one_or_none()
    if row is None:
        raise UnknownItemError(f"There is no item {item_id} in this store.")
    return row


def _locked_together(connection: Connection, item_id: int) -> list[Row[Any]]:
    """The item, then the other open ones of its name; locked by number, so that two who lock them don't deadlock."""
    name = select(ITEMS.c.name_key).where(ITEMS.c.id == listing.known_id(item_id)).scalar_subquery()
    wanted = or_(ITEMS.c.id == item_id, ITEMS.c.status == "open")
    rows = connection.execute(
        select(ITEMS).where(ITEMS.c.name_key == name, wanted).order_by(ITEMS.c.id).with_for_update()
    ).all()
    if not rows:
        raise UnknownItemError(f"There is no item {item_id} in this store.")
    return sorted(rows, key=lambda row: row.id != item_id)


def _require_repeated(earlier: Row[Any], item_id: int, decision: Decision) -> None:
    """Refuse a key that stands for something else; a correction to the predicted type is stored as accept."""
    settled_type = None if decision.action == "skip" else decision.type or earlier.predicted_type
    now, then = (item_id, decision.reviewer, settled_type), (earlier.item_id, earlier.reviewer, earlier.type)
    if earlier.action == "undo" or now != then:
        raise InputError("This decision's key was used for another decision. Make a new one for each.")


def _conflict(connection: Connection, row: Row[Any], now: float) -> ConflictError:
    item = listing.item(connection, row.id, now)
    standing = connection.execute(select(DECISIONS).where(DECISIONS.c.id == row.settled_by)).one_or_none()
    if standing is None:
        return ConflictError(f"Item {row.id} has changed meanwhile; nothing was stored. Look at it again.", item, None)
    message = f"{standing.reviewer} has settled item {row.id} as '{standing.type}' meanwhile; nothing was stored."
    return ConflictError(message, item, recorded_of(standing))


def _settle(connection: Connection, row: Row[Any], settled_type: str, decision: Decision, key: str, now: float) -> None:
    agrees = settled_type == row.predicted_type
    action: RecordedAction = "accept" if agrees else "correct"
    made = _record(
        connection, row, action, decision.reviewer, now, key, decision.key, type=settled_type, comment=decision.comment
    )
    connection.execute(
        update(ITEMS)
        .where(ITEMS.c.id == row.id)
        .values(
            status="accepted" if agrees else "corrected",
            settled_type=settled_type,
            settled_by=made,
            version=row.version + 1,
            leased_by=None,
            leased_until_s=None,
        )
    )


def _skip(connection: Connection, row: Row[Any], decision: Decision, now: float) -> None:
    """The version stays: nothing that others would decide about has changed."""
    _record(connection, row, "skip", decision.reviewer, now, decision.key, decision.key, comment=decision.comment)
    skipped = connection.execute(
        select(SKIPS).where(SKIPS.c.item_id == row.id, SKIPS.c.reviewer == decision.reviewer)
    ).one_or_none()
    if skipped is None:
        connection.execute(insert(SKIPS).values(item_id=row.id, reviewer=decision.reviewer))
    changes: dict[str, Any] = {"skips": row.skips + (skipped is None)}
    if row.leased_by == decision.reviewer:
        changes |= {"leased_by": None, "leased_until_s": None}
    connection.execute(update(ITEMS).where(ITEMS.c.id == row.id).values(changes))


def _record(
    connection: Connection,
    row: Row[Any],
    action: RecordedAction,
    reviewer: str,
    now: float,
    key: str,
    batch: str,
    *,
    type: str | None = None,
    comment: str = "",
    undoes: int | None = None,
) -> int:
    """Append to the record what was done to the item in `row`; returns the line's id."""
    made = insert(DECISIONS).values(
        item_id=row.id,
        action=action,
        type=type,
        reviewer=reviewer,
        at_s=now,
        comment=comment,
        key=key,
        batch=batch,
        undoes=undoes,
        predicted_type=row.predicted_type,
        confidence=row.confidence,
        model=row.model,
    )
    return int(connection.execute(made.returning(DECISIONS.c.id)).scalar_one())


def undo(connection: Connection, reviewer: str, key: str, now: float, until: float) -> Item | None:
    """Take back the reviewer's last standing decision with all that share its request."""
    if (repeated := _undone_by(connection, key)) is not None:
        return listing.item(connection, repeated, now)
    last = connection.execute(
        _standing().where(DECISIONS.c.reviewer == reviewer).order_by(DECISIONS.c.id.desc()).limit(1)
    ).one_or_none()
    if last is None:
        return None
    together = connection.execute(_standing().where(DECISIONS.c.batch == last.batch).order_by(DECISIONS.c.id)).all()
    for position, line in enumerate(together):
        own = key if position == 0 else f"{key}/{line.item_id}"
        _take_back(connection, line, reviewer, own, key, now, until)
    return listing.item(connection, together[0].item_id, now)


def reopen(
    connection: Connection, item_id: int, reviewer: str, version: int, key: str, now: float, until: float
) -> Item:
    """Take back the decision that stands on one item.

    Raises:
        ConflictError: the item is open, or not as the reviewer saw it.
        UnknownItemError: there is no such item.
    """
    row = _locked(connection, item_id)
    if _undone_by(connection, key) == item_id:
        return listing.item(connection, item_id, now)
    if row.status == "open" or row.version != version:
        raise _conflict(connection, row, now)
    line = connection.execute(select(DECISIONS).where(DECISIONS.c.id == row.settled_by)).one()
    _take_back(connection, line, reviewer, key, key, now, until)
    return listing.item(connection, item_id, now)


def _undone_by(connection: Connection, key: str) -> int | None:
    """The item that an earlier request of this key opened again.

    Raises:
        InputError: the key was used for a decision.
    """
    earlier = connection.execute(select(DECISIONS).where(DECISIONS.c.key == key)).one_or_none()
    if earlier is None:
        return None
    if earlier.action != "undo":
        raise InputError("This request's key was used for a decision. Make a new one for each.")
    return int(earlier.item_id)


def _standing() -> Select[Any]:
    """Decisions that were not taken back."""
    later = DECISIONS.alias()
    return select(DECISIONS).where(
        DECISIONS.c.action != "undo", ~exists(select(later.c.id).where(later.c.undoes == DECISIONS.c.id))
    )


def _take_back(
    connection: Connection, line: Row[Any], reviewer: str, key: str, batch: str, now: float, until: float
) -> None:
    """Append an undo. The item of a settling decision is open again, and leased to who took it back."""
    row = _locked(connection, line.item_id)
    _record(connection, row, "undo", reviewer, now, key, batch, undoes=line.id)
    changes: dict[str, Any] = {"leased_by": reviewer, "leased_until_s": until}
    if line.action == "skip":
        gone = connection.execute(delete(SKIPS).where(SKIPS.c.item_id == row.id, SKIPS.c.reviewer == line.reviewer))
        changes["skips"] = row.skips - gone.rowcount
        if row.status != "open":
            changes = {"skips": changes["skips"]}
    else:
        changes |= {"status": "open", "settled_type": None, "settled_by": None, "version": row.version + 1}
    connection.execute(update(ITEMS).where(ITEMS.c.id == row.id).values(changes))
