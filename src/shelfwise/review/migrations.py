"""Numbered migrations, each applied once. A migration that was released is never edited: add another.

A migration is a list of statements in the SQL that SQLite and PostgreSQL share; ``{id}`` stands for a key that numbers
its rows. `schema` says what all of them together leave; a test compares the two.
"""

from __future__ import annotations

from sqlalchemy import Connection, inspect, text

from shelfwise.errors import InputError
from shelfwise.review.database import MIGRATIONS_TABLE, Database

_FIRST = (
    """
    CREATE TABLE review_items (
        id {id},
        name_key TEXT NOT NULL,
        brand_key TEXT NOT NULL,
        folded TEXT NOT NULL,
        name TEXT NOT NULL,
        brand TEXT NOT NULL,
        text TEXT NOT NULL,
        category TEXT NOT NULL,
        sub_category TEXT NOT NULL,
        source TEXT NOT NULL,
        predicted_type TEXT NOT NULL,
        confidence DOUBLE PRECISION NOT NULL CHECK (confidence BETWEEN 0 AND 1),
        level TEXT NOT NULL,
        top_k TEXT NOT NULL,
        path TEXT NOT NULL,
        sure_path TEXT NOT NULL,
        model TEXT NOT NULL,
        reason TEXT NOT NULL,
        given_type TEXT,
        rows BIGINT NOT NULL CHECK (rows > 0),
        doubt DOUBLE PRECISION NOT NULL CHECK (doubt BETWEEN 0 AND 1),
        priority DOUBLE PRECISION NOT NULL,
        status TEXT NOT NULL CHECK (status IN ('open', 'accepted', 'corrected')),
        settled_type TEXT,
        settled_by BIGINT,
        skips INTEGER NOT NULL CHECK (skips >= 0),
        version INTEGER NOT NULL,
        leased_by TEXT,
        leased_until_s DOUBLE PRECISION,
        added_at_s DOUBLE PRECISION NOT NULL,
        UNIQUE (name_key, brand_key),
        CHECK ((status = 'open') = (settled_type IS NULL)),
        CHECK ((status = 'open') = (settled_by IS NULL))
    )
    """,
    "CREATE INDEX review_items_queue ON review_items (status, skips, priority DESC, id)",
    "CREATE INDEX review_items_order ON review_items (skips, priority DESC, id)",
    # With a single equality, or another order, SQLite would rather walk through all open items in the queue's order:
    # 85 ms an item with 60,000 open ones.
    "CREATE INDEX review_items_leased ON review_items (leased_by, status)",
    "CREATE INDEX review_items_name ON review_items (name_key, status, skips, priority DESC, id)",
    "CREATE INDEX review_items_counts ON review_items (status, skips, rows)",
    "CREATE INDEX review_items_settled ON review_items (settled_type)",
    """
    CREATE TABLE review_decisions (
        id {id},
        item_id BIGINT NOT NULL REFERENCES review_items (id),
        action TEXT NOT NULL CHECK (action IN ('accept', 'correct', 'skip', 'undo')),
        type TEXT,
        reviewer TEXT NOT NULL,
        at_s DOUBLE PRECISION NOT NULL,
        comment TEXT NOT NULL,
        key TEXT NOT NULL UNIQUE,
        batch TEXT NOT NULL,
        undoes BIGINT UNIQUE REFERENCES review_decisions (id),
        predicted_type TEXT NOT NULL,
        confidence DOUBLE PRECISION NOT NULL,
        model TEXT NOT NULL,
        CHECK ((action = 'undo') = (undoes IS NOT NULL)),
        CHECK ((action IN ('accept', 'correct')) = (type IS NOT NULL))
    )
    """,
    "CREATE INDEX review_decisions_item ON review_decisions (item_id, id)",
    "CREATE INDEX review_decisions_reviewer ON review_decisions (reviewer, id)",
    "CREATE INDEX review_decisions_batch ON review_decisions (batch)",
    """
    CREATE TABLE review_origins (
        origin TEXT PRIMARY KEY,
        item_id BIGINT NOT NULL REFERENCES review_items (id)
    )
    """,
    """
    CREATE TABLE review_skips (
        item_id BIGINT NOT NULL REFERENCES review_items (id),
        reviewer TEXT NOT NULL,
        PRIMARY KEY (item_id, reviewer)
    )
    """,
    """
    CREATE TABLE review_examples (
        type TEXT NOT NULL,
        position INTEGER NOT NULL,
        name TEXT NOT NULL,
        brand TEXT NOT NULL,
        PRIMARY KEY (type, position)
    )
    """,
)
MIGRATIONS: tuple[tuple[str, ...], ...] = (_FIRST,)


def apply(database: Database, now: float) -> None:
    """Apply what is missing, all in one transaction.

    Args:
        database: new, or of any earlier version.
        now: seconds since 1970, kept beside each number.

    Raises:
        InputError: a newer Shelfwise has migrated it further than this one knows.
    """
    done = database.read(_number)
    if done < len(MIGRATIONS):
        done = database.migrate(lambda connection: _migrate(database, connection, now))
    if done > len(MIGRATIONS):
        raise InputError(
            f"{database.name}: a newer Shelfwise wrote this store (migration {done}, and this one knows "
            f"{len(MIGRATIONS)}). Upgrade Shelfwise."
        )


def _number(connection: Connection) -> int:
    """The last migration that was applied; 0 for a new database."""
    if not inspect(connection).has_table(MIGRATIONS_TABLE):
        return 0
    return int(connection.execute(text(f"SELECT COALESCE(MAX(number), 0) FROM {MIGRATIONS_TABLE}")).scalar_one())  # noqa: S608


def _migrate(database: Database, connection: Connection, now: float) -> int:
    done = _number(connection)  # again: another process may just have done it
    if done == 0:
        connection.execute(
            text(
                f"CREATE TABLE {MIGRATIONS_TABLE} (number INTEGER PRIMARY KEY, applied_at_s DOUBLE PRECISION NOT NULL)"
            )
        )
    for number, statements in enumerate(MIGRATIONS[done:], done + 1):
        for statement in statements:
            connection.exec_driver_sql(database.in_own_words(statement))
        connection.execute(
            text(f"INSERT INTO {MIGRATIONS_TABLE} (number, applied_at_s) VALUES (:number, :now)"),  # noqa: S608
            {"number": number, "now": now},
        )
    return max(done, len(MIGRATIONS))
