"""A light HTTP client that measures latency: plain sockets, one thread a process, no event loop library.

A request's time counts from when it was due, whether or not the client or a connection was free then, so a service
that stalls is charged for all who would have come meanwhile (no coordinated omission). How late each request left is
kept beside it: that part is the client's, or the service's where it kept all connections busy.
"""

from __future__ import annotations

import multiprocessing
import random
import select
import socket
import time
from collections import Counter, deque
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field

CONNECTIONS = 64  # opened before the load, by each process; more are opened where all are busy
MOST_CONNECTIONS = 1_000
PATIENCE_S = 10.0
AHEAD_S = 1.0  # from asking the processes to begin until they do


@dataclass
class Heard:
    """What clients heard."""

    ms: dict[str, list[float]] = field(default_factory=dict)  # by status: from when a request was due to its answer
    due_s: dict[str, list[float]] = field(default_factory=dict)  # by status, in the same order: on `time.perf_counter`
    wire_ms: dict[str, list[float]] = field(default_factory=dict)  # the same, from when it was sent
    late_ms: list[float] = field(default_factory=list)  # how long after it was due each request left
    statuses: Counter[str] = field(default_factory=Counter)  # "200", "429", "lost", "unanswered"
    seconds: float = 0.0  # from the first request that was due to the last answer

    def answered(self, status: str, due_s: float, sent_s: float) -> None:
        now_s = time.perf_counter()
        self.statuses[status] += 1
        self.ms.setdefault(status, []).append((now_s - due_s) * 1000)
        self.due_s.setdefault(status, []).append(due_s)
        self.wire_ms.setdefault(status, []).append((now_s - sent_s) * 1000)

    def add(self, other: Heard) -> None:
        pairs = (self.ms, other.ms), (self.due_s, other.due_s), (self.wire_ms, other.wire_ms)
        for mine, others in pairs:
            for status, values in others.items():
                mine.setdefault(status, []).extend(values)
        self.late_ms += other.late_ms
        self.statuses += other.statuses
        self.seconds = max(self.seconds, other.seconds)

    def percentile(self, share: float, status: str = "200") -> float | None:
        """Milliseconds from when requests were due."""
        return percentile(self.ms.get(status, ()), share)

    def share(self, status: str) -> float:
        return round(self.statuses[status] / max(1, sum(self.statuses.values())), 4)

    @property
    def others(self) -> dict[str, int]:
        """What was neither answered nor told to come again."""
        return {status: n for status, n in self.statuses.items() if status not in ("200", "429") and n}


def percentile(values: Sequence[float], share: float) -> float | None:
    found = sorted(values)
    return round(found[min(len(found) - 1, int(share * len(found)))], 2) if found else None


def request(path: str, body: bytes, host: str = "load") -> bytes:
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def alone(port: int, requests: Sequence[bytes]) -> Heard:
    """One request at a time over one connection."""
    heard, began_s = Heard(), time.perf_counter()
    with _connect(port) as connection:
        for sent in requests:
            due_s = time.perf_counter()
            connection.sendall(sent)
            received = b""
            while (end := _end(received)) is None or len(received) < end:
                received += connection.recv(65_536)
            heard.answered(received[9:12].decode(), due_s, due_s)
    heard.seconds = time.perf_counter() - began_s
    return heard


def open_loop(port: int, requests: Sequence[bytes], rate: float, seconds: float, processes: int, seed: int) -> Heard:
    """Requests at random moments (Poisson arrivals), `rate` of them a second over all processes together."""
    with ProcessPoolExecutor(processes, multiprocessing.get_context("forkserver")) as pool:
        list(pool.map(time.sleep, [0.2] * processes))  # all have started
        starts_s = time.perf_counter() + AHEAD_S  # the same clock in all processes: CLOCK_MONOTONIC
        parts = [
            pool.submit(_client, port, requests[i::processes], rate / processes, seconds, starts_s, f"{seed}/{i}")
            for i in range(processes)
        ]
        heard = Heard()
        for part in parts:
            heard.add(part.result())
    return heard


