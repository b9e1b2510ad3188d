"""Who sits before the page, and whether a form was sent from one of our own pages."""

from __future__ import annotations

from urllib.parse import quote, unquote, urlsplit

from fastapi import Request
from fastapi.responses import Response

from shelfwise.errors import InputError
from shelfwise.review.items import reviewer_name
from shelfwise.server.errors import ApiError

COOKIE = "shelfwise_reviewer"
KEPT_S = 180 * 24 * 3600


def reviewer_of(request: Request) -> str | None:
    """The name that somebody gave on this device; None where nobody did. It is a name, not a proof of who it is."""
    given = request.cookies.get(COOKIE)
    try:
        return reviewer_name(unquote(given)) if given else None
    except InputError:
        return None


def remember(response: Response, name: str) -> None:
    """Keep a name, already checked by `review.items.reviewer_name`, on this device."""
    response.set_cookie(COOKIE, quote(name), max_age=KEPT_S, httponly=True, samesite="strict", path="/")


def forget(response: Response) -> None:
    """Ask for the name again."""
    response.delete_cookie(COOKIE, path="/")


def require_own_page(request: Request) -> None:
    """Refuse a form that another site's page sent with this browser.

    Browsers say where a form comes from (Fetch Metadata, and Origin before it); a client that says neither is no
    browser, and nobody's page steers it.

    Raises:
        ApiError: 403.
    """
    site = request.headers.get("sec-fetch-site")
    origin = request.headers.get("origin")
    foreign = site not in (None, "same-origin", "none")
    if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
        foreign = True
    if foreign:
        raise ApiError(403, "forbidden", "This form was sent by a page of another site, so nothing was done.")
