"""Pages for people: Try, Upload, Review, Report, Monitor. Rendered here; they work without JavaScript.

| address                  | what                                                              |
| ------------------------ | ----------------------------------------------------------------- |
| `/`                      | names in, types out                                               |
| `/upload`                | files in; their progress, answers and downloads under `/upload/N` |
| `/review`                | the queue, one product at a time                                  |
| `/report`                | the run's evaluation, as it is                                    |
| `/monitor`               | what came in, and whether to train again                          |
| `/static/NAME`           | the style and the scripts                                         |

A form that another site's page sends is refused. `pages_view.POLICY` lets no inline script or style run.
"""

from __future__ import annotations

import time

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shelfwise.server import pages_report, pages_review, pages_try, pages_upload
from shelfwise.server.errors import not_found
from shelfwise.server.pages_state import PagesState
from shelfwise.server.pages_view import PageRoute, assets

TIMED = ("/v1/classify", "/classify")


def router(app: FastAPI) -> APIRouter:
    """The pages of an application, with what they keep."""
    state = PagesState(app)
    app.state.pages = state
    app.state.startup.append(state.start)
    app.state.shutdown.append(state.stop)
    app.add_middleware(_Timed, state=state)
    pages = APIRouter(include_in_schema=False, route_class=PageRoute)
    pages_try.add_routes(pages, app)
    pages_upload.add_routes(pages, app, state)
    pages_review.add_routes(pages, app, state)
    pages_report.add_routes(pages, app, state)
    pages.add_api_route("/static/{name}", _static, methods=["GET"])
    return pages


async def _static(name: str, request: Request) -> Response:
    asset = assets().get(name)
    if asset is None:
        raise not_found()
    # Its address changes with its content; without the version in it, it is asked for each time.
    kept = "public, max-age=31536000, immutable" if request.query_params.get("v") == asset.version else "no-cache"
    headers = {"Cache-Control": kept, "X-Content-Type-Options": "nosniff"}
    return Response(asset.body, media_type=asset.media_type, headers=headers)


class _Timed:
    """Counts how long answered requests took, for the monitor page."""

    def __init__(self, app: ASGIApp, state: PagesState) -> None:
        self._app = app
        self._state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] not in TIMED:
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        await self._app(scope, receive, sending)
        if status == 200:
            # The API notes there which model it asked.
            self._state.timed(scope.get("state", {}).get("model"), time.perf_counter() - started)