def _client(port: int, requests: Sequence[bytes], rate: float, seconds: float, starts_s: float, seed: str) -> Heard:
    random_ = random.Random(seed)
    due: deque[float] = deque()
    at_s = starts_s + random_.expovariate(rate)
    while at_s < starts_s + seconds:
        due.append(at_s)
        at_s += random_.expovariate(rate)
    return _Client(port, requests, due, starts_s).run()


class _Client:
    """One process's part of an open loop."""

    def __init__(self, port: int, requests: Sequence[bytes], due: deque[float], starts_s: float) -> None:
        self._port = port
        self._requests = requests
        self._due = due
        self._starts_s = starts_s
        self._heard = Heard()
        self._sent = 0
        # One descriptor that stands for all: waiting on it takes as long for one connection as for hundreds, and
        # `select` waits for microseconds where epoll itself counts in milliseconds.
        self._ready = select.epoll()
        self._by_number: dict[int, socket.socket] = {}
        self._free = [self._opened() for _ in range(CONNECTIONS)]
        # When its request was due, when it was sent, and what came so far.
        self._busy: dict[socket.socket, tuple[float, float, bytes]] = {}

    def run(self) -> Heard:
        last_s = (self._due[-1] if self._due else self._starts_s) + PATIENCE_S
        while self._due or self._busy:
            now_s = time.perf_counter()
            while self._due and self._due[0] <= now_s and self._send(self._due[0]):
                self._due.popleft()
            if now_s > last_s:
                break
            wait_s = self._due[0] - time.perf_counter() if self._due else 0.1
            blocked = wait_s <= 0 and len(self._busy) >= MOST_CONNECTIONS
            select.select([self._ready], [], [], 0.1 if blocked else max(0.0, wait_s))
            for number, _ in self._ready.poll(0):
                self._receive(self._by_number[number])
        self._heard.statuses["unanswered"] += len(self._due) + len(self._busy)
        self._heard.seconds = time.perf_counter() - self._starts_s
        for connection in (*self._free, *self._busy):
            connection.close()
        self._ready.close()
        return self._heard

    def _opened(self) -> socket.socket:
        connection = _connect(self._port)
        self._ready.register(connection, select.EPOLLIN)
        self._by_number[connection.fileno()] = connection
        return connection

    def _send(self, due_s: float) -> bool:
        if not self._free:
            if len(self._busy) >= MOST_CONNECTIONS:
                return False
            self._free.append(self._opened())
        connection = self._free.pop()
        sent_s = time.perf_counter()
        self._heard.late_ms.append((sent_s - due_s) * 1000)
        self._busy[connection] = (due_s, sent_s, b"")
        try:
            connection.sendall(self._requests[self._sent % len(self._requests)])
        except OSError:
            self._lose(connection)
        self._sent += 1
        return True

    def _receive(self, connection: socket.socket) -> None:
        if connection not in self._busy:  # closed by the service while nothing was asked
            self._free.remove(connection)
            self._close(connection)
            return
        due_s, sent_s, received = self._busy[connection]
        try:
            part = connection.recv(65_536)
        except OSError:
            part = b""
        if not part:
            self._lose(connection)
            return
        received += part
        if (end := _end(received)) is None or len(received) < end:
            self._busy[connection] = (due_s, sent_s, received)
            return
        self._heard.answered(received[9:12].decode(), due_s, sent_s)
        del self._busy[connection]
        self._free.append(connection)

    def _lose(self, connection: socket.socket) -> None:
        del self._busy[connection]
        self._close(connection)
        self._heard.statuses["lost"] += 1

    def _close(self, connection: socket.socket) -> None:
        del self._by_number[connection.fileno()]
        connection.close()  # epoll forgets it


def _connect(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=60)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def _end(received: bytes) -> int | None:
    """Where the answer ends; None while its headers are not whole."""
    head = received.find(b"\r\n\r\n")
    if head < 0:
        return None
    start = received.lower().find(b"content-length: ", 0, head) + len(b"content-length: ")
    return head + 4 + int(received[start : received.index(b"\r\n", start)])
