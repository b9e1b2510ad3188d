"""Decisions, undo, conflicts, and what is counted."""

import dataclasses

import pytest

from shelfwise.errors import InputError
from shelfwise.review.items import ConflictError, Decision, Example, Filter, Override, ReviewerCount, UnknownItemError
from support.review import new_item


def added(store, *names, **facts):
    store.add(new_item(name, 0.5, **facts) for name in names)
    return [next(item for item in store.items(limit=1000) if item.name == name) for name in names]


def accept(store, item, reviewer="asha", **facts):
    return store.decide(item.id, Decision("accept", reviewer, item.version, **facts))


def correct(store, item, to, reviewer="asha", **facts):
    return store.decide(item.id, Decision("correct", reviewer, item.version, type=to, **facts))


def test_accepting_settles_an_item_with_the_predicted_type(store, clock):
    (item,) = added(store, "a")
    settled = accept(store, item, comment="sure")
    assert (settled.status, settled.settled_type, settled.leased_by) == ("accepted", "Rice", None)
    (line,) = store.history(item.id)
    assert (line.action, line.type, line.reviewer, line.at_s, line.comment) == (
        "accept",
        "Rice",
        "asha",
        clock.now,
        "sure",
    )
    assert (line.predicted_type, line.confidence, line.model) == ("Rice", 0.5, "m1")


def test_a_correction_settles_it_with_another(store):
    (item,) = added(store, "a")
    assert correct(store, item, "  Tea,  Green ").settled_type == "Tea, Green"
    assert store.item(item.id).status == "corrected"


def test_a_correction_to_the_predicted_type_is_an_acceptance(store):
    (item,) = added(store, "a")
    assert correct(store, item, "Rice", key="same-key-1").status == "accepted"
    assert correct(store, item, "Rice", key="same-key-1").status == "accepted"
    assert [line.action for line in store.history(item.id)] == ["accept"]


def test_a_repeated_request_is_stored_once(store):
    (item,) = added(store, "a")
    decision = Decision("correct", "asha", item.version, type="Flour")
    assert store.decide(item.id, decision) == store.decide(item.id, decision)
    assert len(store.history(item.id)) == 1


def test_a_repeated_request_stays_harmless_after_an_undo(store):
    (item,) = added(store, "a")
    decision = Decision("accept", "asha", item.version)
    store.decide(item.id, decision)
    store.undo("asha")
    assert store.decide(item.id, decision).status == "open"
    assert [line.action for line in store.history(item.id)] == ["accept", "undo"]


def test_a_key_stands_for_one_decision(store):
    first, second = added(store, "a", "b")
    decision = Decision("accept", "asha", 1)
    store.decide(first.id, decision)
    for item, other in ((second, decision), (first, dataclasses.replace(decision, reviewer="ben"))):
        with pytest.raises(InputError, match="key"):
            store.decide(item.id, other)
    with pytest.raises(InputError, match="key"):
        store.undo("asha", decision.key)
    assert store.item(second.id).status == "open"


def test_who_decides_second_is_told_what_the_first_decided(store):
    (item,) = added(store, "a")
    correct(store, item, "Flour", "asha")
    with pytest.raises(ConflictError, match="asha has settled item 1 as 'Flour'") as told:
        correct(store, item, "Tea, Green", "ben")
    assert (told.value.decision.reviewer, told.value.decision.type) == ("asha", "Flour")
    assert told.value.item.settled_type == store.item(item.id).settled_type == "Flour"
    assert len(store.history(item.id)) == 1


def test_a_decision_on_an_older_state_is_told(store):
    (item,) = added(store, "a")
    accept(store, item)
    store.undo("asha")
    with pytest.raises(ConflictError, match="has changed"):
        accept(store, item, "ben")
    store.add([new_item("a", 0.9, "Flour", model="m2")])
    with pytest.raises(ConflictError) as told:
        accept(store, dataclasses.replace(item, version=3), "ben")
    assert told.value.item.predicted_type == "Flour"
    assert told.value.decision is None
    assert accept(store, told.value.item, "ben").settled_type == "Flour"


