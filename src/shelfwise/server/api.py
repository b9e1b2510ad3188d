"""The API's paths as OpenAPI describes them. Most requests to classify don't come here: see `direct`."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, Header, Query, Request
from starlette.responses import JSONResponse

from shelfwise.errors import ShelfwiseError
from shelfwise.server import answering, schemas
from shelfwise.server.answering import MOST_TIMEOUT_MS
from shelfwise.server.errors import ApiError
from shelfwise.server.schemas import ClassifyRequest, ErrorResponse, VllmRequest
from shelfwise.server.service import Service

_EXPLAINED = {
    400: "The body is no JSON.",
    401: "An API key is needed.",
    403: "This key may not do that.",
    404: "No such model.",
    408: "The body did not come in time.",
    413: "Over a limit of the service.",
    415: "The body is not application/json.",
    422: "JSON, but not what this path takes.",
    429: "Too much is waiting; Retry-After says when to come again.",
    500: "A fault of the service.",
    502: "The run folder can't be loaded; the model that was served still is.",
    503: "The service is loading, or about to end.",
    504: "No answer within the request's time.",
}
TimeoutMs = Annotated[
    int,
    Header(
        alias="X-Timeout-Ms",
        ge=1,
        le=MOST_TIMEOUT_MS,
        description="Give up after so many milliseconds; the service's own --timeout holds as well.",
    ),
]
ModelName = Annotated[str | None, Query(max_length=200, description="A name of /v1/models; the first by default.")]
_CLASSIFY_EXAMPLES: dict[str, Any] = {
    "name": {"summary": "One name", "value": {"products": "Basmati Rice 1 kg"}},
    "names": {"summary": "Names", "value": {"products": ["Basmati Rice 1 kg", "Neem Soap, 4 x 125 g"], "top_k": 2}},
    "products": {
        "summary": "A model that reads brands",
        "value": {"products": [{"product": "Basmati Rice 1 kg", "brand": "Amber"}], "top_k": 5},
    },
}


def _errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": ErrorResponse, "description": _EXPLAINED[status]} for status in statuses}


PATHS = frozenset({"/v1/classify", "/classify", "/v1/models", "/v1/types", "/v1/admin/reload"})
_ASKING = _errors(400, 401, 403, 404, 408, 413, 415, 422, 429, 500, 503, 504)
_READING = _errors(401, 404, 422, 500, 503)
router = APIRouter()


@router.post(
    "/v1/classify", response_model=schemas.ClassifyResponse, responses=_ASKING, tags=["classify"], summary="Classify"
)
async def classify(
    request: Request,
    asked: Annotated[ClassifyRequest, Body(openapi_examples=_CLASSIFY_EXAMPLES)],
    timeout_ms: TimeoutMs = MOST_TIMEOUT_MS,
) -> JSONResponse:
    """Classify one product or a list of them.

    Each answer is that of `shelfwise predict` for the same product, alone and in any batch.
    """
    return JSONResponse(await answering.classify(_service(request), request.scope, asked, timeout_ms / 1000))


@router.post(
    "/classify", response_model=schemas.VllmResponse, responses=_ASKING, tags=["classify"], summary="As vLLM does"
)
async def classify_as_vllm(
    request: Request,
    asked: Annotated[VllmRequest, Body(examples=[{"input": ["Basmati Rice 1 kg"]}])],
    timeout_ms: TimeoutMs = MOST_TIMEOUT_MS,
) -> JSONResponse:
    """For clients of vLLM's /classify: the probabilities of all types, in the order of /v1/types."""
    return JSONResponse(await answering.classify_as_vllm(_service(request), request.scope, asked, timeout_ms / 1000))


@router.get("/v1/models", response_model=schemas.ModelList, responses=_errors(401, 500), tags=["models"])
async def models(request: Request) -> dict[str, Any]:
    """The models that are served, the default first; none while they load."""
    return {
        "data": [
            {
                "id": model.name,
                "created": int(model.loaded_at_s),
                "version": model.version,
                "classifier": model.classifier,
                "text_columns": list(model.text_columns),
                "types": model.types,
                "promise": model.promise,
                "default": model.default,
            }
            for model in _service(request).models()
        ]
    }


@router.get("/v1/types", response_model=schemas.TypeList, responses=_READING, tags=["models"])
async def types(request: Request, model: ModelName = None) -> dict[str, Any]:
    """The inventory types of a model."""
    service = _service(request)
    found = service.types(model)
    listed = [{"type": each.name, "path": list(each.path), "threshold": each.threshold} for each in found]
    return {"model": model if model is not None else service.models()[0].name, "types": listed}


@router.post(
    "/v1/admin/reload",
    response_model=schemas.ReloadResponse,
    responses=_errors(400, 401, 403, 404, 408, 413, 415, 422, 500, 502, 503),
    tags=["admin"],
)
async def reload(request: Request, asked: schemas.ReloadRequest | None = None) -> dict[str, Any]:
    """Load the run folders again, where their content has changed. Needs an admin's API key.

    The new model is loaded beside the old one and has to answer before it takes over; no request is dropped.
    """
    try:
        done = await _service(request).reload(asked.model if asked else None)
    except ApiError:
        raise
    except (ShelfwiseError, OSError) as error:
        raise ApiError(502, "reload_failed", f"The model that was served still is. {error}") from error
    return {
        "models": [
            {"model": r.name, "version": r.version, "previous_version": r.previous_version, "changed": r.changed}
            for r in done
        ]
    }


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service
