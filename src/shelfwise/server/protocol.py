"""Connections: an end to patience with those that are slow on purpose, and refusals that cost next to nothing.

uvicorn waits for a request's headers without end. Here a connection without a request under way is closed after
`HEADERS_S`, or once it has sent `HEADERS_BYTES` of headers without an end. One whose client does not take what it is
sent is reset by the system after `UNREAD_S`.

While the `gate` is full, a request to classify is refused as soon as its headers are there; its body is thrown away as
it comes, and the connection can be used again.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from shelfwise.server.gate import ANNOUNCED, SHED_PATHS, Gate

HEADERS_S = 10.0
HEADERS_BYTES = 64 << 10
UNREAD_S = 30.0
SHED_BODY_BYTES = 256 << 10  # a longer body is not worth reading to its end: `bodies` closes its connection
_SHED_URLS = {path.encode(): path for path in SHED_PATHS}


class PatientProtocol(HttpToolsProtocol):
    """uvicorn's protocol with an end to its patience. `create_app` puts the gate where it is found here."""

    _timer: asyncio.TimerHandle | None = None
    _in_headers = False
    _header_bytes = 0
    _shed: str | None = None  # the path of a request that is being refused

    def connection_made(self, transport: Any) -> None:
        """Start the clock."""
        super().connection_made(transport)
        connection = transport.get_extra_info("socket")
        if connection is not None:
            with contextlib.suppress(OSError):  # a socket that is no TCP one
                # asyncio leaves it out where a listening socket doesn't name its protocol; without it the body of each
                # answer waits 40 ms for the client to confirm its headers.
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if hasattr(socket, "TCP_USER_TIMEOUT"):
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(UNREAD_S * 1000))
        self._restart()

    def on_message_begin(self) -> None:
        """Headers begin."""
        super().on_message_begin()
        self._in_headers, self._header_bytes = True, 0

    def on_headers_complete(self) -> None:
        """Headers are whole: the request is taken up or refused."""
        self._in_headers = False
        path = self._sheddable()
        if path is not None and self._gate.full:
            self._shed = path
            return
        if path is not None:
            self.scope["state"][ANNOUNCED] = True
            self._gate.announce()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A part of a body."""
        if self._shed is None:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """A request is whole."""
        if self._shed is None:
            super().on_message_complete()
            return
        keep_alive = self.parser.should_keep_alive()
        self.transport.write(self._gate.shed(self._shed, keep_alive=keep_alive))
        self._shed = None
        if keep_alive:
            self._restart()
        else:
            self.transport.close()

    @property
    def _gate(self) -> Gate:
        gate: Gate = self.config.app.state.gate  # type: ignore[union-attr]
        return gate

    def _sheddable(self) -> str | None:
        """The path of a request that a full gate keeps out unread; None: it goes the usual way."""
        path = _SHED_URLS.get(self.url)
        if path is None or self.parser.get_method() != b"POST" or self.expect_100_continue:
            return None
        if self.pipeline or (self.cycle is not None and not self.cycle.response_complete):
            return None  # an answer that is due earlier has to go first
        length = next((value for name, value in self.headers if name == b"content-length"), b"")
        return path if length.isdigit() and int(length[:10]) <= SHED_BODY_BYTES else None

    def data_received(self, data: bytes) -> None:
        """Take bytes; the clock stops while a request is under way."""
        super().data_received(data)
        if self._in_headers:
            self._header_bytes += len(data)
            if self._header_bytes > HEADERS_BYTES:
                self._end()
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop()
        elif self._timer is None:
            self._restart()

    def on_response_complete(self) -> None:
        """A request is done: what comes next is on the clock again."""
        super().on_response_complete()
        if self.cycle is not None and self.cycle.response_complete:
            self._restart()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is left to wait for."""
        self._stop()
        super().connection_lost(exc)

    def _restart(self) -> None:
        self._stop()
        if not self.transport.is_closing():
            self._timer = self.loop.call_later(HEADERS_S, self._end)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _end(self) -> None:
        self._stop()
        self.transport.abort()
