"""What is sure never reaches the review queue; what is not does, and is there when the service ends."""

from __future__ import annotations

import dataclasses

from shelfwise.records import Product
from shelfwise.review import open_store
from shelfwise.server.contract import Answer, Answers
from shelfwise.server.live import LiveReview
from shelfwise.server.metrics import Metrics
from support.review import prediction


def test_answers_for_review_are_queued_and_accepted_ones_are_not(tmp_path):
    unsure = prediction()
    sure = dataclasses.replace(prediction(confidence=0.99), decision="accept", level="type")
    asked = [("Basmati", unsure), ("Sona", sure), ("basmati!", unsure)]
    answers = [Answer(Product(0, "request", name, None, text=name), answer) for name, answer in asked]
    with open_store(str(tmp_path / "review.db")) as store:
        live = LiveReview(store, Metrics())
        live(Answers("shop", "0123456789ab", "baseline", tuple(answers)))
        live.close()
        (item,) = store.items()
    assert (item.name, item.rows, item.model) == ("Basmati", 2, "shop 0123456789ab")
