"""Bodies of requests are bounded while they are read, and JSON is looked at before it is parsed.

An API request's body is read whole, within a time, and then handed on; meanwhile the connection is watched, and work
for a client that has gone is cancelled. Bodies for other paths (files for the pages) are counted as they stream.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import Mapping

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shelfwise.server import errors
from shelfwise.server.contract import API_PREFIXES
from shelfwise.server.errors import ApiError
from shelfwise.server.settings import Limits

LINGER_S, LINGER_BYTES = 2.0, 32 << 20  # a refused body is read on for so long: else its sender sees only a reset
MAX_BRACKETS_AN_ITEM = 4
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)
_BRACKET = re.compile(rb"[\[\]{}]")


class Bodies:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self._app = app
        self._limits = limits
        self._in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD", "OPTIONS"):
            await self._app(scope, receive, send)
        elif scope["path"].startswith(API_PREFIXES):
            self._in_flight += 1
            try:
                await self._bounded(scope, receive, send)
            finally:
                self._in_flight -= 1
        else:
            await self._app(scope, self._counted(Headers(scope=scope), receive), send)

    async def _bounded(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            if self._in_flight > self._limits.max_in_flight:
                raise errors.queue_full(1)
            body = await self._read(Headers(scope=scope), receive)
        except ApiError as error:
            await _refuse(error, scope, receive, send)
        else:
            await self._while_connected(scope, body, receive, send)

    async def _read(self, headers: Mapping[str, str], receive: Receive) -> bytes:
        limit, timeout_s = self._limits.max_body_bytes, self._limits.body_timeout_s
        _require_length(headers, limit)
        body, ends_s = bytearray(), time.monotonic() + timeout_s
        more = True
        while more:
            try:
                message = await asyncio.wait_for(receive(), ends_s - time.monotonic())
            except asyncio.TimeoutError:
                raise ApiError(408, "body_timeout", f"The body did not come within {timeout_s:g} s.") from None
            if message["type"] == "http.disconnect":
                raise errors.client_gone()
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > limit:
                raise _too_long(limit)
        if body:
            require_json(headers.get("content-type", ""), bytes(body), self._limits)
        return bytes(body)

    async def _while_connected(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        """Run the application on a body that was read; cancelled when the client goes."""
        unread: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
        never, answered = asyncio.Event(), False

        async def replay() -> Message:
            if not unread:
                await never.wait()
            return unread.pop()

        async def sending(message: Message) -> None:
            nonlocal answered
            answered = answered or (message["type"] == "http.response.body" and not message.get("more_body", False))
            await send(message)

        work = asyncio.ensure_future(self._app(scope, replay, sending))
        watch = asyncio.ensure_future(_gone(receive))
        try:
            await asyncio.wait({work, watch}, return_when=asyncio.FIRST_COMPLETED)
            if answered:  # a server also tells "disconnect" to who asks after the answer
                await asyncio.wait({work})
        finally:
            gone = not work.done()
            work.cancel()
            watch.cancel()
            await asyncio.wait({work, watch})
        if gone and work.cancelled():
            raise errors.client_gone()
        work.result()

    def _counted(self, headers: Mapping[str, str], receive: Receive) -> Receive:
        limit, read = self._limits.max_upload_bytes, 0

        async def counting() -> Message:
            nonlocal read
            if not read:
                _require_length(headers, limit)
            message = await receive()
            read += len(message.get("body", b""))
            if read > limit:
                raise _too_long(limit)
            return message

        return counting


def require_json(content_type: str, body: bytes, limits: Limits) -> None:
    """Refuse what would be no JSON, or costs more to parse than any real request.

    Raises:
        ApiError: 415 another content type, 400 not UTF-8 or too deep, 413 more objects than a request may hold.
    """
    if content_type.partition(";")[0].strip().lower() != "application/json":
        raise ApiError(415, "unsupported_media_type", "Send the body as JSON, with Content-Type: application/json.")
    if b"\0" in body:  # in JSON a null is written \u0000; UTF-16 and UTF-32 hold plain ones
        raise ApiError(400, "invalid_json", "The body is no JSON in UTF-8: it holds a zero byte.")
    depth = 0
    for brackets, bracket in enumerate(_BRACKET.finditer(_STRING.sub(b"", body)), 1):
        depth += 1 if bracket[0] in b"[{" else -1
        if depth > limits.max_json_depth:
            raise ApiError(400, "invalid_json", f"The body is nested more than {limits.max_json_depth} levels deep.")
        if brackets > MAX_BRACKETS_AN_ITEM * (limits.max_items + limits.max_json_depth):
            raise errors.too_large(f"The body holds far more than {limits.max_items:,} products.")


def _require_length(headers: Mapping[str, str], limit: int) -> None:
    """Refuse by what the client says that it will send; what it does send is counted as well."""
    said = headers.get("content-length", "")
    if said.isdecimal() and (len(said) > 18 or int(said) > limit):
        raise _too_long(limit)


def _too_long(limit: int) -> ApiError:
    return errors.too_large(f"The body is longer than {limit:,} bytes.")


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _refuse(error: ApiError, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer before the body has come, then read some of what is still on its way, and close the connection."""
    if error.code == "client_gone":
        raise error
    if error.code not in ("too_large", "body_timeout"):
        await errors.response(error, scope)(scope, receive, send)
        return
    answer = errors.response(error, scope)
    answer.headers["Connection"] = "close"
    await send({"type": "http.response.start", "status": error.status, "headers": answer.raw_headers})
    await send({"type": "http.response.body", "body": answer.body, "more_body": True})
    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(_discard(receive), LINGER_S)
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _discard(receive: Receive) -> None:
    read, more = 0, True
    while more and read < LINGER_BYTES:
        message = await receive()
        read += len(message.get("body", b""))
        more = message.get("more_body", False)
