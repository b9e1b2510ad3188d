"""Live traffic in the review queue."""

import pytest

from shelfwise.pipelines.review_load import live_item
from shelfwise.records import Product
from shelfwise.review import Decision, open_store
from support.review import prediction


@pytest.fixture
def store(tmp_path):
    with open_store(str(tmp_path / "review.db")) as opened:
        yield opened


def asked(name, brand=""):
    return Product(0, "request", name, None, brand=brand, text=f"{brand} {name}".strip())


def test_an_answer_becomes_an_item_and_one_name_and_brand_are_one(store):
    asked_twice = [asked("Basmati", "Fine"), asked("basmati!", "FINE")]
    assert store.add(live_item(product, prediction(), "run-7") for product in asked_twice) == 1
    (item,) = store.items()
    assert (item.name, item.text, item.rows, item.model, item.reason) == (
        "Basmati",
        "Fine Basmati",
        2,
        "run-7",
        "live traffic",
    )


def test_a_name_that_is_asked_for_again_counts_and_is_settled_once(store):
    answer = live_item(asked("Basmati"), prediction(), "run-7")
    store.add([answer])
    item = store.next_item("asha")
    store.decide(item.id, Decision("accept", "asha", item.version))
    assert store.add([answer] * 3) == 0
    assert (store.item(item.id).rows, store.item(item.id).status) == (4, "accepted")
