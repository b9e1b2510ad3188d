"""An open-loop HTTP client: requests leave when they are due, whether or not earlier ones were answered.

A request's time counts from when it was due, so a service that stalls is charged for all who would have come
meanwhile. Connections are kept and used again; one is opened for each request that finds none free, up to a bound.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

MAX_CONNECTIONS = 2_000
PATIENCE_S = 30.0


@dataclass
class Outcome:
    """What became of the requests of one load."""

    seconds: float = 0.0
    due: int = 0
    late_ms: list[float] = field(default_factory=list)  # how long after it was due each request left: the client's part
    statuses: Counter[str] = field(default_factory=Counter)  # "200", "429", "lost", "late"
    ms: dict[str, list[float]] = field(default_factory=dict)  # by status, in the order of the answers

    def add(self, status: str, ms: float) -> None:
        self.statuses[status] += 1
        self.ms.setdefault(status, []).append(ms)

    def percentile(self, share: float, status: str = "200") -> float | None:
        return percentile(self.ms.get(status, ()), share)

    def share(self, status: str) -> float:
        return round(self.statuses[status] / max(1, sum(self.statuses.values())), 4)

    def per_s(self, status: str = "200") -> float:
        return round(self.statuses[status] / max(self.seconds, 1e-9), 1)


def percentile(values: Sequence[float], share: float) -> float | None:
    found = sorted(values)
    return round(found[min(len(found) - 1, int(share * len(found)))], 2) if found else None


def request(path: str, body: bytes, host: str = "load") -> bytes:
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class _Connection(asyncio.Protocol):
    """One request at a time."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._buffer = b""
        self._due_s = 0.0
        self._busy = False
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def ask(self, sent: bytes, due_s: float) -> None:
        assert self._transport is not None
        self._pool.outcome.late_ms.append(_since(due_s))
        self._busy, self._due_s, self._buffer = True, due_s, b""
        self._transport.write(sent)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, separator, body = self._buffer.partition(b"\r\n\r\n")
        if not separator:
            return
        lowered = head.lower()
        start = lowered.find(b"content-length: ") + len(b"content-length: ")
        if len(body) < int(lowered[start:].split(b"\r\n", 1)[0]):
            return
        self._busy = False
        closes = b"connection: close" in lowered
        self._pool.answered(self, head[9:12].decode(), self._due_s, closes=closes)
        if closes and self._transport is not None:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._pool.lost(self, self._due_s if self._busy else None)


class Pool:
    """Connections to one service, and what they heard."""

    def __init__(self, port: int, most: int = MAX_CONNECTIONS) -> None:
        self.outcome = Outcome()
        self._port = port
        self._most = most
        self._free: list[_Connection] = []
        self._open = 0
        self._waiting: deque[tuple[bytes, float]] = deque()
        self._opening: set[asyncio.Task[None]] = set()

    def ask(self, sent: bytes, due_s: float) -> None:
        if self._free:
            self._free.pop().ask(sent, due_s)
            return
        self._waiting.append((sent, due_s))
        if self._open < self._most:
            self._open += 1
            task = asyncio.ensure_future(self._connect())
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    @property
    def unanswered(self) -> int:
        return self.outcome.due - sum(self.outcome.statuses.values())

    async def _connect(self) -> None:
        try:
            _, connection = await asyncio.get_running_loop().create_connection(
                lambda: _Connection(self), "127.0.0.1", self._port
            )
        except OSError:
            self._open -= 1
            if self._waiting:
                self.outcome.add("lost", _since(self._waiting.popleft()[1]))
            return
        self._next(connection)

    def _next(self, connection: _Connection) -> None:
        if self._waiting:
            connection.ask(*self._waiting.popleft())
        else:
            self._free.append(connection)

    def answered(self, connection: _Connection, status: str, due_s: float, *, closes: bool) -> None:
        self.outcome.add(status, _since(due_s))
        if not closes:
            self._next(connection)

    def lost(self, connection: _Connection, due_s: float | None) -> None:
        self._open -= 1
        if connection in self._free:
            self._free.remove(connection)
        if due_s is not None:
            self.outcome.add("lost", _since(due_s))


def _since(due_s: float) -> float:
    return (time.perf_counter() - due_s) * 1000


async def open_loop(port: int, rate: float, seconds: float, requests: Sequence[bytes]) -> Outcome:
    """Send `rate` requests a second, evenly, for so long; then wait for the last answers."""
    pool = Pool(port)
    began_s = time.perf_counter()
    for i in range(int(rate * seconds)):
        due_s = began_s + i / rate
        while (left_s := due_s - time.perf_counter()) > 0:
            await asyncio.sleep(left_s)
        if i % 16 == 0:
            await asyncio.sleep(0)  # answers are taken even where the sender is behind
        pool.outcome.due += 1
        pool.ask(requests[i % len(requests)], due_s)
    pool.outcome.seconds = time.perf_counter() - began_s
    ends_s = time.perf_counter() + PATIENCE_S
    while pool.unanswered and time.perf_counter() < ends_s:
        await asyncio.sleep(0.01)
    pool.outcome.statuses["late"] += max(0, pool.unanswered)
    return pool.outcome


async def closed_loop(port: int, connections: int, seconds: float, requests: Sequence[bytes]) -> Outcome:
    """So many clients, each of which asks again as soon as it is answered: how much the service can do."""
    pool, ends_s = Pool(port, connections), time.perf_counter() + seconds
    began_s, sent = time.perf_counter(), 0
    while time.perf_counter() < ends_s:
        while pool.unanswered < connections:
            pool.outcome.due += 1
            pool.ask(requests[sent % len(requests)], time.perf_counter())
            sent += 1
        await asyncio.sleep(0)
    pool.outcome.seconds = time.perf_counter() - began_s
    while pool.unanswered and time.perf_counter() < ends_s + PATIENCE_S:
        await asyncio.sleep(0.01)
    return pool.outcome
