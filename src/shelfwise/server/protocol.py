"""An end to patience with connections that are slow on purpose: uvicorn waits for a request's headers without end.

A connection without a request under way is closed after `HEADERS_S`, or once it has sent `HEADERS_BYTES` of headers
without an end. One whose client does not take what it is sent is reset by the system after `UNREAD_S`.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEADERS_S = 10.0
HEADERS_BYTES = 64 << 10
UNREAD_S = 30.0


class PatientProtocol(HttpToolsProtocol):
    """uvicorn's protocol with an end to its patience."""

    _timer: asyncio.TimerHandle | None = None
    _in_headers = False
    _header_bytes = 0

    def connection_made(self, transport: Any) -> None:
        """Start the clock."""
        super().connection_made(transport)
        connection = transport.get_extra_info("socket")
        if connection is not None and hasattr(socket, "TCP_USER_TIMEOUT"):
            with contextlib.suppress(OSError):  # a socket that is no TCP one
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(UNREAD_S * 1000))
        self._restart()

    def on_message_begin(self) -> None:
        """Headers begin."""
        super().on_message_begin()
        self._in_headers, self._header_bytes = True, 0

    def on_headers_complete(self) -> None:
        """Headers are whole."""
        self._in_headers = False
        super().on_headers_complete()

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
