"""Work done in the background, whose results come in the order in which it was given."""

from __future__ import annotations

import math
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from typing import Generic, TypeVar

from shelfwise.processes import BACKGROUND

Item = TypeVar("Item")
Result = TypeVar("Result")


class Crew(Generic[Item, Result]):
    """Threads that each do one thing to whatever item comes next.

    Python waits for them at its end: a thread that is inside a model then would take the process down with an abort.
    The command, which must not keep people waiting after Ctrl-C, ends the process itself.
    """

    def __init__(self, hands: Sequence[Callable[[Item], Result]]) -> None:
        """Start a thread for each of `hands`."""
        self._waiting: queue.SimpleQueue[tuple[int, Item, Future[Result]] | None] = queue.SimpleQueue()
        self._size = len(hands)
        self._given = 0
        self._last: float = math.inf  # number of the last item that is still wanted
        for hand in hands:
            threading.Thread(target=self._work, args=(hand,), name=BACKGROUND).start()

    def each(self, items: Iterable[Item]) -> Iterator[tuple[Item, Result]]:
        """Each item with its result, in order; an error comes where the item's result would.

        Twice as many items as threads are taken at once: while some are at work, the next ones are there already, and
        what is done waits for its turn. An error of `items` itself comes after the results of the items before it.
        """
        given: deque[tuple[Item, Future[Result]]] = deque()
        source, error = iter(items), None
        while True:
            try:
                item = next(source)
            except StopIteration:
                break
            except Exception as failed:  # what was given before it is not lost
                error = failed
                break
            given.append((item, self._give(item)))
            if len(given) == 2 * self._size:
                yield self._taken(given)
        while given:
            yield self._taken(given)
        if error is not None:
            raise error

    def close(self) -> None:
        """End the threads once they are done with what they are at; what waits is not begun any more."""
        self._last = -1
        for _ in range(self._size):
            self._waiting.put(None)

    @staticmethod
    def _taken(given: deque[tuple[Item, Future[Result]]]) -> tuple[Item, Result]:
        item, future = given.popleft()
        return item, future.result()

    def _give(self, item: Item) -> Future[Result]:
        future: Future[Result] = Future()
        self._waiting.put((self._given, item, future))
        self._given += 1
        return future

    def _work(self, hand: Callable[[Item], Result]) -> None:
        while (given := self._waiting.get()) is not None:
            number, item, future = given
            if number > self._last:
                future.cancel()
                continue
            try:
                future.set_result(hand(item))
            except BaseException as error:  # it is raised where the result is wanted
                self._last = min(self._last, number)  # items before it may not be begun yet, and are wanted
                future.set_exception(error)
            del item, future, given
