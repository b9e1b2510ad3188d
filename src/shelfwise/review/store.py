"""The store: one class before the modules that do the work. Blocking; for many threads and processes at once.

See the package's docstring for how it is used.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from types import TracebackType

from shelfwise.review import adding, deciding, listing, migrations, queue
from shelfwise.review.database import Database
from shelfwise.review.items import (
    Decision,
    Example,
    Filter,
    Item,
    NewItem,
    Override,
    Progress,
    Recorded,
    checked_key,
    new_key,
    reviewer_name,
)

LEASE_S = 600.0
MAX_LISTED = 1_000


class Store:
    """Items, decisions and examples in one database."""

    def __init__(self, database: Database, clock: Callable[[], float], lease_s: float) -> None:
        self._database = database
        self._clock = clock
        self._lease_s = lease_s

    @classmethod
    def open(
        cls, url: str, *, create: bool = True, clock: Callable[[], float] = time.time, lease_s: float = LEASE_S
    ) -> Store:
        """Open a store and bring its tables up to date.

        Args:
            url: the path of an SQLite file, ``sqlite:///PATH``, or ``postgresql://USER@HOST/NAME``.
            create: make an SQLite file that is missing; else that is an error.
            clock: seconds since 1970.
            lease_s: how long an item stays reserved for the reviewer who has it open.

        Raises:
            MissingPackageError: psycopg is not installed, and PostgreSQL is asked for.
            InputError: the URL or the file is none that a store can be in, or a newer Shelfwise wrote it.
            StorageError: the disk or the server refused.
        """
        database = Database(url, create=create)
        try:
            migrations.apply(database, clock())
        except BaseException:
            database.close()
            raise
        return cls(database, clock, lease_s)

    def close(self) -> None:
        """Give back all connections. The store must not be used any more."""
        self._database.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def add(self, items: Iterable[NewItem]) -> int:
        """Put rows into the queue, some hundreds in a transaction.

        A row whose name and brand are there already is counted to that item; while it is open, it also takes the new
        prediction if another model answered. A settled item stays settled.

        Returns:
            How many items are new.
        """
        return adding.add(self._database, items, self._clock)

    def add_examples(self, examples: Iterable[Example]) -> int:
        """Keep names that show what a type holds, `adding.EXAMPLES_PER_TYPE` of each at most; how many are new."""
        return adding.add_examples(self._database, examples)

    def next_item(self, reviewer: str) -> Item | None:
        """What this reviewer should look at now, leased to them; None when nothing is left for them.

        The same item comes again until it is decided, skipped or released.
        """
        return self._lease(reviewer, after=None)

    def peek(self, reviewer: str, after: int) -> Item | None:
        """What will come after the item `after`, to be loaded ahead; leased too, so that nobody else gets it."""
        return self._lease(reviewer, after=after)

    def _lease(self, reviewer: str, after: int | None) -> Item | None:
        name, now = reviewer_name(reviewer), self._clock()
        return self._database.write(lambda c: queue.lease(c, name, now, now + self._lease_s, after))

    def release(self, reviewer: str) -> int:
        """Free what this reviewer has open; returns how many items that were."""
        name = reviewer_name(reviewer)
        return self._database.write(lambda c: queue.release(c, name))

    def decide(self, item_id: int, decision: Decision) -> Item:
        """Store a decision; it is on disk when this returns.

        A request with the key of an earlier one is that one repeated: nothing is stored, and the item is returned.

        Raises:
            ConflictError: the item has changed since `decision.version`.
            UnknownItemError: there is no such item.
            InputError: the key was used for another decision.
        """
        return self._database.write(lambda c: deciding.decide(c, item_id, decision, self._clock()))

    def undo(self, reviewer: str, key: str | None = None) -> Item | None:
        """Take back this reviewer's last decision that still stands, and all that were settled with it.

        The item is leased to the reviewer again, and comes first.

        Args:
            reviewer: whose.
            key: of the request, as in `Decision.key`.

        Returns:
            The item as it stands now; None when there is nothing to take back.
        """
        name, chosen, now = reviewer_name(reviewer), checked_key(key or new_key()), self._clock()
        return self._database.write(lambda c: deciding.undo(c, name, chosen, now, now + self._lease_s))

    def reopen(self, item_id: int, reviewer: str, version: int, key: str | None = None) -> Item:
        """Take back the decision on one settled item, whoever made it; what was settled with it stays.

        Raises:
            ConflictError: the item has changed since `version`, or is open.
            UnknownItemError: there is no such item.
        """
        name, chosen, now = reviewer_name(reviewer), checked_key(key or new_key()), self._clock()
        return self._database.write(
            lambda c: deciding.reopen(c, item_id, name, version, chosen, now, now + self._lease_s)
        )

    def item(self, item_id: int) -> Item:
        """One item.

        Raises:
            UnknownItemError: there is none of this number.
        """
        return self._database.read(lambda c: listing.item(c, item_id, self._clock()))

    def history(self, item_id: int) -> tuple[Recorded, ...]:
        """All that was decided about an item, oldest first."""
        return self._database.read(lambda c: listing.history(c, item_id))

    def items(self, filter: Filter = Filter(), limit: int = 50, offset: int = 0) -> tuple[Item, ...]:  # noqa: B008
        """Items in the order of the queue, at most `MAX_LISTED` at a time."""
        bounded, start = max(0, min(limit, MAX_LISTED)), max(0, offset)
        return self._database.read(lambda c: listing.items(c, filter, bounded, start, self._clock()))

    def count(self, filter: Filter = Filter()) -> int:  # noqa: B008  frozen
        """How many items there are."""
        return self._database.read(lambda c: listing.count(c, filter))

    def settled(self, after: int = 0, limit: int = MAX_LISTED) -> tuple[tuple[Item, Recorded], ...]:
        """Settled items with the decisions that stand, by item id, those above `after`: for an export, page by page."""
        return self._database.read(lambda c: listing.settled(c, after, min(limit, MAX_LISTED), self._clock()))

    def progress(self) -> Progress:
        """Counts and the agreement rate."""
        return self._database.read(lambda c: listing.progress(c, self._clock()))

    def overrides(self, limit: int = 20) -> tuple[Override, ...]:
        """Which types people put in whose place, most frequent first."""
        return self._database.read(lambda c: listing.overrides(c, min(limit, MAX_LISTED)))

    def types(self) -> frozenset[str]:
        """Every type that an item or an example names. `decide` takes others too: people may make new ones."""
        return self._database.read(listing.types)

    def examples(self, type: str, limit: int = 8) -> tuple[Example, ...]:
        """Products of a type: first those that people settled so, newest first, then those that were added as such."""
        return self._database.read(lambda c: listing.examples(c, type, min(limit, MAX_LISTED)))
