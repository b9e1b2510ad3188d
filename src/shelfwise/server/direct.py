"""Requests to classify that are as they should be, answered without FastAPI: its way to an endpoint and back costs
several times what such a request needs (docs/lab-notes.md). What is not quite as it should be goes to FastAPI, which
says what is wrong; the same functions answer behind both doors, and a test holds both to the same answers.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

from pydantic import ValidationError
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shelfwise.server import answering, errors
from shelfwise.server.errors import ApiError
from shelfwise.server.headers import header
from shelfwise.server.schemas import ClassifyRequest, VllmRequest
from shelfwise.server.service import Service

_Answering = Callable[[Service, Scope, Any, float], Awaitable[dict[str, Any]]]
_FORMS: dict[str, tuple[type[ClassifyRequest] | type[VllmRequest], _Answering]] = {
    "/v1/classify": (ClassifyRequest, answering.classify),
    "/classify": (VllmRequest, answering.classify_as_vllm),
}
_dumps = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


class Direct:
    """ASGI middleware inside `bodies.Bodies`, whose one message holds a whole body."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http" or scope["method"] != "POST" or scope["path"] not in _FORMS:
            await self._app(scope, receive, send)
            return
        kind, answer = _FORMS[scope["path"]]
        message = await receive()
        timeout_ms = _timeout_ms(scope)
        try:
            asked = kind.model_validate_json(message["body"])
        except ValidationError:
            asked = None
        if asked is None or timeout_ms is None:
            await self._app(scope, _again(message, receive), send)
            return
        try:
            document = await answer(self._service, scope, asked, timeout_ms / 1000)
        except ApiError as error:
            await errors.response(error, scope)(scope, receive, send)
            return
        body = _dumps(document).encode()
        headers = [(b"content-length", b"%d" % len(body)), (b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def _timeout_ms(scope: Scope) -> int | None:
    """What the client asks for; None where FastAPI has to say what is wrong with it."""
    said = header(scope, b"x-timeout-ms")
    if said is None:
        return answering.MOST_TIMEOUT_MS
    if not (said.isascii() and said.isdecimal() and len(said) < 10):
        return None
    return int(said) if 1 <= int(said) <= answering.MOST_TIMEOUT_MS else None


def _again(message: Message, receive: Receive) -> Receive:
    unread = [message]

    async def replay() -> Message:
        return unread.pop() if unread else await receive()

    return replay
