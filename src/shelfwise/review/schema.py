"""The tables as the newest migration leaves them, and the way from a row to an `Item` or a `Recorded`."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    ForeignKey,
    Integer,
    MetaData,
    Row,
    Select,
    Table,
    Text,
    UniqueConstraint,
    func,
    select,
)

from shelfwise.records import Prediction
from shelfwise.review.items import MAX_RANKED, Item, Recorded

METADATA = MetaData()

ITEMS = Table(
    "review_items",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("name_key", Text, nullable=False),
    Column("brand_key", Text, nullable=False),
    Column("folded", Text, nullable=False),  # name and brand without regard to case: what a search looks at
    Column("name", Text, nullable=False),
    Column("brand", Text, nullable=False),
    Column("text", Text, nullable=False),
    Column("category", Text, nullable=False),
    Column("sub_category", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("predicted_type", Text, nullable=False),
    Column("confidence", Float, nullable=False),
    Column("level", Text, nullable=False),
    Column("top_k", Text, nullable=False),  # JSON: [[type, probability], ...]
    Column("path", Text, nullable=False),  # JSON: [level, ...]
    Column("sure_path", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("given_type", Text),
    Column("rows", BigInteger, nullable=False),
    Column("doubt", Float, nullable=False),
    Column("priority", Float, nullable=False),  # rows * doubt
    Column("status", Text, nullable=False),
    Column("settled_type", Text),
    Column("settled_by", BigInteger),  # the decision that stands
    Column("skips", Integer, nullable=False),
    Column("version", Integer, nullable=False),
    Column("leased_by", Text),
    Column("leased_until_s", Float),
    Column("added_at_s", Float, nullable=False),
    UniqueConstraint("name_key", "brand_key"),
)
DECISIONS = Table(
    "review_decisions",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("item_id", ForeignKey("review_items.id"), nullable=False),
    Column("action", Text, nullable=False),
    Column("type", Text),
    Column("reviewer", Text, nullable=False),
    Column("at_s", Float, nullable=False),
    Column("comment", Text, nullable=False),
    Column("key", Text, nullable=False, unique=True),  # the request's; of items settled with it "KEY/ITEM"
    Column("batch", Text, nullable=False),  # the request's
    Column("undoes", ForeignKey("review_decisions.id"), unique=True),  # so nothing is taken back twice
    Column("predicted_type", Text, nullable=False),
    Column("confidence", Float, nullable=False),
    Column("model", Text, nullable=False),
)
ORIGINS = Table(  # rows that were counted already
    "review_origins",
    METADATA,
    Column("origin", Text, primary_key=True),
    Column("item_id", ForeignKey("review_items.id"), nullable=False),
)
SKIPS = Table(  # who is not to be asked again about an open item
    "review_skips",
    METADATA,
    Column("item_id", ForeignKey("review_items.id"), primary_key=True),
    Column("reviewer", Text, primary_key=True),
)
EXAMPLES = Table(
    "review_examples",
    METADATA,
    Column("type", Text, primary_key=True),
    Column("position", Integer, primary_key=True),  # from 0 within the type
    Column("name", Text, nullable=False),
    Column("brand", Text, nullable=False),
)

QUEUE_ORDER = (ITEMS.c.skips, ITEMS.c.priority.desc(), ITEMS.c.id)


def items_with_siblings() -> Select[Any]:
    """All columns of items, and how many open ones have the same name."""
    other = ITEMS.alias()
    siblings = select(func.count()).where(
        other.c.name_key == ITEMS.c.name_key, other.c.status == "open", other.c.id != ITEMS.c.id
    )
    return select(ITEMS, siblings.scalar_subquery().label("same_name"))


def prediction_columns(prediction: Prediction, model: str) -> dict[str, str | float]:
    """A prediction as an item's columns hold it."""
    return {
        "predicted_type": prediction.label,
        "confidence": prediction.confidence,
        "level": prediction.level,
        "top_k": json.dumps(prediction.top_k[:MAX_RANKED]),  # ASCII: no character that a database refuses
        "path": json.dumps(prediction.path),
        "sure_path": json.dumps(prediction.sure_path),
        "model": model,
    }


def item_of(row: Row[Any], now: float) -> Item:
    """A row of `items_with_siblings`.

    Args:
        row: as it was read.
        now: seconds since 1970; a lease that is over by then is not told.
    """
    leased = row.status == "open" and row.leased_until_s is not None and row.leased_until_s > now
    return Item(
        id=row.id,
        version=row.version,
        status=row.status,
        settled_type=row.settled_type,
        name=row.name,
        brand=row.brand,
        text=row.text,
        category=row.category,
        sub_category=row.sub_category,
        source=row.source,
        rows=row.rows,
        same_name=row.same_name,
        predicted_type=row.predicted_type,
        confidence=row.confidence,
        level=row.level,
        top_k=tuple((str(label), float(share)) for label, share in json.loads(row.top_k)),
        path=tuple(map(str, json.loads(row.path))),
        sure_path=tuple(map(str, json.loads(row.sure_path))),
        model=row.model,
        reason=row.reason,
        given_type=row.given_type,
        priority=row.priority,
        skips=row.skips,
        leased_by=row.leased_by if leased else None,
        leased_until_s=row.leased_until_s if leased else None,
        added_at_s=row.added_at_s,
    )


def recorded_of(row: Row[Any]) -> Recorded:
    """A row of decisions."""
    return Recorded(**{name: getattr(row, name) for name in Recorded.__dataclass_fields__})
