"""Who may ask: API keys, and no forms of other sites' pages."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from shelfwise.server import errors
from shelfwise.server.errors import ApiError
from shelfwise.server.headers import header
from shelfwise.server.keys import Keys

OPEN_PATHS = frozenset({"/livez", "/readyz", "/metrics"})  # of whoever runs the service; they tell no product
ADMIN_PREFIX = "/v1/admin/"


class Guard:
    """ASGI middleware. `scope["state"]["key"]` is the name of the key, for the log."""

    def __init__(self, app: ASGIApp, keys: Keys, cors_origins: tuple[str, ...]) -> None:
        self._app = app
        self._keys = keys
        self._origins = frozenset(cors_origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] == "http":
            try:
                self._require(scope)
            except ApiError as error:
                await errors.response(error, scope)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _require(self, scope: Scope) -> None:
        path = scope["path"]
        if scope["method"] not in ("GET", "HEAD", "OPTIONS"):
            self._require_own_site(scope)
        if path in OPEN_PATHS:
            return
        if not self._keys:
            if path.startswith(ADMIN_PREFIX):
                what = "Over HTTP a model is reloaded with an admin's API key; start with --api-keys, or send SIGHUP."
                raise ApiError(403, "forbidden", what)
            return
        headers = Headers(scope=scope)
        key = self._keys.holder(headers)
        if key is None:
            asked = 'Basic realm="Shelfwise", charset="UTF-8"' if "text/html" in headers.get("accept", "") else "Bearer"
            what = "An API key is needed: Authorization: Bearer KEY."
            raise ApiError(401, "unauthorized", what, headers={"WWW-Authenticate": asked})
        scope.setdefault("state", {})["key"] = key.name
        if path.startswith(ADMIN_PREFIX) and not key.admin:
            raise ApiError(403, "forbidden", "This API key is no admin's.")

    def _require_own_site(self, scope: Scope) -> None:
        """A browser says which site's page sends a request; a page of another site must not act for its visitor."""
        origin = header(scope, b"origin")
        if origin is None or origin in self._origins:
            return
        if origin.partition("://")[2].lower() != (header(scope, b"host") or "").lower():
            raise ApiError(403, "forbidden", "This request comes from a page of another site.")
