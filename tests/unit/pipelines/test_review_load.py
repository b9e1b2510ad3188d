"""Live traffic in the review queue."""

import dataclasses

import pytest

from shelfwise.pipelines.review_load import enqueue
from shelfwise.records import Product
from shelfwise.review import Decision, open_store
from support.review import prediction


@pytest.fixture
def store(tmp_path):
    with open_store(str(tmp_path / "review.db")) as opened:
        yield opened


def asked(name, brand=""):
    return Product(0, "request", name, None, brand=brand, text=f"{brand} {name}".strip())


def test_answers_for_review_are_queued_and_accepted_ones_are_not(store):
    sure = dataclasses.replace(prediction(confidence=0.99), decision="accept", level="type")
    answers = [
        (asked("Basmati", "Fine"), prediction()),
        (asked("Sona"), sure),
        (asked("basmati!", "FINE"), prediction()),
    ]
    assert enqueue(store, answers, "run-7") == 1
    (item,) = store.items()
    assert (item.name, item.text, item.rows, item.model, item.reason) == (
        "Basmati",
        "Fine Basmati",
        2,
        "run-7",
        "live traffic",
    )


def test_a_name_that_is_asked_for_again_counts_and_is_settled_once(store):
    enqueue(store, [(asked("Basmati"), prediction())], "run-7")
    item = store.next_item("asha")
    store.decide(item.id, Decision("accept", "asha", item.version))
    assert enqueue(store, [(asked("Basmati"), prediction())] * 3, "run-7") == 0
    assert (store.item(item.id).rows, store.item(item.id).status) == (4, "accepted")