def test_a_settled_item_is_not_decided_again_without_reopening(store):
    (item,) = added(store, "a")
    settled = accept(store, item)
    with pytest.raises(ConflictError):
        correct(store, settled, "Flour", "ben")
    opened = store.reopen(item.id, "ben", settled.version)
    assert (opened.status, opened.settled_type, opened.leased_by) == ("open", None, "ben")
    assert correct(store, opened, "Flour", "ben").settled_type == "Flour"
    assert [(line.action, line.reviewer) for line in store.history(item.id)] == [
        ("accept", "asha"),
        ("undo", "ben"),
        ("correct", "ben"),
    ]


def test_reopening_what_is_open_or_has_changed_is_told(store):
    (item,) = added(store, "a")
    with pytest.raises(ConflictError):
        store.reopen(item.id, "ben", item.version)
    settled = accept(store, item)
    with pytest.raises(ConflictError):
        store.reopen(item.id, "ben", item.version)
    key = "a-key-of-ben"
    assert store.reopen(item.id, "ben", settled.version, key) == store.reopen(item.id, "ben", settled.version, key)


def test_undo_goes_back_decision_by_decision_and_appends(store):
    first, second = added(store, "a", "b")
    accept(store, first)
    correct(store, second, "Flour")
    assert store.undo("asha").id == second.id
    assert store.next_item("asha").id == second.id
    assert store.undo("asha").id == first.id
    assert store.undo("asha") is None
    assert store.progress().open == 2
    accepted, undone = store.history(first.id)
    assert (undone.action, undone.undoes, undone.type) == ("undo", accepted.id, None)


def test_undo_takes_back_only_ones_own(store):
    first, second = added(store, "a", "b")
    accept(store, first, "asha")
    accept(store, second, "ben")
    assert store.undo("asha").id == first.id
    assert store.item(second.id).status == "accepted"
    assert store.undo("chen") is None


def test_a_repeated_undo_takes_back_one_decision(store):
    first, second = added(store, "a", "b")
    accept(store, first)
    accept(store, second)
    assert store.undo("asha", "undo-key-1").id == store.undo("asha", "undo-key-1").id == second.id
    assert store.item(first.id).status == "accepted"


def test_what_another_has_reopened_is_not_taken_back_again(store):
    (item,) = added(store, "a")
    store.reopen(item.id, "ben", accept(store, item).version)
    correct(store, store.item(item.id), "Flour", "ben")
    assert store.undo("asha") is None
    assert store.item(item.id).settled_type == "Flour"


def test_a_skip_can_be_taken_back(store):
    first, _ = added(store, "a", "b")
    store.decide(first.id, Decision("skip", "asha", first.version))
    store.decide(first.id, Decision("skip", "asha", first.version))
    assert store.item(first.id).skips == 1
    assert store.undo("asha").skips == 0
    assert store.next_item("asha").id == first.id


def test_taking_back_a_skip_leaves_what_another_has_settled(store):
    (item,) = added(store, "a")
    store.decide(item.id, Decision("skip", "asha", item.version))
    accept(store, item, "ben")
    assert store.undo("asha").status == "accepted"


def test_one_decision_settles_all_of_a_name_and_one_undo_takes_all_back(store):
    brands = [new_item("oil", 0.5, label, brand=label) for label in ("Oil", "Oil", "Soap", "Tea")]
    store.add([*brands, new_item("rice")])
    chosen = next(item for item in store.items() if item.brand == "Oil")
    assert (chosen.rows, chosen.same_name) == (2, 2)
    accept(store, chosen, same_name=True, key="all-of-them")
    accept(store, chosen, same_name=True, key="all-of-them")
    found = {item.brand: (item.status, item.settled_type) for item in store.items(Filter(search="oil"))}
    assert found == {"Oil": ("accepted", "Oil"), "Soap": ("corrected", "Oil"), "Tea": ("corrected", "Oil")}
    assert store.progress().settled == 3
    assert store.undo("asha").id == chosen.id
    assert store.progress().settled == 0
    assert store.undo("asha") is None


def test_without_it_other_brands_stay_open(store):
    store.add([new_item("oil", brand="A"), new_item("oil", brand="B")])
    item = store.next_item("asha")
    accept(store, item)
    assert store.progress().open == 1


