"""What all pages share: one look, one security policy, escaped text, and the files that they load."""

from __future__ import annotations

import hashlib
import html
import logging
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any
from urllib.parse import urlencode

from fastapi import HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, Response
from fastapi.routing import APIRoute
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from shelfwise.errors import StorageError
from shelfwise.pipelines.pages import count, duration, percent
from shelfwise.server.errors import ApiError
from shelfwise.server.monitor import LATENCY_ENDS
from shelfwise.server.pages_moments import ago

_LOG = logging.getLogger(__name__)
# Everything comes from this service; nothing inline runs or styles. Product names stay text whatever they hold.
POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; frame-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",  # pages hold what is in the queue and in the files of this company
}
# The look of the report, then what only these pages have.
STYLES = (
    ("shelfwise.pipelines", "_style.css"),
    ("shelfwise.pipelines", "_tables.css"),
    ("shelfwise.server", "pages.css"),
)
SCRIPTS = ("scripted.js", "try.js", "upload.js", "review.js")
ICON = "icon.svg"
NAVIGATION = (
    ("/", "Try"),
    ("/upload", "Upload"),
    ("/review", "Review"),
    ("/report", "Report"),
    ("/monitor", "Monitor"),
)
TITLES = {
    403: "Not done.",
    404: "There is nothing here.",
    413: "Too much at once.",
    429: "Busy.",
    503: "Not ready.",
    504: "No answer in time.",
}
FRAGMENT_HEADER = "x-fragment"  # set by our scripts, which then get the part of the page that they asked for


@dataclass(frozen=True, slots=True)
class Asset:
    """A file that a page loads."""

    body: bytes
    media_type: str
    version: str  # of its content; part of its address, so that it can be kept for ever


@lru_cache(maxsize=1)
def assets() -> Mapping[str, Asset]:
    """The style and the scripts by their names; there are no others, so no request's path reaches the disk."""
    style = "\n".join(_source(package, name) for package, name in STYLES).encode()
    found = {"shelfwise.css": _asset(style, "text/css; charset=utf-8")}
    for name in SCRIPTS:
        found[name] = _asset(_source("shelfwise.server", name).encode(), "text/javascript; charset=utf-8")
    found[ICON] = _asset(_source("shelfwise.server", ICON).encode(), "image/svg+xml")
    return found


def asset_url(name: str) -> str:
    """The address of an asset, its content's version in it."""
    return f"/static/{name}?v={assets()[name].version}"


def _asset(body: bytes, media_type: str) -> Asset:
    return Asset(body, media_type, hashlib.sha256(body).hexdigest()[:16])


def _source(package: str, name: str) -> str:
    folder = "templates" if package == "shelfwise.pipelines" else "static"
    return (files(package) / folder / name).read_text(encoding="utf-8")


@lru_cache(maxsize=1)
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("shelfwise.server", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        percent=percent, count=count, duration=duration, ago=ago, chance=chance, mark=mark, within=within
    )
    environment.globals.update(asset=asset_url, navigation=NAVIGATION, query=query)
    return environment


def page(request: Request, template: str, *, status: int = 200, **values: object) -> HTMLResponse:
    """Render a template; every value is escaped.

    Args:
        request: to which it answers.
        template: a page, or a fragment for a script.
        status: of HTTP.
        values: that the template names.
    """
    body = _environment().get_template(template).render(path=request.url.path, **values)
    return HTMLResponse(body, status, headers=HEADERS)


def wants_fragment(request: Request) -> bool:
    """Whether one of our scripts asks."""
    return FRAGMENT_HEADER in request.headers


def problem(request: Request, status: int, title: str, text: str) -> Response:
    """Say what went wrong in the page's own words: a page, or for a script the sentence alone."""
    if wants_fragment(request):
        return HTMLResponse(html.escape(f"{title} {text}".strip()), status, headers=HEADERS)
    return page(request, "problem.html", status=status, title=title, text=text)


class PageRoute(APIRoute):
    """A route whose errors are pages."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's own, with what it raises told to the reader."""
        handle = super().get_route_handler()

        async def handled(request: Request) -> Response:
            try:
                return await handle(request)
            except RequestValidationError:
                return problem(
                    request, 422, "This address is not complete.", "Start again from one of the pages above."
                )
            except ApiError as error:
                return problem(request, error.status, TITLES.get(error.status, "That did not work."), error.message)
            except HTTPException as error:  # of a form that is none
                return problem(request, error.status_code, "That did not work.", str(error.detail))
            except StorageError as error:
                _LOG.error("%s", error)
                return problem(request, 503, "The disk or the review queue refuses.", "Nothing was stored. Try again.")

        return handled


def chance(share: float) -> str:
    """A probability in whole per cent; one that is neither 0 nor 1 is not shown as if it were."""
    if 0.995 <= share < 1:
        return ">\u202f99%"
    return "<\u202f1%" if 0 < share < 0.005 else f"{share:.0%}"


def within(seconds: float | None) -> str:
    """The upper end of a latency bin, in words."""
    if seconds is None:
        return "–"
    return f"≤ {duration(seconds)}" if seconds < float("inf") else f"> {duration(LATENCY_ENDS[-1])}"


def query(**values: str | int) -> str:
    """A query string of what is not empty; ``?`` and all, or nothing."""
    given = {key: value for key, value in values.items() if value not in ("", 0)}
    return f"?{urlencode(given)}" if given else ""


def mark(text: str, sought: str) -> Markup:
    """A text with the first place of what was searched for marked; both escaped."""
    start = text.casefold().find(sought.casefold()) if sought else -1
    if start < 0 or len(text.casefold()) != len(text):  # folding moved the places
        return Markup(html.escape(text))  # noqa: S704  escaped
    before, found, after = text[:start], text[start : start + len(sought)], text[start + len(sought) :]
    return Markup("{}<mark>{}</mark>{}").format(before, found, after)
