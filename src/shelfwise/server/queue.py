"""What waits for a model, and how a batch is made of it: no threads and no clock here."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from shelfwise.records import Prediction, Product
from shelfwise.server.settings import Batching

TURN = 64  # products that one request gets into a batch before the next one has its turn


@dataclass(eq=False, slots=True)
class Job:
    """One request on its way."""

    products: Sequence[Product]
    top_k: int
    came_s: float  # monotonic
    timeout_s: float
    future: asyncio.Future[tuple[Prediction, ...]]
    taken: int = 0  # products that got into a batch
    answers: dict[int, Prediction] = field(default_factory=dict)  # by the product's place

    @property
    def rest(self) -> Sequence[Product]:
        """Products that got into no batch yet."""
        return self.products[self.taken :]

    def over(self, now_s: float) -> str | None:
        """Why nobody waits for the answer any more: "late", "gone" or "failed"; None while somebody does."""
        if now_s >= self.came_s + self.timeout_s:
            return "late"
        if self.future.cancelled():
            return "gone"
        return "failed" if self.future.done() else None


@dataclass(frozen=True, slots=True)
class Slice:
    """What one batch holds of a job: its products from `start` to before `end`."""

    job: Job
    start: int
    end: int

    @property
    def products(self) -> Sequence[Product]:
        """In the job's order."""
        return self.job.products[self.start : self.end]

    def __len__(self) -> int:
        return self.end - self.start


class Queue:
    """Jobs in turn. Not safe for several threads at once: its owner locks."""

    def __init__(
        self, batching: Batching, dropped: Callable[[str, int], None], waited: Callable[[float], None]
    ) -> None:
        """Make an empty one.

        Args:
            batching: the bounds.
            dropped: told why, and how many products leave without an answer.
            waited: told how many seconds a job waited for its first batch.
        """
        self.characters = 0  # of all products that wait
        self.products = 0
        self._batching = batching
        self._dropped = dropped
        self._waited = waited
        self._jobs: deque[Job] = deque()

    def __len__(self) -> int:
        return len(self._jobs)

    @property
    def oldest_s(self) -> float:
        """When the job that is next came."""
        return self._jobs[0].came_s

    @property
    def fills_a_batch(self) -> bool:
        """Whether there is nothing to wait for."""
        batching = self._batching
        return self.products >= batching.max_batch_products or self.characters >= batching.max_batch_characters

    def add(self, job: Job, *, first: bool = False) -> bool:
        """Put a job at the end, or before all others, even into a full queue; False where it does not fit."""
        size = _size(job.products)
        if first:
            self._jobs.appendleft(job)
        elif self.characters + size > self._batching.max_queue_characters:
            return False
        else:
            self._jobs.append(job)
        self.characters += size
        self.products += len(job.products)
        return True

    def take(self, now_s: float) -> list[Slice]:
        """The next batch: jobs in turn until it is full. Jobs that nobody waits for leave the queue.

        Returns:
            Slices with at least one product each; none where all jobs were over.
        """
        batch: list[Slice] = []
        products, characters = 0, 0
        while self._jobs:
            job = self._jobs.popleft()
            if (why := job.over(now_s)) is not None:
                self._leave(job.rest)
                self._dropped(why, len(job.rest))
                continue
            part = self._slice(job, products, characters)
            if not len(part):  # the batch is full, and this job comes first in the next
                self._jobs.appendleft(job)
                break
            if not job.taken:
                self._waited(now_s - job.came_s)
            products, characters = products + len(part), characters + _size(part.products)
            self._leave(part.products)
            job.taken = part.end
            batch.append(part)
            if job.taken < len(job.products):
                self._jobs.append(job)
        return batch

    def _slice(self, job: Job, products: int, characters: int) -> Slice:
        """What of a job still fits beside so much; a lone product always does."""
        end = job.taken
        last = min(len(job.products), job.taken + TURN, job.taken + self._batching.max_batch_products - products)
        while end < last:
            characters += len(job.products[end].text)
            if characters > self._batching.max_batch_characters and products + end - job.taken:
                break
            end += 1
        return Slice(job, job.taken, end)

    def _leave(self, products: Sequence[Product]) -> None:
        self.characters -= _size(products)
        self.products -= len(products)


def _size(products: Sequence[Product]) -> int:
    return sum(len(product.text) for product in products)
