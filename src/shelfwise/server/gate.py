"""How many API requests may be under way at once, and what the others are told, before anything of them is read.

In a flood a refusal must cost next to nothing, or refusing takes the time that answering needs. So while the gate is
full, `protocol` answers requests to classify as soon as their headers are parsed: without a task, the application, or
a log line of their own. Keys are not looked at for that.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable

from shelfwise.server import errors, logs
from shelfwise.server.metrics import Metrics

logger = logging.getLogger("shelfwise.server.request")

SHED_PATHS = ("/v1/classify", "/classify")
ANNOUNCED = "announced"  # in a scope's state, until its task begins
RETRY_AFTER_S = 1
REFUSALS_EVERY_S = 1.0  # one line for all of that time, with their number


class Gate:
    """Counts requests in and out. Used in the event loop."""

    def __init__(self, most: int, metrics: Metrics, clock: Callable[[], float] = time.monotonic) -> None:
        """Make one that lets `most` requests in at once."""
        self.in_flight = 0
        self._coming = 0
        self._most = most
        self._clock = clock
        self._told_s = -REFUSALS_EVERY_S
        self._untold = 0
        self._counted = {path: metrics.requests.labels(path, "POST", "429") for path in SHED_PATHS}
        self._rejected = metrics.rejected.labels("queue_full")

    @property
    def full(self) -> bool:
        """Whether the next one has to come again."""
        return self.in_flight + self._coming >= self._most

    def announce(self) -> None:
        """One will come whose task has yet to begin: where the loop is behind, that is where most of them wait."""
        self._coming += 1

    def begin(self) -> None:
        """The task of one that was announced begins."""
        self._coming -= 1

    def enter(self) -> None:
        """Let a request in, which has to `leave` later.

        Raises:
            ApiError: 429, the gate is full.
        """
        if self.in_flight >= self._most:
            raise errors.queue_full(RETRY_AFTER_S)
        self.in_flight += 1

    def leave(self) -> None:
        """One that was let in is done."""
        self.in_flight -= 1

    def shed(self, path: str, *, keep_alive: bool) -> bytes:
        """Count a request that is refused unread; returns the whole answer as it goes over the wire."""
        self._counted[path].inc()
        self._rejected.inc()
        untold = self.refused()
        if untold is not None:
            logs.event(logger, "request", {"method": "POST", "route": path, "status": 429, "refusals": untold})
        return _KEPT if keep_alive else _CLOSED

    def refused(self) -> int | None:
        """Count a 429; returns how many are to be told of now, None where one was told a moment ago."""
        self._untold += 1
        now_s = self._clock()
        if now_s - self._told_s < REFUSALS_EVERY_S:
            return None
        untold, self._untold, self._told_s = self._untold, 0, now_s
        return untold


def _answer(last_header: bytes) -> bytes:
    error = errors.queue_full(RETRY_AFTER_S)
    body = json.dumps(error.body(), separators=(",", ":")).encode()
    heads = [b"HTTP/1.1 429 Too Many Requests", b"content-type: application/json"]
    heads += [f"{name.lower()}: {value}".encode() for name, value in error.headers.items()]
    heads += [b"x-content-type-options: nosniff", b"content-length: %d" % len(body)]
    return b"\r\n".join([*heads, last_header, b"", body])


_KEPT = _answer(b"connection: keep-alive")
_CLOSED = _answer(b"connection: close")
