"""Around every request: a number, a line in the log, metrics, and an answer whatever happens inside."""

from __future__ import annotations

import logging
import re
import time
import uuid

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shelfwise.server import errors
from shelfwise.server.errors import ApiError
from shelfwise.server.metrics import Metrics

logger = logging.getLogger("shelfwise.server.request")

REQUEST_ID = "x-request-id"
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_QUIET = frozenset({"/livez", "/readyz", "/metrics"})  # asked every few seconds: logged only when they fail
REFUSALS_EVERY_S = 1.0  # a line for all of that time, with their number
_ALWAYS = ((b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer"))


class Edge:
    """ASGI middleware; the outermost."""

    def __init__(self, app: ASGIApp, metrics: Metrics, paths: frozenset[str] = frozenset()) -> None:
        """Wrap an application; `paths` are told by name even where a request is refused before it is routed."""
        self._app = app
        self._metrics = metrics
        self._paths = paths
        self._told_refusals_s = 0.0
        self._untold_refusals = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        asked = Headers(scope=scope).get(REQUEST_ID, "")
        request_id = asked if _ID.fullmatch(asked) else uuid.uuid4().hex
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        began_s, status = time.perf_counter(), 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                mine = (*_ALWAYS, (REQUEST_ID.encode(), request_id.encode()))
                held = {name for name, _ in message["headers"]}
                message["headers"] = [*message["headers"], *(pair for pair in mine if pair[0] not in held)]
            await send(message)

        self._metrics.in_flight.inc()
        try:
            await self._app(scope, receive, sending)
        except ApiError as error:
            status = await _answer(error, status, scope, receive, sending)
        except Exception:  # the client is told that it is our fault, and the log what it was
            logger.exception("unexpected", extra={"request_id": request_id})
            what = f"The service failed on this request; its log says why, under {request_id}."
            status = await _answer(ApiError(500, "internal", what), status, scope, receive, sending)
        finally:
            self._metrics.in_flight.dec()
            self._record(scope, status or 499, time.perf_counter() - began_s, request_id)

    def _record(self, scope: Scope, status: int, seconds: float, request_id: str) -> None:
        route = getattr(scope.get("route"), "path", scope["path"] if scope["path"] in self._paths else "other")
        self._metrics.requests.labels(route, scope["method"] if route != "other" else "any", str(status)).inc()
        self._metrics.request_seconds.labels(route).observe(seconds)
        state = scope["state"]
        if "error" in state:
            self._metrics.rejected.labels(state["error"]).inc()
        if status < 400 and scope["path"] in _QUIET:
            return
        if status == 429:  # a flood must not become one of lines
            self._untold_refusals += 1
            if time.monotonic() - self._told_refusals_s < REFUSALS_EVERY_S:
                return
            state["refusals"], self._untold_refusals = self._untold_refusals, 0
            self._told_refusals_s = time.monotonic()
        told = {
            name: state[name] for name in ("key", "model", "products", "error", "names", "refusals") if name in state
        }
        logger.info(
            "request",
            extra={
                "request_id": request_id,
                "method": scope["method"],
                "route": route,
                "status": status,
                "ms": round(seconds * 1000, 2),
                **told,
            },
        )


async def _answer(error: ApiError, status: int, scope: Scope, receive: Receive, send: Send) -> int:
    """Send an error unless an answer has begun or nobody is there; returns the status that is recorded."""
    answer = errors.response(error, scope)
    if not status and error.code != "client_gone":
        await answer(scope, receive, send)
    return error.status
