"""A model behind a queue: who gets which answer, and who gets none."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Sequence

import pytest

from shelfwise.records import Prediction, Product
from shelfwise.server.batcher import HANDED, Batcher
from shelfwise.server.errors import ApiError
from shelfwise.server.queue import TURN
from shelfwise.server.settings import Batching

POISON = "poison"


def prediction_of(text: str, top_k: int) -> Prediction:
    ranked = tuple((f"{text} {i}", 1 / (i + 2)) for i in range(top_k))
    return Prediction(ranked[0][0], ranked[0][1], "review", "", ranked, (ranked[0][0],), ())


class Model:
    """Answers with the text itself; keeps what it was asked; waits for `open` where that is cleared."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.open = threading.Event()
        self.open.set()
        self.asked = threading.Event()

    def __call__(self, texts: Sequence[str], top_k: int) -> list[Prediction]:
        self.batches.append(list(texts))
        self.asked.set()
        assert self.open.wait(30)
        if POISON in texts:
            raise ValueError("this text")
        return [prediction_of(text, top_k) for text in texts]


class Counted:
    """A watcher."""

    def __init__(self) -> None:
        self.dropped_products: list[tuple[str, int]] = []

    def batch(self, products: Sequence[Product], predictions: Sequence[Prediction], seconds: float) -> None:
        assert len(products) == len(predictions)

    def dropped(self, reason: str, products: int) -> None:
        self.dropped_products.append((reason, products))

    def waited(self, seconds: float) -> None:
        assert seconds >= 0


def products(*names: str) -> list[Product]:
    return [Product(i, "", name, None, text=name) for i, name in enumerate(names)]


def run(work: Callable[[Batcher, Model, Counted], Awaitable[None]], **bounds: float) -> None:
    async def main() -> None:
        model, counted = Model(), Counted()
        batcher = Batcher("m", model, Batching(**bounds), counted)
        try:
            await work(batcher, model, counted)
        finally:
            model.open.set()
            await batcher.close()
        assert not batcher.alive

    asyncio.run(main())


async def occupied(batcher: Batcher, model: Model) -> asyncio.Task[tuple[Prediction, ...]]:
    """Keep the model busy with one product until `model.open` is set."""
    model.open.clear()
    busy = asyncio.create_task(batcher.ask(products("busy"), 1, 30))
    await asyncio.to_thread(model.asked.wait, 30)
    return busy


def test_a_request_of_two_batches_gets_its_answers_in_order_when_both_are_handed_out_late():
    async def work(batcher: Batcher, model: Model, counted: Counted) -> None:
        busy = await occupied(batcher, model)
        names = [f"long {i}" for i in range(100)]
        short = [asyncio.create_task(batcher.ask(products(f"short {i}"), 1, 30)) for i in range(2 * HANDED)]
        long = asyncio.create_task(batcher.ask(products(*names), 1, 30))
        await asyncio.sleep(0)
        model.open.set()
        while len(model.batches) < 3:  # the loop is busy, as it is under load: both batches wait to be handed out
            time.sleep(0.001)
        time.sleep(0.05)
        assert [len(batch) for batch in model.batches] == [1, 2 * HANDED + TURN, len(names) - TURN]
        assert [answer.label for answer in await long] == [f"{name} 0" for name in names]
        assert [(await each)[0].label for each in short] == [f"short {i} 0" for i in range(2 * HANDED)]
        await busy

    run(work, max_batch_products=2 * HANDED + TURN)


def test_each_request_gets_the_answers_to_its_own_products_in_its_own_order():
    async def work(batcher: Batcher, model: Model, counted: Counted) -> None:
        busy = await occupied(batcher, model)
        asked = [asyncio.create_task(batcher.ask(products(f"a{i}", f"b{i}"), 1 + i % 4, 30)) for i in range(100)]
        await asyncio.sleep(0)
        model.open.set()
        for i, answers in enumerate(await asyncio.gather(*asked)):
            assert answers == tuple(prediction_of(f"{which}{i}", 1 + i % 4) for which in "ab")
        await busy
        assert len(model.batches) == 2

    run(work)


def test_a_request_longer_than_a_batch_is_answered_whole():
    async def work(batcher: Batcher, model: Model, counted: Counted) -> None:
        names = [f"n{i}" for i in range(50)]
        answers = await batcher.ask(products(*names), 1, 30)
        assert [answer.label for answer in answers] == [f"{name} 0" for name in names]
        assert max(map(len, model.batches)) == 7

    run(work, max_batch_products=7)


