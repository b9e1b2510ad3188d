"""Requests that come at once share the model's batches. One queue and one worker thread a model.

A batch is what gathered while the model answered the one before; an idle model answers a lone request at once, or,
with `max_wait_s`, waits so long for company. Requests take turns, `TURN` products each, so that a single name need not
wait for the thousand of somebody else.

Before the model runs, requests whose client has gone or whose time is over are dropped. A batch that fails is run
again one request at a time, so that only the one at fault fails.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

from shelfwise.records import Prediction, Product
from shelfwise.server import errors
from shelfwise.server.queue import Job, Queue, Slice
from shelfwise.server.settings import Batching

logger = logging.getLogger(__name__)

Predict = Callable[[Sequence[str], int], list[Prediction]]  # texts, top_k
HANDED = 16  # requests that are answered before the loop looks for new ones; a whole batch would keep those waiting
_SMOOTHING = 0.2  # weight of the newest batch in the speed that Retry-After is reckoned from


class Watcher(Protocol):
    """Who counts what happens in the worker; called in its thread, and quick."""

    def batch(self, products: Sequence[Product], predictions: Sequence[Prediction], seconds: float) -> None:
        """The model answered one batch."""
        ...

    def dropped(self, reason: str, products: int) -> None:
        """Products were not classified, for their request is "gone", "late" or "failed"."""
        ...

    def waited(self, seconds: float) -> None:
        """A request's first products got into a batch, so long after it came."""
        ...


class Batcher:
    """The queue before one model. Made, asked and closed in the event loop."""

    def __init__(self, name: str, predict: Predict, batching: Batching, watcher: Watcher) -> None:
        self.name = name
        self._predict = predict
        self._batching = batching
        self._watcher = watcher
        self._loop = asyncio.get_running_loop()
        self._changed = threading.Condition()
        self._queue = Queue(batching, watcher.dropped, watcher.waited)  # touched under `_changed` only
        self._closing = False
        self._characters_per_s = 0.0  # how fast the model has been of late; 0: not known
        self._thread = threading.Thread(target=self._work, name=f"model {name}", daemon=True)
        self._thread.start()

    @property
    def queued_characters(self) -> int:
        """Of all products that wait; those in the batch that is being answered don't count."""
        return self._queue.characters

    @property
    def queued_products(self) -> int:
        """Products that wait."""
        return self._queue.products

    @property
    def alive(self) -> bool:
        """Whether the worker runs."""
        return self._thread.is_alive()

    async def ask(
        self, products: Sequence[Product], top_k: int, timeout_s: float, *, first: bool = False
    ) -> tuple[Prediction, ...]:
        """Classify a request's products.

        Args:
            products: in the order of the answers.
            top_k: types to list for each.
            timeout_s: how long to wait.
            first: go before all that waits, even where the queue is full; for our own checks.

        Raises:
            ApiError: the queue is full or too slow for this request, time is over, the model failed, or this batcher
                was closed.
            CancelledError: whoever asked has gone; what is left of the request is dropped.
        """
        if not products:
            return ()
        job = Job(products, top_k, time.monotonic(), timeout_s, self._loop.create_future())
        with self._changed:
            if self._closing:
                raise errors.unavailable("draining", "This model is being let go. Try again.")
            if not first and self._wait_s() > timeout_s:  # it would only wait for its 504
                raise errors.queue_full(self._retry_after_s())
            if not self._queue.add(job, first=first):
                raise errors.queue_full(self._retry_after_s())
            self._changed.notify()
        timer = self._loop.call_later(timeout_s, _give_up, job)
        try:
            return await job.future
        finally:
            timer.cancel()

    async def close(self) -> None:
        """Answer what waits, then end the thread; who asks from now on is refused."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        await asyncio.to_thread(self._thread.join)

    def _wait_s(self) -> float:
        """How long what waits will take, as fast as the model has been of late; 0 while that is not known."""
        return self._queue.characters / self._characters_per_s if self._characters_per_s else 0.0

    def _retry_after_s(self) -> int:
        return min(60, max(1, math.ceil(self._wait_s())))

    def _work(self) -> None:
        while (batch := self._next_batch()) is not None:
            if batch:
                self._answer(batch)

    def _next_batch(self) -> list[Slice] | None:
        """Wait for a batch; None when closed and nothing is left."""
        with self._changed:
            while not self._queue:
                if self._closing:
                    return None
                self._changed.wait()
            ready_s = self._queue.oldest_s + self._batching.max_wait_s
            while not self._closing and not self._queue.fills_a_batch and (left_s := ready_s - time.monotonic()) > 0:
                self._changed.wait(left_s)
            return self._queue.take(time.monotonic())

    def _answer(self, batch: Sequence[Slice]) -> None:
        began_s = time.perf_counter()
        try:
            answered = self._ask_model(batch)
        # Whatever it was, the thread must live on: without it nobody is answered any more.
        except Exception:
            logger.exception("the model '%s' failed on a batch of %d requests", self.name, len(batch))
            if len({id(part.job) for part in batch}) > 1:
                for _, parts in itertools.groupby(batch, key=lambda part: id(part.job)):
                    self._answer(list(parts))
                return
            answered = None
        seconds = time.perf_counter() - began_s
        if answered is not None:
            products = [product for part in batch for product in part.products]
            speed = sum(len(product.text) for product in products) / max(seconds, 1e-6)
            known = self._characters_per_s or speed
            self._characters_per_s = (1 - _SMOOTHING) * known + _SMOOTHING * speed
            self._watcher.batch(products, answered, seconds)
        self._loop.call_soon_threadsafe(self._hand_out, batch, answered)

    def _ask_model(self, batch: Sequence[Slice]) -> list[Prediction]:
        texts = [product.text for part in batch for product in part.products]
        return self._predict(texts, max(part.job.top_k for part in batch))

    def _hand_out(self, batch: Sequence[Slice], answered: Sequence[Prediction] | None) -> None:
        """In the event loop: give each request its answers, and wake those that have all; None: the model failed."""
        start = 0
        for part in batch[:HANDED]:
            end = start + len(part)
            if answered is None:
                if not part.job.future.done():
                    part.job.future.set_exception(errors.model_failed(self.name))
            else:
                # By their place: a later batch may be handed out before the rest of this one is.
                part.job.answers |= {
                    place: _cut(prediction, part.job.top_k)
                    for place, prediction in enumerate(answered[start:end], part.start)
                }
                if len(part.job.answers) == len(part.job.products) and not part.job.future.done():
                    part.job.future.set_result(tuple(map(part.job.answers.__getitem__, range(len(part.job.products)))))
            start = end
        if len(batch) > HANDED:
            self._loop.call_soon(self._hand_out, batch[HANDED:], None if answered is None else answered[start:])


def _give_up(job: Job) -> None:
    if not job.future.done():
        job.future.set_exception(errors.deadline_exceeded(job.timeout_s))


def _cut(prediction: Prediction, top_k: int) -> Prediction:
    """As `Classifier.predict` answers with this `top_k`: its ranking is the beginning of a longer one."""
    if len(prediction.top_k) <= top_k:
        return prediction
    return replace(prediction, top_k=prediction.top_k[:top_k])
