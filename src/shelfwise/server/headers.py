"""One header of a request, without making an object of all of them."""

from __future__ import annotations

from starlette.types import Scope


def header(scope: Scope, name: bytes) -> str | None:
    """The first header of a name, which is given in lower case, as ASGI servers give them; None where there is none."""
    for found, value in scope["headers"]:
        if found == name:
            return str(value, "latin-1")
    return None
