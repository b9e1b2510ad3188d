"""Opening a store: files, URLs, migrations, and what is refused."""

import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
from sqlalchemy import event, inspect, text

from shelfwise.errors import InputError, MissingPackageError, StorageError
from shelfwise.review import migrations, open_store
from shelfwise.review.database import Database
from shelfwise.review.items import Decision
from shelfwise.review.schema import METADATA
from shelfwise.review.store import Store
from support.review import new_item


def test_what_was_decided_is_there_when_the_store_is_opened_again(opened):
    store = opened()
    store.add([new_item("a")])
    item = store.next_item("asha")
    store.decide(item.id, Decision("correct", "asha", item.version, type="Tea, Green"))
    store.close()
    again = opened()
    assert again.item(item.id).settled_type == "Tea, Green"
    assert len(again.history(item.id)) == 1


def test_migrations_leave_the_tables_that_the_code_speaks_of(url, store):
    database = Database(url)
    made = database.read(
        lambda connection: {
            table: {(column["name"], column["nullable"]) for column in inspect(connection).get_columns(table)}
            for table in inspect(connection).get_table_names()
        }
    )
    database.close()
    numbers = made.pop("review_migrations")
    assert {name for name, _ in numbers} == {"number", "applied_at_s"}
    # SQLite lets a primary key be null unless it is told otherwise, so nullability is compared on other columns.
    keys = {(table.name, column.name) for table in METADATA.tables.values() for column in table.primary_key}

    def plain(columns, table):
        return {(name, nullable or (table, name) in keys) for name, nullable in columns}

    wanted = {table.name: {(c.name, c.nullable) for c in table.columns} for table in METADATA.tables.values()}
    assert {name: plain(columns, name) for name, columns in made.items()} == {
        name: plain(columns, name) for name, columns in wanted.items()
    }


def test_each_migration_is_applied_once(opened, url, monkeypatch):
    opened().add([new_item("a")])
    monkeypatch.setattr(
        migrations, "MIGRATIONS", (*migrations.MIGRATIONS, ("ALTER TABLE review_items ADD COLUMN note TEXT",))
    )
    for _ in range(2):
        assert opened().count() == 1
    database = Database(url)
    numbers = database.read(lambda c: c.execute(text("SELECT number FROM review_migrations ORDER BY number")).all())
    database.close()
    assert [row[0] for row in numbers] == [1, 2]


def test_a_migration_that_fails_leaves_the_store_as_it_was(opened, url, monkeypatch):
    opened().add([new_item("a")])
    before = migrations.MIGRATIONS
    broken = ("ALTER TABLE review_items ADD COLUMN note TEXT", "ALTER TABLE nowhere ADD COLUMN note TEXT")
    monkeypatch.setattr(migrations, "MIGRATIONS", (*before, broken))
    with pytest.raises(StorageError, match="nothing was stored"):
        opened()
    monkeypatch.setattr(migrations, "MIGRATIONS", before)
    assert opened().count() == 1
    database = Database(url)
    columns = database.read(lambda c: {column["name"] for column in inspect(c).get_columns("review_items")})
    database.close()
    assert "note" not in columns


def test_a_store_of_a_newer_version_is_refused(opened, monkeypatch):
    opened()
    monkeypatch.setattr(migrations, "MIGRATIONS", ())
    with pytest.raises(InputError, match="newer Shelfwise"):
        opened()


def test_many_may_open_a_new_store_at_once(opened):
    with ThreadPoolExecutor(8) as pool:
        stores = list(pool.map(lambda _: opened(), range(8)))
    assert {store.count() for store in stores} == {0}


def test_many_processes_may_open_a_new_file_at_once(tmp_path):
    code = "import sys; from shelfwise.review import open_store; print(open_store(sys.argv[1]).count())"
    started = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "r.db")], stdout=subprocess.PIPE) for _ in range(4)
    ]
    assert [process.communicate()[0].strip() for process in started] == [b"0"] * 4


def test_an_sqlite_store_writes_ahead_waits_and_checks_keys(tmp_path):
    store = Store.open(str(tmp_path / "r.db"))
    asked = {
        name: store._database.read(lambda c, name=name: c.execute(text(f"PRAGMA {name}")).scalar_one())
        for name in ("journal_mode", "busy_timeout", "foreign_keys", "synchronous")
    }
    store.close()
    assert asked == {"journal_mode": "wal", "busy_timeout": 30_000, "foreign_keys": 1, "synchronous": 2}


