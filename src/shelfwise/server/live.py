"""Answers that need review go from live traffic to the review queue, without anybody waiting for the database."""

from __future__ import annotations

import logging
import queue
import threading

from shelfwise.errors import ShelfwiseError
from shelfwise.pipelines.review_load import live_item
from shelfwise.review import NewItem
from shelfwise.review.store import Store
from shelfwise.server.contract import Answers
from shelfwise.server.metrics import Metrics

logger = logging.getLogger(__name__)

MAX_WAITING = 10_000  # rows; more are not stored, and counted
ROWS_A_WRITE = 500
CLOSE_S = 10.0


class LiveReview:
    """An observer of the service, and the thread that writes."""

    def __init__(self, store: Store, metrics: Metrics) -> None:
        self._store = store
        self._counted = metrics.review_items
        self._waiting: queue.Queue[NewItem | None] = queue.Queue(MAX_WAITING)
        self._thread = threading.Thread(target=self._write, name="live review", daemon=True)
        self._thread.start()

    def __call__(self, answers: Answers) -> None:
        """Keep the answers of a batch that are to be reviewed."""
        for answer in answers.answers:
            if answer.prediction.decision == "accept":
                continue
            try:
                self._waiting.put_nowait(
                    live_item(answer.product, answer.prediction, f"{answers.model} {answers.version}")
                )
            except queue.Full:
                self._counted.labels("not kept").inc()

    def close(self) -> None:
        """Write what waits, and end."""
        self._waiting.put(None)
        self._thread.join(CLOSE_S)

    def _write(self) -> None:
        last = False
        while not last:
            rows = [self._waiting.get()]
            while len(rows) < ROWS_A_WRITE and not self._waiting.empty():
                rows.append(self._waiting.get())
            last = None in rows
            items = [row for row in rows if row is not None]
            try:
                self._store.add(items)
                self._counted.labels("stored").inc(len(items))
            except ShelfwiseError as error:
                logger.error("review queue: %d rows not stored: %s", len(items), error)
                self._counted.labels("failed").inc(len(items))
