"""The review queue: what a classifier was unsure of, and what people decided. SQLite, or PostgreSQL by a URL.

What a page or a service calls; every call blocks, and a `Store` may be used from many threads and processes at once:

    store = open_store("review.db")                      # or "postgresql://user@host/name"; migrated when it is opened
    item = store.next_item("asha")                       # -> Item | None; leased to asha, so that others get another
    after = store.peek("asha", item.id)                  # -> Item | None; the one after it, leased too
    item = store.decide(item.id, Decision("accept", "asha", item.version))       # -> Item as it stands now
    item = store.decide(item.id, Decision("correct", "asha", item.version, type="Rice", same_name=True))
    item = store.undo("asha")                            # -> Item | None; takes back her last decision
    item = store.reopen(item.id, "ben", item.version)    # -> Item; takes back anybody's decision
    store.release("asha")                                # -> int; what she has open is free for others
    store.item(1), store.history(1)                      # -> Item, tuple[Recorded, ...] oldest first
    store.items(Filter(status="open"), limit=50, offset=0), store.count(Filter())    # -> tuple[Item, ...], int
    store.progress()                                     # -> Progress: counts and the agreement rate
    store.overrides(limit=20)                            # -> tuple[Override, ...]; what people put in whose place
    store.types()                                        # -> frozenset[str]; all that an item or an example names
    store.examples("Rice", limit=8)                      # -> tuple[Example, ...]: names that people settled so
    store.add(new_items), store.add_examples(examples)   # -> int, int; what was new
    store.close()

`decide` raises `ConflictError` when the item has changed since the version that was shown, and carries the item as it
is now and the decision in the way. `Decision.key` makes a repeated request harmless: it is stored once.

Which item comes first: see `queue`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from shelfwise.errors import MissingPackageError
from shelfwise.review.items import (
    ConflictError,
    Decision,
    Example,
    Filter,
    Item,
    NewItem,
    Override,
    Progress,
    Recorded,
    ReviewerCount,
    UnknownItemError,
)

if TYPE_CHECKING:
    from shelfwise.review.store import Store

__all__ = [
    "ConflictError",
    "Decision",
    "Example",
    "Filter",
    "Item",
    "NewItem",
    "Override",
    "Progress",
    "Recorded",
    "ReviewerCount",
    "UnknownItemError",
    "open_store",
]


def open_store(url: str, *, create: bool = True) -> Store:
    """Open a store; `Store.open` with a clear error where SQLAlchemy is not installed.

    Args:
        url: the path of an SQLite file, ``sqlite:///PATH``, or ``postgresql://USER@HOST/NAME``.
        create: make an SQLite file that is missing; else that is an error.

    Raises:
        MissingPackageError: SQLAlchemy, or for PostgreSQL psycopg, is not installed.
        InputError: the URL or the file is none that a store can be in.
        StorageError: the disk or the server refused.
    """
    try:
        from shelfwise.review.store import Store
    except ModuleNotFoundError as error:
        if error.name != "sqlalchemy":
            raise
        raise MissingPackageError("The review queue needs SQLAlchemy: pip install 'shelfwise[review]'") from error
    return Store.open(url, create=create)
