"""Each test of the store runs on SQLite and, where the machine has it, on a real PostgreSQL server."""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shelfwise.review.store import Store
from support import postgres
from support.review import Clock


@pytest.fixture(scope="session")
def server_url() -> Iterator[str]:
    binaries = postgres.programs()
    if binaries is None:
        pytest.skip("no PostgreSQL here: initdb and postgres, and a user to run them as, are needed")
    folder = Path(tempfile.mkdtemp(prefix="pg-"))  # short and open to the server's user: its socket lies there
    try:
        with postgres.server(folder, binaries) as url:
            yield url
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def postgresql_url(request: pytest.FixtureRequest) -> str:
    """A new database on the server."""
    psycopg = pytest.importorskip("psycopg", reason="no psycopg: pip install 'shelfwise[postgres]'")
    server: str = request.getfixturevalue("server_url")
    name = f"review_{os.getpid()}_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    return server.replace("/postgres?", f"/{name}?")


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a store can be made: a file, or a database."""
    if request.param == "sqlite":
        return str(tmp_path / "review.db")
    made: str = request.getfixturevalue("postgresql_url")
    return made


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def opened(url: str, clock: Clock) -> Iterator[Callable[[], Store]]:
    """Opens the same store, as often as it is called; all are closed in the end."""
    stores: list[Store] = []

    def open_it() -> Store:
        stores.append(Store.open(url, clock=clock, lease_s=600))
        return stores[-1]

    yield open_it
    for store in stores:
        store.close()


@pytest.fixture
def store(opened: Callable[[], Store]) -> Store:
    return opened()
