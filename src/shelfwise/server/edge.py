"""Around every request: a number, a line in the log, metrics, and an answer whatever happens inside."""

from __future__ import annotations

import asyncio
import itertools
import logging
import re
import time
import uuid
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shelfwise.server import errors, logs
from shelfwise.server.errors import ApiError
from shelfwise.server.gate import ANNOUNCED, Gate
from shelfwise.server.headers import header
from shelfwise.server.metrics import Metrics

logger = logging.getLogger("shelfwise.server.request")

REQUEST_ID = "x-request-id"
_ID_HEADER = REQUEST_ID.encode()
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_QUIET = frozenset({"/livez", "/readyz", "/metrics"})  # asked every few seconds: logged only when they fail
_ALWAYS = ((b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer"))
_TOLD = ("key", "model", "products", "error", "names")  # of the scope's state, in the log


class Edge:
    """ASGI middleware; the outermost."""

    def __init__(self, app: ASGIApp, metrics: Metrics, gate: Gate, paths: frozenset[str] = frozenset()) -> None:
        """Wrap an application; `paths` are told by name even where a request is refused before it is routed."""
        self._app = app
        self._metrics = metrics
        self._gate = gate
        self._paths = paths
        self._process = uuid.uuid4().hex[:16]  # and a number: the system is not asked for chance on each request
        self._numbers = itertools.count(1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        if state.pop(ANNOUNCED, False):
            self._gate.begin()
        asked = header(scope, _ID_HEADER)
        request_id = asked if asked and _ID.fullmatch(asked) else f"{self._process}{next(self._numbers):016x}"
        state["request_id"] = request_id
        began_s, status = time.perf_counter(), 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                mine = (*_ALWAYS, (_ID_HEADER, request_id.encode()))
                held = {name for name, _ in message["headers"]}
                message["headers"] = [*message["headers"], *(pair for pair in mine if pair[0] not in held)]
            await send(message)

        self._metrics.in_flight.inc()
        try:
            await self._app(scope, receive, sending)
        except ApiError as error:
            status = await _answer(error, status, scope, receive, sending)
        except asyncio.CancelledError:  # by the server alone, which ends now; whoever else ends a request says why
            ending = errors.unavailable("draining", "The service is ending, and this request with it. Ask again.")
            status = await _answer(ending, status, scope, receive, sending)
        except Exception:  # the client is told that it is our fault, and the log what it was
            logger.exception("unexpected", extra={"request_id": request_id})
            what = f"The service failed on this request; its log says why, under {request_id}."
            status = await _answer(ApiError(500, "internal", what), status, scope, receive, sending)
        finally:
            self._metrics.in_flight.dec()
            self._record(scope, status or 499, time.perf_counter() - began_s, request_id)

    def _record(self, scope: Scope, status: int, seconds: float, request_id: str) -> None:
        path, state = scope["path"], scope["state"]
        route: Any = getattr(scope.get("route"), "path", path if path in self._paths else "other")
        self._metrics.answered(route, scope["method"] if route != "other" else "any", status, seconds)
        if "error" in state:
            self._metrics.rejected.labels(state["error"]).inc()
        if status < 400 and path in _QUIET:
            return
        told = {name: state[name] for name in _TOLD if name in state}
        if status == 429:  # a flood must not become one of lines
            untold = self._gate.refused()
            if untold is None:
                return
            told["refusals"] = untold
        told |= {"request_id": request_id, "method": scope["method"], "route": route, "status": status}
        logs.event(logger, "request", {**told, "ms": round(seconds * 1000, 2)})


async def _answer(error: ApiError, status: int, scope: Scope, receive: Receive, send: Send) -> int:
    """Send an error unless an answer has begun or nobody is there; returns the status that is recorded."""
    answer = errors.response(error, scope)
    if not status and error.code != "client_gone":
        await answer(scope, receive, send)
    return error.status