def test_a_batch_is_handed_out_in_parts_so_that_the_loop_can_do_something_else():
    async def work(batcher: Batcher, model: Model, counted: Counted) -> None:
        busy = await occupied(batcher, model)
        asked = [asyncio.create_task(batcher.ask(products(f"a{i}"), 1, 30)) for i in range(3 * HANDED)]
        await asyncio.sleep(0)
        model.open.set()
        done: list[int] = []
        while sum(done) < len(asked):
            await asyncio.sleep(0)
            done.append(sum(task.done() for task in asked) - sum(done))
        await busy
        assert len(model.batches) == 2
        assert max(done) == HANDED

    run(work)


def test_a_lone_request_waits_for_company_and_no_longer():
    async def work(batcher: Batcher, model: Model, counted: Counted) -> None:
        await asyncio.gather(batcher.ask(products("a"), 1, 30), batcher.ask(products("b"), 1, 30))
        assert model.batches == [["a", "b"]]

    run(work, max_wait_s=0.2)


def test_a_full_queue_refuses_at_once_and_says_when_to_come_again():
    async def work(batcher: Batcher, model: Model, counted: Counted) -> None:
        busy = await occupied(batcher, model)
        waiting = asyncio.create_task(batcher.ask(products("12345"), 1, 30))
        await asyncio.sleep(0)
        with pytest.raises(ApiError) as refused:
            await batcher.ask(products("6"), 1, 30)
        assert refused.value.status == 429
        assert int(refused.value.headers["Retry-After"]) >= 1
        model.open.set()
        assert (await waiting)[0].label == "12345 0"
        await busy

    run(work, max_queue_characters=5)


def test_a_request_whose_time_is_over_is_told_and_never_run():
    async def work(batcher: Batcher, model: Model, counted: Counted) -> None:
        busy = await occupied(batcher, model)
        with pytest.raises(ApiError) as late:
            await batcher.ask(products("late"), 1, 0.01)
        assert (late.value.status, late.value.code) == (504, "deadline_exceeded")
        model.open.set()
        await busy
        await batcher.ask(products("next"), 1, 30)
        assert model.batches == [["busy"], ["next"]]
        assert counted.dropped_products == [("late", 1)]

    run(work)


def test_the_products_of_a_client_that_went_are_never_run():
    async def work(batcher: Batcher, model: Model, counted: Counted) -> None:
        busy = await occupied(batcher, model)
        gone = asyncio.create_task(batcher.ask(products("x", "y"), 1, 30))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.wait({gone})
        model.open.set()
        await busy
        await batcher.ask(products("next"), 1, 30)
        assert model.batches == [["busy"], ["next"]]
        assert counted.dropped_products == [("gone", 2)]

    run(work)


def test_of_a_batch_that_fails_only_the_request_at_fault_fails(caplog):
    async def work(batcher: Batcher, model: Model, counted: Counted) -> None:
        busy = await occupied(batcher, model)
        names = ["a", POISON, "b"]
        asked = [asyncio.create_task(batcher.ask(products(name), 1, 30)) for name in names]
        await asyncio.sleep(0)
        model.open.set()
        first, failed, last = await asyncio.gather(*asked, return_exceptions=True)
        assert [first, last] == [(prediction_of("a", 1),), (prediction_of("b", 1),)]
        assert isinstance(failed, ApiError)
        assert (failed.status, failed.code) == (500, "model_failed")
        await busy
        assert (await batcher.ask(products("after"), 1, 30))[0].label == "after 0"

    run(work)
    assert "ValueError: this text" in caplog.text


def test_what_waits_when_it_is_closed_is_answered_and_what_comes_later_refused():
    async def work(batcher: Batcher, model: Model, counted: Counted) -> None:
        busy = await occupied(batcher, model)
        waiting = asyncio.create_task(batcher.ask(products("waiting"), 1, 30))
        await asyncio.sleep(0)
        closing = asyncio.create_task(batcher.close())
        await asyncio.sleep(0)
        with pytest.raises(ApiError) as refused:
            await batcher.ask(products("later"), 1, 30)
        assert refused.value.status == 503
        model.open.set()
        await closing
        assert (await busy)[0].label == "busy 0"
        assert (await waiting)[0].label == "waiting 0"

    run(work)


def test_a_request_that_could_only_wait_for_its_deadline_is_refused_at_once():
    async def work(batcher: Batcher, model: Model, counted: Counted) -> None:
        busy = await occupied(batcher, model)
        batcher._characters_per_s = 10.0
        waiting = asyncio.create_task(batcher.ask(products("x" * 100), 1, 30))
        await asyncio.sleep(0)
        with pytest.raises(ApiError) as refused:
            await batcher.ask(products("y"), 1, 9.0)
        assert (refused.value.status, refused.value.headers["Retry-After"]) == (429, "10")
        patient = asyncio.create_task(batcher.ask(products("z"), 1, 11.0))
        await asyncio.sleep(0)
        model.open.set()
        await asyncio.gather(busy, waiting, patient)

    run(work)
