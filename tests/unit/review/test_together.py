"""Several reviewers at once, as threads and as processes: nothing is lost, doubled or silently overwritten."""

import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from sqlalchemy import select, update

from shelfwise.review.database import Database
from shelfwise.review.items import ConflictError, Decision
from shelfwise.review.schema import ITEMS
from shelfwise.review.store import Store
from support.review import new_item


def review_all(store, reviewer):
    """Decide until nothing is left; the ids that were decided."""
    found = []
    while item := store.next_item(reviewer):
        store.decide(item.id, Decision("correct", reviewer, item.version, type=f"by {reviewer}"))
        found.append(item.id)
    return found


def test_reviewers_share_a_queue_without_meeting(store):
    store.add(new_item(f"name {i}", i / 200) for i in range(120))
    with ThreadPoolExecutor(4) as pool:
        decided = list(pool.map(lambda who: review_all(store, who), ["a", "b", "c", "d"]))
    assert sorted(number for ids in decided for number in ids) == sorted(item.id for item in store.items(limit=200))
    for who, ids in zip("abcd", decided, strict=True):
        assert {store.item(number).settled_type for number in ids} <= {f"by {who}"}


def test_of_many_decisions_on_one_item_one_is_stored_and_the_others_are_told(store):
    store.add(new_item(f"name {i}") for i in range(10))
    items = store.items()

    def decide_all(who):
        outcome, told = {}, []
        for item in items:
            try:
                store.decide(item.id, Decision("correct", who, item.version, type=f"by {who}"))
                outcome[item.id] = who
            except ConflictError as conflict:
                told.append(conflict.decision.reviewer)
        assert who not in told
        assert len(told) + len(outcome) == len(items)
        return outcome

    with ThreadPoolExecutor(4) as pool:
        outcomes = list(pool.map(decide_all, "abcd"))
    winners = Counter(number for outcome in outcomes for number in outcome)
    assert winners == {item.id: 1 for item in items}
    for outcome in outcomes:
        for number, who in outcome.items():
            assert store.item(number).settled_type == f"by {who}"
            assert len(store.history(number)) == 1


def test_a_request_repeated_at_the_same_time_is_stored_once(store):
    store.add([new_item("a")])
    item = store.next_item("asha")
    decision = Decision("accept", "asha", item.version)
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: store.decide(item.id, decision), range(8)))
    assert set(results) == {store.item(item.id)}
    assert len(store.history(item.id)) == 1


def test_an_undo_repeated_at_the_same_time_takes_back_one_decision(store):
    store.add(new_item(f"name {i}") for i in range(10))
    review_all(store, "asha")
    with ThreadPoolExecutor(8) as pool:
        for round_ in range(1, 9):
            results = list(pool.map(lambda _, round_=round_: store.undo("asha", f"undo-key-{round_}"), range(8)))
            assert len({item.id for item in results}) == 1
            assert store.progress().open == round_


def test_two_loaders_of_the_same_rows_count_them_once(store):
    rows = [new_item(f"name {i % 50}", origin=f"file:{i}") for i in range(700)]
    with ThreadPoolExecutor(3) as pool:
        assert sum(pool.map(lambda _: store.add(rows), range(3))) == 50
    assert [sum(item.rows for item in store.items(limit=1000)), store.count()] == [700, 50]


def test_deciding_names_together_from_both_ends_ends(store):
    """Each locks all items of the name: a deadlock that the database ends, and the store tries again."""
    for round_ in range(5):
        store.add(new_item(f"oil {round_}", brand=brand) for brand in "abcdef")
        items = [item for item in store.items(limit=1000) if item.status == "open"]

        def settle(item):
            try:
                store.decide(item.id, Decision("accept", item.brand, item.version, same_name=True))
            except ConflictError:
                return 0
            return 1

        with ThreadPoolExecutor(6) as pool:
            assert sum(pool.map(settle, items)) == 1
    assert store.progress().settled == 30


def test_a_transaction_whose_rows_another_has_changed_runs_again_and_sees_one_state(postgresql_url):
    """SQLite's writers wait for each other; in PostgreSQL the second one begins anew."""
    store, database = Store.open(postgresql_url), Database(postgresql_url)
    store.add([new_item("a")])
    seen = []

    def work(connection):
        before = connection.execute(select(ITEMS.c.rows)).scalar_one()
        if not seen:
            store.add([new_item("a")])
        after = connection.execute(select(ITEMS.c.rows)).scalar_one()
        seen.append((before, after))
        connection.execute(update(ITEMS).values(rows=before + 10))

    database.write(work)
    assert seen == [(1, 1), (2, 2)]
    assert store.items()[0].rows == 12
    database.close()
    store.close()


REVIEWER = """
import sys
from shelfwise.review import ConflictError, Decision, open_store
store, who = open_store(sys.argv[1]), sys.argv[2]
for item in store.items(limit=1000):  # without leases, so that both decide the same items
    try:
        store.decide(item.id, Decision("correct", who, item.version, type="by " + who))
        print(item.id)
    except ConflictError as told:
        assert told.decision.reviewer != who
"""


def test_two_processes_never_overwrite_each_other(url, store: Store):
    store.add(new_item(f"name {i}") for i in range(60))
    started = [
        subprocess.Popen([sys.executable, "-c", REVIEWER, url, who], stdout=subprocess.PIPE, text=True) for who in "ab"
    ]
    decided = {who: set(map(int, process.communicate()[0].split())) for who, process in zip("ab", started, strict=True)}
    assert [process.returncode for process in started] == [0, 0]
    assert not decided["a"] & decided["b"]
    assert decided["a"] | decided["b"] == {item.id for item in store.items(limit=100)}
    for who, numbers in decided.items():
        assert all(store.item(number).settled_type == f"by {who}" for number in numbers)
