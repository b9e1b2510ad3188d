"""The database behind the store: the one file that knows how SQLite and PostgreSQL differ.

All other modules speak SQLAlchemy Core, the same for both. A transaction that writes takes SQLite's write lock when it
begins (BEGIN IMMEDIATE), so it never fails half way because another process wrote first. In PostgreSQL it sees one
state (REPEATABLE READ) and locks the rows that it reads to change (SELECT ... FOR UPDATE, which SQLAlchemy leaves out
for SQLite); where another changed them first, PostgreSQL ends it, and it is run again from its beginning.
"""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event, exc, text
from sqlalchemy.engine import URL, make_url

from shelfwise.errors import InputError, MissingPackageError, StorageError

_Result = TypeVar("_Result")

MIGRATIONS_TABLE = "review_migrations"  # that it is there shows that a database holds a store
BUSY_S = 30.0  # how long a writer waits for another
_ATTEMPTS = 30  # of a transaction that lost a race; with the longest pauses about as long as a writer of SQLite waits
_PAUSE_S = 2.0  # the longest between two attempts
_MIGRATION_LOCK = 5_309_417_201  # any number: who migrates a PostgreSQL database holds it
_RACES = ("40001", "40P01", "23505")  # SQLSTATE of serialization_failure, deadlock_detected, unique_violation


class Database:
    """A connection pool, and the two kinds of transactions."""

    def __init__(self, url: str, *, create: bool = True) -> None:
        """Connect to nothing yet.

        Args:
            url: the path of an SQLite file, ``sqlite:///PATH``, or ``postgresql://USER@HOST/NAME``.
            create: whether an SQLite file may be made; else it must be there.

        Raises:
            InputError: it is none of these, or the file's folder is missing.
            MissingPackageError: psycopg is not installed, and PostgreSQL is asked for.
        """
        parsed = _parsed(url)
        self.name = parsed.render_as_string(hide_password=True)  # in messages
        if parsed.drivername == "sqlite":
            self.name = _require_place(parsed, create)
            self._engine = create_engine(parsed, connect_args={"timeout": BUSY_S})
            _speak_sqlite(self._engine)
        else:
            try:
                self._engine = create_engine(
                    parsed, pool_pre_ping=True, isolation_level="REPEATABLE READ", connect_args={"connect_timeout": 10}
                )
            except ModuleNotFoundError as error:
                raise MissingPackageError("PostgreSQL needs psycopg: pip install 'shelfwise[postgres]'") from error
        self._writer = self._engine.execution_options(writes=True)

    @property
    def is_postgresql(self) -> bool:
        """Whether a server is behind it, rather than a file."""
        return self._engine.dialect.name == "postgresql"

    def close(self) -> None:
        """Close all connections that are not in use."""
        self._engine.dispose()

    def read(self, work: Callable[[Connection], _Result]) -> _Result:
        """Run `work` in a transaction that changes nothing.

        Raises:
            InputError: the file is no SQLite database.
            StorageError: the disk or the server refused.
        """
        with self._errors(), self._engine.begin() as connection:
            return work(connection)

    def write(self, work: Callable[[Connection], _Result]) -> _Result:
        """Run `work` in a transaction, from its beginning again if it lost a race; committed when this returns.

        Args:
            work: has no effects but on the database.

        Raises:
            InputError: the file is no SQLite database.
            StorageError: the disk or the server refused.
        """
        with self._errors():
            for attempt in range(1, _ATTEMPTS):
                try:
                    return self._write_once(self._writer, work)
                except exc.DBAPIError as error:
                    if not _is_race(error):
                        raise
                time.sleep(random.uniform(0, min(0.01 * 2**attempt, _PAUSE_S)))  # noqa: S311  not a secret
            return self._write_once(self._writer, work)

    def migrate(self, work: Callable[[Connection], _Result]) -> _Result:
        """Run `work` in a transaction that waits for those of other migrations, and sees what they did.

        Raises:
            InputError: the file is no SQLite database.
            StorageError: the disk or the server refused.
        """
        if not self.is_postgresql:
            return self.write(work)

        def locked(connection: Connection) -> _Result:
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _MIGRATION_LOCK})
            return work(connection)

        with self._errors():  # each statement sees what was committed before it: what the lock waited for
            return self._write_once(self._writer.execution_options(isolation_level="READ COMMITTED"), locked)

    @staticmethod
    def _write_once(engine: Engine, work: Callable[[Connection], _Result]) -> _Result:
        with engine.begin() as connection:
            return work(connection)

    def in_own_words(self, statement: str) -> str:
        """A statement of a migration in this database's dialect: ``{id}`` is a key that numbers its rows."""
        sqlite, postgresql = "INTEGER PRIMARY KEY AUTOINCREMENT", "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY"
        return statement.replace("{id}", postgresql if self.is_postgresql else sqlite)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except exc.TimeoutError as error:
            raise StorageError(f"{self.name}: too many requests at once; all connections are in use.") from error
        except exc.DBAPIError as error:
            cause = str(error.orig).strip().splitlines() or [type(error.orig).__name__]
            if "file is not a database" in cause[0]:
                raise InputError(f"{self.name}: this file is no SQLite database. Name another.") from error
            raise StorageError(f"{self.name}: the database refused ({cause[0]:.300}); nothing was stored.") from error


