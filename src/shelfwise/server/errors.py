"""What a request can come to instead of an answer, in the one shape that all errors have.

    {"error": {"code": "queue_full", "message": "...", "details": [{"where": "products.3", "problem": "..."}]}}

| status | code | when |
| --- | --- | --- |
| 400 | invalid_json | the body is no JSON, or nested too deeply |
| 401 | unauthorized | an API key is needed, and this is none |
| 403 | forbidden | the key may not do this, or another site's page sent the request |
| 404 | not_found, model_not_found | no such path, no such model |
| 405 | method_not_allowed | |
| 408 | body_timeout | the body did not come in time |
| 413 | too_large | the body, or what is asked for, is over a limit |
| 415 | unsupported_media_type | not application/json |
| 422 | invalid_request | JSON, but not what this path takes |
| 429 | queue_full | too much is waiting already; Retry-After says when to come again |
| 499 | client_gone | only in logs and metrics: nobody was there to be answered |
| 500 | internal, model_failed | a fault of ours |
| 502 | reload_failed | the new run folder can't be loaded; the old model goes on |
| 503 | not_ready, draining | the models are loading, or the service is about to end |
| 504 | deadline_exceeded | no answer within the request's time |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from starlette.responses import JSONResponse
from starlette.types import Scope

from shelfwise.errors import WorkError


@dataclass(frozen=True, slots=True)
class Detail:
    """One thing that is wrong, and where."""

    where: str  # "products.3.brand"; "" is the whole request
    problem: str


class ApiError(WorkError):
    """A request that is not answered; `message` is made to be shown to whoever sent it."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        details: Sequence[Detail] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.details = tuple(details)
        self.headers = dict(headers or {})

    def body(self) -> dict[str, object]:
        """The one shape."""
        details = [{"where": detail.where, "problem": detail.problem} for detail in self.details]
        return {"error": {"code": self.code, "message": self.message, "details": details}}


def response(error: ApiError, scope: Scope) -> JSONResponse:
    """An error as it is sent; its code is noted in the scope's state, for the log."""
    scope.setdefault("state", {})["error"] = error.code
    return JSONResponse(error.body(), error.status, error.headers)


def client_gone() -> ApiError:
    """499: the client closed the connection, and nobody reads what would be sent."""
    return ApiError(499, "client_gone", "The client closed the connection.")


def not_found(what: str = "There is nothing at this path.", code: str = "not_found") -> ApiError:
    """404."""
    return ApiError(404, code, what)


def too_large(message: str, details: Sequence[Detail] = ()) -> ApiError:
    """413."""
    return ApiError(413, "too_large", message, details)


def queue_full(retry_after_s: int) -> ApiError:
    """429."""
    return ApiError(
        429,
        "queue_full",
        f"Too much is waiting to be classified. Try again in {retry_after_s} s.",
        headers={"Retry-After": str(retry_after_s)},
    )


def unavailable(code: str, message: str) -> ApiError:
    """503."""
    return ApiError(503, code, message, headers={"Retry-After": "1"})


def deadline_exceeded(timeout_s: float) -> ApiError:
    """504."""
    return ApiError(504, "deadline_exceeded", f"No answer within {timeout_s:g} s.")


def model_failed(model: str) -> ApiError:
    """500 that is the model's fault; the log has the traceback."""
    return ApiError(500, "model_failed", f"The model '{model}' failed on this request. The service's log says why.")
