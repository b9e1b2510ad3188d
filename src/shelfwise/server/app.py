"""The application: what stands around what, and its beginning and end. The contract with the pages: `contract`."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse

from shelfwise import __version__
from shelfwise.data.catalogue import EMPTY_NAME
from shelfwise.review import open_store
from shelfwise.server import api, errors, health
from shelfwise.server.bodies import Bodies
from shelfwise.server.direct import Direct
from shelfwise.server.edge import REQUEST_ID, Edge
from shelfwise.server.errors import ApiError, Detail
from shelfwise.server.gate import Gate
from shelfwise.server.guard import Guard
from shelfwise.server.keys import Keys
from shelfwise.server.live import LiveReview
from shelfwise.server.metrics import Metrics
from shelfwise.server.service import Service
from shelfwise.server.settings import Settings

logger = logging.getLogger(__name__)

MAX_DETAILS = 20
Hook = Callable[[], Awaitable[None]]


def create_app(settings: Settings) -> FastAPI:
    """Make the application; its models load once it is started.

    Raises:
        InputError: two runs of one name, or keys or a store that can't be read.
        StorageError: the review store refuses.
    """
    keys = Keys.load(settings.api_keys)
    metrics = Metrics()
    service = Service(settings, metrics)
    app = FastAPI(
        title="Shelfwise",
        version=__version__,
        description="From product names to inventory types.",
        docs_url=None,  # their pages load scripts from elsewhere
        redoc_url=None,
        lifespan=_lifespan,
    )
    app.state.settings, app.state.metrics, app.state.service = settings, metrics, service
    app.state.proofs = health.Proofs(service)
    app.state.store = open_store(settings.store) if settings.store else None
    startup: list[Hook] = []
    shutdown: list[Hook] = []
    app.state.startup, app.state.shutdown = startup, shutdown
    gate = app.state.gate = Gate(settings.limits.max_in_flight, metrics)
    app.add_middleware(Direct, service=service)  # the innermost first
    described = [Depends(HTTPBearer(auto_error=False))] if keys else []  # in OpenAPI; `guard` looks at the key
    app.include_router(api.router, dependencies=described)
    app.include_router(health.router)
    if importlib.util.find_spec("shelfwise.server.pages") is not None:
        from shelfwise.server import pages

        app.include_router(pages.router(app))
    _handle_errors(app)
    app.add_middleware(Bodies, limits=settings.limits, gate=gate)
    app.add_middleware(Guard, keys=keys, cors_origins=settings.cors_origins)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type", "X-API-Key", "X-Timeout-Ms"],
            expose_headers=["Retry-After", REQUEST_ID],
        )
    app.add_middleware(Edge, metrics=metrics, gate=gate, paths=api.PATHS)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    service: Service = app.state.service
    live = None
    if app.state.store is not None:
        live = LiveReview(app.state.store, app.state.metrics)
        service.observe(live)
    loading = asyncio.create_task(service.load())
    for hook in app.state.startup:
        await hook()
    try:
        yield
    except asyncio.CancelledError:  # a second signal; a traceback would tell nothing more
        logger.info("ended at once; requests in flight are refused")
    finally:
        service.drain()
        for hook in app.state.shutdown:
            await hook()
        await loading
        await service.close()
        if live is not None:
            await asyncio.to_thread(live.close)
        if app.state.store is not None:
            await asyncio.to_thread(app.state.store.close)


def _handle_errors(app: FastAPI) -> None:
    """Give everything that FastAPI refuses the one shape of errors."""

    @app.exception_handler(ApiError)
    async def of_ours(request: Request, error: ApiError) -> JSONResponse:
        return errors.response(error, request.scope)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        found = error.errors()
        if any(each["type"] == "json_invalid" for each in found):
            return errors.response(ApiError(400, "invalid_json", "The body is no JSON."), request.scope)
        details = [
            Detail(_where(each["loc"]), _IN_WORDS.get(each["type"], each["msg"])) for each in found[:MAX_DETAILS]
        ]
        more = f" The first {MAX_DETAILS} of {len(found):,} faults:" if len(found) > MAX_DETAILS else ""
        said = ApiError(422, "invalid_request", f"The request is not what this path takes.{more}", details)
        return errors.response(said, request.scope)

    @app.exception_handler(HTTPException)
    async def of_starlette(request: Request, error: HTTPException) -> JSONResponse:
        said = {404: errors.not_found(), 405: ApiError(405, "method_not_allowed", "This path takes another method.")}
        answer = said.get(error.status_code) or ApiError(error.status_code, "invalid_request", str(error.detail))
        if error.status_code == 400:
            answer = ApiError(400, "invalid_json", "The body is no JSON.")
        answer.headers.update(error.headers or {})
        return errors.response(answer, request.scope)


_TAGS = ("name", "product", "list")  # of the form that a client meant, which pydantic puts among the places
_IN_WORDS = {
    "string_pattern_mismatch": EMPTY_NAME,
    "model_attributes_type": "neither a name nor an object with a product",
}


def _where(location: Sequence[int | str]) -> str:
    """A place in the request, as "products.3.brand"; outside the body with its kind before it."""
    kept: list[str] = []
    before: int | str = ""
    for part in location[1:] if location[:1] == ("body",) else location:
        if not (part in _TAGS and (isinstance(before, int) or before in ("products", "input", "list"))):
            kept.append(str(part))
        before = part
    return ".".join(kept)
