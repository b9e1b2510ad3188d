"""Which item comes next, for whom."""

import pytest

from shelfwise.errors import InputError
from shelfwise.review.items import Decision, Filter
from support.review import new_item


def names(store, reviewer="asha"):
    """The names in the order in which a reviewer gets them, each accepted."""
    found = []
    while item := store.next_item(reviewer):
        found.append(item.name)
        store.decide(item.id, Decision("accept", reviewer, item.version))
    return found


def test_the_least_sure_comes_first(store):
    store.add([new_item("a", 0.5), new_item("b", 0.2), new_item("c", 0.9)])
    assert names(store) == ["b", "a", "c"]


def test_a_name_in_many_rows_comes_before_a_less_sure_one_in_a_single_row(store):
    store.add([new_item("single", 0.1), *(new_item("often", 0.4) for _ in range(2)), new_item("rare", 0.9, rows=30)])
    assert names(store) == ["rare", "often", "single"]


def test_rows_of_one_name_and_brand_are_one_item(store):
    rows = [new_item("Olive Oil, 1 L", brand="Ora"), new_item("olive oil 1 l", brand="ORA"), new_item("Olive Oil, 1 L")]
    assert store.add(rows) == 2
    assert {(item.brand, item.rows, item.same_name) for item in store.items()} == {("Ora", 2, 1), ("", 1, 1)}


def test_open_items_of_the_name_just_decided_come_next(store):
    store.add([new_item("oil", 0.1, brand="A"), new_item("rice", 0.2), new_item("oil", 0.9, brand="B")])
    assert names(store) == ["oil", "oil", "rice"]


def test_the_same_item_comes_until_it_is_decided(store):
    store.add([new_item("a", 0.1), new_item("b", 0.2)])
    assert store.next_item("asha") == store.next_item("asha")
    assert store.next_item("asha").leased_by == "asha"


def test_two_reviewers_get_different_items_and_the_last_gets_none(store):
    store.add([new_item("a", 0.1), new_item("b", 0.2)])
    assert [store.next_item(who).name for who in ("asha", "ben")] == ["a", "b"]
    assert store.next_item("chen") is None


def test_a_lease_ends_and_the_item_goes_to_another(store, clock):
    store.add([new_item("a")])
    item = store.next_item("asha")
    clock.now = item.leased_until_s - 1
    assert store.next_item("ben") is None
    clock.now = item.leased_until_s
    assert store.item(item.id).leased_by is None
    assert store.next_item("ben").id == item.id


def test_what_is_peeked_at_is_the_next_item_and_nobody_elses(store):
    store.add([new_item("a", 0.1), new_item("b", 0.2), new_item("c", 0.3)])
    first = store.next_item("asha")
    ahead = store.peek("asha", first.id)
    assert (first.name, ahead.name) == ("a", "b")
    assert store.peek("asha", first.id).id == ahead.id
    assert store.next_item("asha").id == first.id
    assert store.next_item("ben").name == "c"
    store.decide(first.id, Decision("accept", "asha", first.version))
    assert store.next_item("asha").id == ahead.id


def test_released_items_are_free(store):
    store.add([new_item("a"), new_item("b")])
    store.peek("asha", store.next_item("asha").id)
    assert store.progress().leased == 2
    assert store.release("asha") == 2
    assert store.next_item("ben").name == "a"


def test_a_skipped_item_goes_to_the_others_last_and_never_back(store):
    store.add([new_item("a", 0.1), new_item("b", 0.2)])
    first = store.next_item("asha")
    store.decide(first.id, Decision("skip", "asha", first.version))
    assert names(store, "asha") == ["b"]
    assert store.progress().skipped == 1
    assert [item.name for item in store.items(Filter(status="skipped"))] == ["a"]
    store.add([new_item("c", 0.99)])
    assert names(store, "ben") == ["c", "a"]


def test_a_row_counts_once_however_often_it_is_added(store):
    rows = [new_item("a", origin=f"file:{i}") for i in range(3)]
    assert [store.add([*rows, rows[0]]), store.add(rows), store.add([*rows, rows[0]])] == [1, 0, 0]
    assert store.items()[0].rows == 3
    assert store.add([new_item("a", origin="other:0"), new_item("b", origin="other:1")]) == 1
    assert [(item.name, item.rows) for item in store.items()] == [("a", 4), ("b", 1)]


def test_more_rows_than_a_chunk_are_all_added(store):
    assert store.add(new_item(f"name {i}", origin=str(i)) for i in range(1203)) == 1203
    assert store.count() == 1203
    assert len({item.id for start in (0, 1000) for item in store.items(limit=5000, offset=start)}) == 1203


def test_an_open_item_takes_the_answer_of_another_model_and_a_settled_one_stays(store):
    store.add([new_item("a"), new_item("b")])
    first, second = store.items()
    store.decide(first.id, Decision("accept", "asha", first.version))
    store.add([new_item(name, 0.8, "Tea, Green", model="m2") for name in "ab"])
    assert store.item(first.id).predicted_type == "Rice"
    newer = store.item(second.id)
    assert (newer.predicted_type, newer.confidence, newer.model, newer.rows) == ("Tea, Green", 0.8, "m2", 2)
    assert newer.priority == pytest.approx(0.4)
    assert newer.version > second.version


def test_the_doubt_of_a_label_audit_decides_its_place(store):
    audit = {"reason": "label audit", "given_type": "Flour"}
    store.add([new_item("a", 0.9, doubt=0.99, **audit), new_item("b", 0.5)])
    assert [(item.name, item.given_type) for item in store.items()] == [("a", "Flour"), ("b", None)]


@pytest.mark.parametrize(
    "odd",
    [
        "<b>&amp;</b>",
        "'; DROP TABLE review_items; --",
        "=1+1",
        "🍚 चावल",
        "שמן זית",
        "50% off_\\ (:x)",
        "None",
        "\"q\" 's'",
    ],
)
def test_odd_names_are_text_and_are_found(store, odd):
    store.add([new_item(odd, brand=odd, label=odd), new_item("plain")])
    (item,) = store.items(Filter(search=odd.upper()))
    assert (item.name, item.brand, item.predicted_type, item.path[-1], item.top_k[0][0]) == (odd, odd, odd, odd, odd)
    decided = store.decide(item.id, Decision("correct", odd, item.version, type=f"{odd}!", comment=odd))
    assert decided.settled_type == f"{odd}!"
    assert store.history(item.id)[0].reviewer == odd


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": ""}, "name is empty"),
        ({"name": "x" * 1001}, "1,001 characters"),
        ({"name": "a\ud800"}, "surrogate"),
        ({"confidence": float("nan")}, "between 0 and 1"),
        ({"confidence": 1.5}, "between 0 and 1"),
        ({"doubt": -0.1}, "between 0 and 1"),
        ({"rows": 0}, "at least one row"),
    ],
)
def test_what_is_no_item_is_refused(changes, message):
    with pytest.raises(InputError, match=message):
        new_item(**changes)


def test_control_characters_do_not_reach_the_database(store):
    store.add([new_item("a\x00b\x1b", brand="\x00")])
    assert (store.items()[0].name, store.items()[0].brand) == ("ab", "")
