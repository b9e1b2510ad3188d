"""What an orchestrator and Prometheus ask."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from fastapi import APIRouter, Request, Response

from shelfwise.errors import WorkError
from shelfwise.server import metrics, schemas
from shelfwise.server.errors import ApiError, unavailable
from shelfwise.server.schemas import ErrorResponse
from shelfwise.server.service import Service

PROVEN_S = 1.0  # a proof is good for so long, so that asking often costs nothing
router = APIRouter(tags=["health"])


class Proofs:
    """Asks the models for a proof, once for all who want one at a time."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._proven_s = -PROVEN_S
        self._asking = asyncio.Lock()

    async def require(self) -> None:
        """Return if every model answers.

        Raises:
            ApiError: 503, not ready.
        """
        async with self._asking:
            if self._service.state == "ready" and time.monotonic() - self._proven_s < PROVEN_S:
                return
            try:
                await self._service.prove()
            except ApiError as error:
                raise error if error.status == 503 else unavailable("not_ready", error.message) from error
            except WorkError as error:
                raise unavailable("not_ready", str(error)) from error
            self._proven_s = time.monotonic()


@router.get("/livez", response_model=schemas.Status, responses={503: {"model": ErrorResponse}})
async def alive(request: Request) -> dict[str, Any]:
    """Whether the process works; if it does not, it should be started anew."""
    service: Service = request.app.state.service
    if not service.alive:
        raise unavailable("not_alive", "A model's worker has ended.")
    return {"status": "alive"}


@router.get("/readyz", response_model=schemas.Status, responses={503: {"model": ErrorResponse}})
async def ready(request: Request) -> dict[str, Any]:
    """Whether requests should come here: every model has just classified a product."""
    await request.app.state.proofs.require()
    service: Service = request.app.state.service
    return {"status": "ready", "models": {model.name: model.version for model in service.models()}}


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def measured(request: Request) -> Response:
    """Everything that Prometheus scrapes."""
    return Response(request.app.state.metrics.text(), headers={"content-type": metrics.CONTENT_TYPE})
