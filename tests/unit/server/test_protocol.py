"""How long a connection is waited for, and that one with a request under way is waited for at all."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace

import pytest
import uvicorn
from uvicorn.server import ServerState

from shelfwise.server import protocol
from shelfwise.server.gate import Gate
from shelfwise.server.metrics import Metrics

PATIENCE_S = 0.4
REQUEST = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"
Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class App:
    """Answers "ok" after a while."""

    def __init__(self, takes_s: float) -> None:
        self.takes_s = takes_s
        self.state = SimpleNamespace(gate=Gate(8, Metrics()))

    async def __call__(self, scope, receive, send):
        await asyncio.sleep(self.takes_s)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})


@pytest.fixture
def connected(monkeypatch):
    monkeypatch.setattr(protocol, "HEADERS_S", PATIENCE_S)

    def run(talk: Talk, takes_s: float = 0.0) -> None:
        async def main() -> None:
            config = uvicorn.Config(App(takes_s), http=protocol.PatientProtocol, ws="none", lifespan="off")
            config.load()
            make = lambda: protocol.PatientProtocol(config, ServerState(), {})  # noqa: E731
            server = await asyncio.get_running_loop().create_server(make, "127.0.0.1", 0)
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
            try:
                await asyncio.wait_for(talk(reader, writer), 20)
            finally:
                writer.close()
                server.close()

        asyncio.run(main())

    return run


async def answered(reader: asyncio.StreamReader) -> bytes:
    await reader.readuntil(b"\r\n\r\n")
    return await reader.readexactly(2)


async def closed(reader: asyncio.StreamReader) -> bool:
    try:
        return await reader.read() == b""
    except ConnectionError:
        return True


def test_a_request_that_takes_longer_than_headers_may_is_answered(connected):
    async def talk(reader, writer):
        writer.write(REQUEST)
        assert await answered(reader) == b"ok"

    connected(talk, takes_s=2 * PATIENCE_S)


def test_a_connection_in_use_lives_on_and_an_idle_one_is_closed(connected):
    async def talk(reader, writer):
        for _ in range(5):  # twice as long as an idle one lives
            writer.write(REQUEST)
            assert await answered(reader) == b"ok"
            await asyncio.sleep(0.4 * PATIENCE_S)
        assert await closed(reader)

    connected(talk)


def test_headers_without_an_end_are_cut_off_by_their_size(connected, monkeypatch):
    monkeypatch.setattr(protocol, "HEADERS_S", 60.0)

    async def talk(reader, writer):
        writer.write(b"GET / HTTP/1.1\r\n")
        sent = 0
        while sent <= 2 * protocol.HEADERS_BYTES and not writer.transport.is_closing():
            line = b"X-%d: %s\r\n" % (sent, b"x" * 1000)
            writer.write(line)
            sent += len(line)
            await asyncio.sleep(0.001)
        assert await closed(reader)

    connected(talk)
