"""How batches are made of what waits."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from shelfwise.records import Product
from shelfwise.server.queue import TURN, Job, Queue
from shelfwise.server.settings import Batching


class Waiting:
    """A queue whose jobs are named by their first product."""

    def __init__(self, **bounds: int) -> None:
        self.loop = asyncio.new_event_loop()
        self.dropped: list[tuple[str, int]] = []
        self.waited: list[float] = []
        self.queue = Queue(Batching(**bounds), lambda *told: self.dropped.append(told), self.waited.append)

    def add(self, *names: str, came_s: float = 0.0, timeout_s: float = 10.0, first: bool = False) -> Job | None:
        products = [Product(i, "", name, None, text=name) for i, name in enumerate(names)]
        job = Job(products, 3, came_s, timeout_s, self.loop.create_future())
        return job if self.queue.add(job, first=first) else None

    def take(self, now_s: float = 1.0) -> list[Sequence[str]]:
        return [[product.name for product in part.products] for part in self.queue.take(now_s)]


def test_requests_that_wait_share_a_batch_in_the_order_in_which_they_came():
    waiting = Waiting()
    waiting.add("a", "b")
    waiting.add("c")
    assert waiting.take() == [["a", "b"], ["c"]]
    assert len(waiting.queue) == waiting.queue.characters == waiting.queue.products == 0
    assert waiting.waited == [1.0, 1.0]


def test_a_batch_ends_at_its_number_of_products_and_the_rest_comes_first_in_the_next():
    waiting = Waiting(max_batch_products=3)
    waiting.add("a", "b")
    waiting.add("c", "d")
    waiting.add("e")
    assert waiting.take() == [["a", "b"], ["c"]]
    assert waiting.take() == [["e"], ["d"]]


def test_a_batch_ends_at_its_number_of_characters_but_a_longer_product_goes_alone():
    waiting = Waiting(max_batch_characters=5)
    waiting.add("abc", "de", "f")
    waiting.add("a very long name")
    assert waiting.take() == [["abc", "de"]]
    assert waiting.take() == [["a very long name"]]
    assert waiting.take() == [["f"]]


def test_one_name_waits_for_no_more_than_a_turn_of_a_thousand():
    waiting = Waiting(max_batch_products=2 * TURN)
    many = [f"m{i}" for i in range(1000)]
    waiting.add(*many)
    waiting.add("one")
    first = waiting.take()
    assert first[:2] == [many[:TURN], ["one"]]
    got = [name for part in first for name in part if name != "one"]
    while len(waiting.queue):
        got += [name for part in waiting.take() for name in part]
    assert got == many


def test_a_full_queue_takes_nothing_more_but_our_own_checks():
    waiting = Waiting(max_queue_characters=4)
    assert waiting.add("abcd")
    assert waiting.add("e") is None
    assert waiting.add("canary", first=True)
    assert waiting.take() == [["canary"], ["abcd"]]


def test_what_came_too_late_or_was_left_is_never_in_a_batch():
    waiting = Waiting()
    waiting.add("late", "too", timeout_s=0.5)
    gone, failed = waiting.add("gone"), waiting.add("failed")
    waiting.add("here")
    assert gone is not None
    assert failed is not None
    gone.future.cancel()
    failed.future.set_exception(ValueError())
    assert waiting.take(now_s=0.5) == [["here"]]
    assert waiting.dropped == [("late", 2), ("gone", 1), ("failed", 1)]
    assert waiting.queue.characters == waiting.queue.products == 0
    assert isinstance(failed.future.exception(), ValueError)