def test_progress_counts_items_rows_agreement_and_reviewers(store):
    store.add([new_item(name, rows=rows) for name, rows in (("a", 3), ("b", 1), ("c", 1), ("d", 5))])
    a, b, c, _ = (next(i for i in store.items() if i.name == name) for name in "abcd")
    assert store.progress().agreement is None
    accept(store, a, "asha")
    correct(store, b, "Flour", "ben")
    accept(store, c, "asha")
    progress = store.progress()
    assert (progress.open, progress.accepted, progress.corrected, progress.total) == (1, 2, 1, 4)
    assert (progress.open_rows, progress.settled_rows) == (5, 5)
    assert progress.agreement == pytest.approx(2 / 3)
    assert progress.reviewers == (ReviewerCount("asha", 2, 0), ReviewerCount("ben", 0, 1))
    assert store.overrides() == (Override("Rice", "Flour", 1),)


def test_an_empty_store_has_no_progress(store):
    assert (store.progress().total, store.next_item("asha"), store.items(), store.overrides()) == (0, None, (), ())


def test_examples_are_settled_names_first_then_added_ones(store):
    (item,) = added(store, "Red rice")
    assert store.add_examples([Example("Rice", "Basmati", "Fine"), Example("Tea, Green", "Sencha")]) == 2
    assert store.add_examples([Example("Rice", "Basmati", "Fine")]) == 0
    accept(store, item)
    assert store.examples("Rice") == (Example("Rice", "Red rice"), Example("Rice", "Basmati", "Fine"))
    assert store.examples("Rice", 1) == (Example("Rice", "Red rice"),)
    assert store.examples("no such type") == ()
    assert store.add_examples(Example("Soap", f"soap {i}") for i in range(50)) == 20


def test_filters_find_items(store):
    store.add([new_item("a"), new_item("b", label="Flour", reason="live traffic"), new_item("c")])
    c = next(item for item in store.items() if item.name == "c")
    correct(store, c, "Tea, Green")
    cases = {
        Filter(): 3,
        Filter(status="open"): 2,
        Filter(status="settled"): 1,
        Filter(status="accepted"): 0,
        Filter(reason="live traffic"): 1,
        Filter(predicted_type="Rice"): 2,
        Filter(settled_type="Tea, Green"): 1,
        Filter(search="B"): 1,
        Filter(search="%"): 0,
    }
    for wanted, number in cases.items():
        assert (store.count(wanted), len(store.items(wanted))) == (number, number), wanted
    assert len(store.items(limit=2)) == 2
    assert len(store.items(limit=2, offset=2)) == 1


def test_settled_items_come_page_by_page_with_their_decisions(store):
    items = added(store, "a", "b", "c")
    for item in items:
        accept(store, item, f"reviewer of {item.name}")
    first = store.settled(limit=2)
    rest = store.settled(after=first[-1][0].id)
    assert [(item.name, line.reviewer) for item, line in (*first, *rest)] == [
        (name, f"reviewer of {name}") for name in "abc"
    ]


@pytest.mark.parametrize("number", [0, -1, 99, 2**63, 2**80])
def test_a_number_of_no_item_is_an_error(store, number):
    for ask in (store.item, lambda n: store.decide(n, Decision("accept", "asha", 1))):
        with pytest.raises(UnknownItemError, match="no item"):
            ask(number)


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"action": "correct"}, "names the right type"),
        ({"action": "accept", "type": "Rice"}, "names the right type"),
        ({"action": "delete"}, "no action"),
        ({"reviewer": " "}, "reviewer's name is empty"),
        ({"comment": "x" * 2001}, "comment has 2,001"),
        ({"action": "skip", "same_name": True}, "at a time"),
        ({"key": "short"}, "key has"),
        ({"key": "with a / in it"}, "key has"),
        ({"reviewer": "\udc80"}, "surrogate"),
    ],
)
def test_what_is_no_decision_is_refused(facts, message):
    with pytest.raises(InputError, match=message):
        Decision(**{"action": "accept", "reviewer": "asha", "version": 1, **facts})