@pytest.mark.parametrize("form", ["{}", "sqlite:///{}"])
def test_a_path_and_a_url_name_the_same_file(tmp_path, form):
    path = tmp_path / "r.db"
    with open_store(str(path)) as store:
        store.add([new_item("a")])
    with open_store(form.format(path)) as store:
        assert store.count() == 1


def test_a_file_of_another_kind_is_refused(tmp_path):
    path = tmp_path / "predictions.csv"
    path.write_text("product,type\n" * 200)
    with pytest.raises(InputError, match="no SQLite database"):
        open_store(str(path))
    assert path.read_text().startswith("product,type\n")


def test_a_damaged_file_is_an_error_that_can_be_caught(tmp_path):
    path = tmp_path / "r.db"
    open_store(str(path)).close()
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(StorageError, match=r"the database refused"):
        open_store(str(path)).add([new_item("a")])


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nowhere/r.db", "no folder 'nowhere'"),
        (":memory:", "a store is a file"),
        ("sqlite://", "no place for a store"),
        ("mysql://host/name", "no place for a store"),
        ("postgresql://host", "no place for a store"),
        ("://", "can't be read"),
    ],
)
def test_what_is_no_place_for_a_store_is_refused(url, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        open_store(url)
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_must_be_there_is_not_made(tmp_path):
    with pytest.raises(InputError, match="no such store"):
        open_store(str(tmp_path / "r.db"), create=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("made_by", ["CREATE TABLE theirs (x)", None])
def test_another_database_is_not_written_to_where_a_store_must_be_there(tmp_path, made_by):
    path = tmp_path / "other.db"
    path.touch()
    if made_by:
        with closing(sqlite3.connect(path)) as connection:
            connection.execute(made_by)
    before = path.read_bytes()
    with pytest.raises(InputError, match="a database without a review queue"):
        open_store(str(path), create=False)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_store_that_must_be_there_is_opened_beside_another_process_and_after_it(tmp_path):
    with open_store(str(tmp_path / "r.db")) as store:  # another has it open: its log is not yet in the file
        store.add([new_item("a")])
        with open_store(str(tmp_path / "r.db"), create=False) as other:
            assert other.next_item("asha").name == "a"
    with open_store(str(tmp_path / "r.db"), create=False) as again:
        assert again.next_item("asha").name == "a"


def test_a_server_out_of_reach_is_told_without_the_password(tmp_path):
    pytest.importorskip("psycopg")
    with pytest.raises(StorageError) as told:
        open_store(f"postgresql://asha:hunter2@/reviews?host={tmp_path}")
    assert "refused" in str(told.value)
    assert "hunter2" not in str(told.value)


def test_missing_packages_are_told_with_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(MissingPackageError, match=r"shelfwise\[postgres\]"):
        open_store("postgresql://host/name")
    monkeypatch.setitem(sys.modules, "sqlalchemy", None)
    for name in [name for name in sys.modules if name.startswith("shelfwise.review.")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(MissingPackageError, match=r"shelfwise\[review\]"):
        open_store("r.db")


def test_a_writer_that_never_ends_is_told_in_time(tmp_path, monkeypatch):
    monkeypatch.setattr("shelfwise.review.database.BUSY_S", 0.1)
    store = Store.open(str(tmp_path / "r.db"))
    other = sqlite3.connect(tmp_path / "r.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StorageError, match="locked"):
        store.add([new_item("a")])
    assert store.count() == 0  # readers go on
    other.close()
    assert store.add([new_item("a")]) == 1
    store.close()


def test_a_reviewers_step_does_not_walk_through_the_queue(tmp_path):
    """Counted in operations of SQLite, for time depends on the machine: a walk takes ten of them a row."""
    rows, operations = 3_000, []
    store = Store.open(str(tmp_path / "r.db"))
    store.add(new_item(f"name {i}", i / rows) for i in range(rows))
    store.close()  # the next connection is a new one, and counts

    @event.listens_for(store._database._engine, "connect")
    def count(connection, _record):
        connection.set_progress_handler(lambda: operations.append(100), 100)

    for _ in range(3):
        item = store.next_item("asha")
        store.peek("asha", item.id)
        store.decide(item.id, Decision("accept", "asha", item.version))
    store.undo("asha")
    store.items(limit=10)
    store.close()
    assert 0 < sum(operations) < 5 * rows, sum(operations)
