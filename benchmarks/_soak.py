"""Clients that behave badly, and some that check every answer meanwhile; each group in a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import multiprocessing
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import _latency

GROUPS = ("checking", "rough", "idle")
_JSON = "Content-Type: application/json\r\n"


def soak(
    port: int, right: Mapping[str, Any], seconds: float, idle: int, seed: int, meanwhile: Callable[[], None]
) -> tuple[Counter[str], list[str]]:
    """All of them at once, until the time is over.

    Args:
        port: of the service on this machine.
        right: the expected prediction by name.
        seconds: how long.
        idle: connections that are opened and never used; they are opened again when they are closed.
        seed: of all that is drawn.
        meanwhile: called about once a second.

    Returns:
        What happened ("checker 200", "huge_body 413", ...) with counts, and the wrong answers.
    """
    seen: Counter[str] = Counter()
    wrong: list[str] = []
    with ProcessPoolExecutor(len(GROUPS), multiprocessing.get_context("forkserver")) as pool:
        parts = [pool.submit(_group, group, port, dict(right), seconds, idle, seed) for group in GROUPS]
        while not all(part.done() for part in parts):
            meanwhile()
            time.sleep(1)
        for part in parts:
            of_part, wrong_of_part = part.result()
            seen += of_part
            wrong += wrong_of_part
    return seen, wrong


def _group(
    group: str, port: int, right: Mapping[str, Any], seconds: float, idle: int, seed: int
) -> tuple[Counter[str], list[str]]:
    clients = Clients(port, right, seconds, idle, seed)
    asyncio.run(clients.run(group))
    return clients.seen, clients.wrong


class Clients:
    """One group of them."""

    def __init__(self, port: int, right: Mapping[str, Any], seconds: float, idle: int, seed: int) -> None:
        self.port, self.right, self.idle = port, right, idle
        self.names = list(right)
        self.random = random.Random(seed)
        self.ends_s = time.monotonic() + seconds
        self.seen: Counter[str] = Counter()
        self.wrong: list[str] = []

    async def run(self, group: str) -> None:
        clients: dict[str, list[Callable[[], Awaitable[None]]]] = {
            "checking": [self.checker] * 4,
            "rough": [
                *[self.slow_reader] * 4,
                *[self.half_sender] * 4,
                *[self.leaver] * 4,
                self.huge_body,
                self.huge_chunked,
                self.deep,
                self.null_bytes,
                self.no_http,
            ],
            "idle": [],
        }
        idle = self.idle if group == "idle" else 0
        await asyncio.gather(*(self._again(client) for client in clients[group]), *(self._idle() for _ in range(idle)))

    @property
    def over(self) -> bool:
        return time.monotonic() >= self.ends_s

    async def _again(self, client: Callable[[], Awaitable[None]]) -> None:
        while not self.over:
            try:
                await asyncio.wait_for(client(), 60)
            except (OSError, asyncio.IncompleteReadError):
                self.seen[f"{client.__name__} cut off"] += 1
            except asyncio.TimeoutError:
                self.seen[f"{client.__name__} got no answer"] += 1
            await asyncio.sleep(0.01)

    async def _talk(self, sent: bytes, who: str, *, wait_s: float = 30) -> tuple[int, bytes]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(sent)  # not waited for: an answer may come before all is sent
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), wait_s)
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            body = await asyncio.wait_for(reader.readexactly(length), wait_s)
        finally:
            writer.close()
        status = int(head[9:12])
        self.seen[f"{who} {status}"] += 1
        return status, body

    async def checker(self) -> None:
        asked = self.random.choices(self.names, k=self.random.choice([1, 1, 1, 20, 300]))
        sent = _latency.request("/v1/classify", json.dumps({"products": asked}).encode())
        status, body = await self._talk(sent, "checker")
        if status != 200:
            return
        answers = json.loads(body)["predictions"]
        self.seen["checked answers"] += len(answers)
        for name, answer in zip(asked, answers, strict=True):
            if not same(self.right[name], answer):
                self.wrong.append(f"{name}: {answer['type']} {answer['confidence']}")

    async def slow_reader(self) -> None:
        body = json.dumps({"products": self.names[:1000], "top_k": 50}).encode()
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=256)
        writer.write(_latency.request("/v1/classify", body))
        for _ in range(self.random.randint(1, 60)):
            if self.over or not await reader.read(64):
                break
            await asyncio.sleep(0.1)
        self.seen["slow_reader left"] += 1
        writer.transport.abort()

    async def half_sender(self) -> None:
        sent = _latency.request("/v1/classify", json.dumps({"products": self.names[:200]}).encode())
        _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(sent[: self.random.randrange(1, len(sent))])
        await asyncio.sleep(self.random.choice([0, 0.05, 1, 5]))
        self.seen["half_sender left"] += 1
        writer.transport.abort()

    async def leaver(self) -> None:
        sent = _latency.request("/v1/classify", json.dumps({"products": self.names[:200]}).encode())
        _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(sent)
        await asyncio.sleep(self.random.random() * 0.02)
        self.seen["leaver left"] += 1
        writer.transport.abort()

    async def huge_body(self) -> None:
        await self._talk(_latency.request("/v1/classify", b'["' + b"x" * 100_000_000 + b'"]'), "huge_body")
        await asyncio.sleep(1)

    async def huge_chunked(self) -> None:
        chunk = b"100000\r\n" + b"[" * 0x100000 + b"\r\n"
        head = f"POST /v1/classify HTTP/1.1\r\nHost: x\r\n{_JSON}Transfer-Encoding: chunked\r\n\r\n".encode()
        await self._talk(head + chunk * 100, "huge_chunked")
        await asyncio.sleep(1)

    async def deep(self) -> None:
        depth = self.random.choice([17, 1_000, 100_000, 1_000_000])
        body = self.random.choice([b"[", b'{"a":', b'{"products":[']) * depth
        await self._talk(_latency.request("/v1/classify", body[:2_000_000]), "deep")

    async def null_bytes(self) -> None:
        name = "Rice\\u0000" + "\\ud800" * self.random.randint(0, 3)
        body = b'{"products": "' + name.encode() + b"\0" * self.random.randint(0, 2) + b'"}'
        await self._talk(_latency.request("/v1/classify", body), "null_bytes")

    async def no_http(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(self.random.randbytes(self.random.randint(1, 4000)))
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(reader.read(100), 0.5)
        self.seen["no_http left"] += 1
        writer.transport.abort()

    async def _idle(self) -> None:
        loop = asyncio.get_running_loop()
        while not self.over:
            await asyncio.sleep(self.random.random() * 5)
            closed: asyncio.Future[None] = loop.create_future()
            try:
                transport, _ = await loop.create_connection(lambda: _Idle(closed), "127.0.0.1", self.port)  # noqa: B023
            except OSError:
                self.seen["idle refused"] += 1
                continue
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(closed, max(0.1, self.ends_s - time.monotonic()))
            self.seen["idle closed"] += 1
            transport.close()


class _Idle(asyncio.Protocol):
    """A connection that is opened, and that is all."""

    def __init__(self, closed: asyncio.Future[None]) -> None:
        self._closed = closed

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._closed.done():
            self._closed.set_result(None)


def same(right: Any, answer: Any) -> bool:
    """The same type and, up to what a batch's shape does to a language model's last digits, the same confidence."""
    return right["type"] == answer["type"] and abs(right["confidence"] - answer["confidence"]) < 1e-4


def names_of(products: Sequence[str], most: int) -> list[str]:
    return list(dict.fromkeys(products))[:most]
