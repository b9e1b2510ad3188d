"""Bodies of requests are bounded while they are read, and JSON is looked at before it is parsed.

An API request's body is read whole, within a time, and then handed on; meanwhile the connection is watched, and work
for a client that has gone is cancelled. Bodies for other paths (files for the pages) are counted as they stream.
"""

from __future__ import annotations

import asyncio
import contextlib
import re

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shelfwise.server import errors
from shelfwise.server.contract import API_PREFIXES
from shelfwise.server.errors import ApiError
from shelfwise.server.gate import Gate
from shelfwise.server.headers import header
from shelfwise.server.interruption import Interruption
from shelfwise.server.settings import Limits

WATCHED_S = 0.05  # after which a client that waits is watched; most have their answer by then
LINGER_S, LINGER_BYTES = 2.0, 32 << 20  # a refused body is read on for so long: else its sender sees only a reset
MAX_BRACKETS_AN_ITEM = 4
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)
_BRACKET = re.compile(rb"[\[\]{}]")


class Bodies:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp, limits: Limits, gate: Gate) -> None:
        self._app = app
        self._limits = limits
        self._gate = gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD", "OPTIONS"):
            await self._app(scope, receive, send)
        elif scope["path"].startswith(API_PREFIXES):
            await self._bounded(scope, receive, send)
        else:
            await self._app(scope, self._counted(scope, receive), send)

    async def _bounded(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            self._gate.enter()
        except ApiError as error:
            await _refuse(error, scope, receive, send)
            return
        try:
            body = await self._read(scope, receive)
        except ApiError as error:
            await _refuse(error, scope, receive, send)
        else:
            await self._while_connected(scope, body, receive, send)
        finally:
            self._gate.leave()

    async def _read(self, scope: Scope, receive: Receive) -> bytes:
        limit, timeout_s = self._limits.max_body_bytes, self._limits.body_timeout_s
        _require_length(scope, limit)
        body, more = bytearray(), True
        late = ApiError(408, "body_timeout", f"The body did not come within {timeout_s:g} s.")
        with Interruption() as reading:
            timer = asyncio.get_running_loop().call_later(timeout_s, reading.interrupt, late)
            try:
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise errors.client_gone()
                    body += message.get("body", b"")
                    more = message.get("more_body", False)
                    if len(body) > limit:
                        raise _too_long(limit)
            finally:
                timer.cancel()
        if body:
            require_json(header(scope, b"content-type") or "", bytes(body), self._limits)
        return bytes(body)

    async def _while_connected(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        """Run the application on a body that was read; cancelled when the client goes."""
        unread: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
        watch: list[asyncio.Task[None]] = []
        loop = asyncio.get_running_loop()

        async def replay() -> Message:
            if not unread:
                await asyncio.Event().wait()
            return unread.pop()

        with Interruption() as working:

            async def sending(message: Message) -> None:
                if message["type"] == "http.response.body" and not message.get("more_body", False):
                    working.finish()  # a server also tells "disconnect" to who asks after the answer
                await send(message)

            timer = loop.call_later(WATCHED_S, lambda: watch.append(loop.create_task(_watch(receive, working))))
            try:
                await self._app(scope, replay, sending)
            finally:
                timer.cancel()
                for task in watch:
                    task.cancel()

    def _counted(self, scope: Scope, receive: Receive) -> Receive:
        limit, read = self._limits.max_upload_bytes, 0

        async def counting() -> Message:
            nonlocal read
            if not read:
                _require_length(scope, limit)
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


def _require_length(scope: Scope, limit: int) -> None:
    """Refuse by what the client says that it will send; what it does send is counted as well."""
    said = header(scope, b"content-length") or ""
    if said.isdecimal() and (len(said) > 18 or int(said) > limit):
        raise _too_long(limit)


def _too_long(limit: int) -> ApiError:
    return errors.too_large(f"The body is longer than {limit:,} bytes.")


async def _watch(receive: Receive, working: Interruption) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    working.interrupt(errors.client_gone())


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