def _parsed(url: str) -> URL:
    if "://" not in url:
        return URL.create("sqlite", database=url)
    try:
        parsed = make_url(url)
    except (exc.ArgumentError, ValueError) as error:
        raise InputError(
            "The store's URL can't be read. Write postgresql://USER@HOST/NAME, or a file's path."
        ) from error
    if parsed.drivername == "sqlite" and parsed.database:
        return parsed
    if parsed.drivername in ("postgresql", "postgres", "postgresql+psycopg") and parsed.database:
        return parsed.set(drivername="postgresql+psycopg")
    shown = parsed.render_as_string(hide_password=True)
    raise InputError(f"'{shown}' is no place for a store. Write postgresql://USER@HOST/NAME, or a file's path.")


def _require_place(url: URL, create: bool) -> str:
    path = Path(str(url.database))
    if str(path).startswith(":memory:") or path.is_dir():
        raise InputError(f"{path}: a store is a file. Name one.")
    if not path.parent.is_dir():
        raise InputError(f"{path}: there is no folder '{path.parent}'. Make it, or name another place.")
    if not create and not path.exists():
        raise InputError(f"{path}: there is no such store. `shelfwise review load` makes one.")
    if not create:
        _require_store(path)
    return str(path)


def _require_store(path: Path) -> None:
    """Refuse another program's database before anything is written to it; what is no database is told later."""
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=BUSY_S)) as connection:
            found = connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (MIGRATIONS_TABLE,)).fetchone()
    except sqlite3.Error:
        return
    if found is None:
        raise InputError(f"{path}: is a database without a review queue. `shelfwise review load` makes one.")


def _speak_sqlite(engine: Engine) -> None:
    """Write-ahead log, every commit on disk, foreign keys, and transactions that begin when we say so."""

    @event.listens_for(engine, "connect")
    def on_connect(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # Python's sqlite3 would begin transactions of its own, and too late
        _use_write_ahead_log(connection)
        connection.execute("PRAGMA synchronous=FULL")  # an acknowledged decision survives a power cut too
        connection.execute("PRAGMA foreign_keys=ON")

    @event.listens_for(engine, "begin")
    def on_begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _use_write_ahead_log(connection: sqlite3.Connection) -> None:
    """The switch is refused at once while another process switches too, whatever the busy timeout: so ask again."""
    deadline = time.monotonic() + BUSY_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _is_race(error: exc.DBAPIError) -> bool:
    """SQLite's writers come one after another and never race; its errors have no `sqlstate`."""
    return getattr(error.orig, "sqlstate", None) in _RACES
