"""Requests to classify, from what was parsed to what is said in JSON."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from typing import Any

from starlette.types import Scope

from shelfwise.server import schemas
from shelfwise.server.contract import Answer, Answers, Question
from shelfwise.server.schemas import ClassifyRequest, ProductIn, VllmRequest
from shelfwise.server.service import Service

MOST_TIMEOUT_MS = 3_600_000


async def classify(service: Service, scope: Scope, asked: ClassifyRequest, timeout_s: float) -> dict[str, Any]:
    """A `schemas.ClassifyResponse`.

    Raises:
        ApiError: as `Service.classify`.
    """
    products = asked.products if isinstance(asked.products, list) else [asked.products]
    questions = [_question(product) for product in products]
    answers = await _ask(service, scope, questions, asked.model, asked.top_k, timeout_s)
    return {
        "model": answers.model,
        "version": answers.version,
        "classifier": answers.classifier,
        "predictions": [_classified(answer) for answer in answers.answers],
    }


async def classify_as_vllm(service: Service, scope: Scope, asked: VllmRequest, timeout_s: float) -> dict[str, Any]:
    """A `schemas.VllmResponse`: the probabilities of all types, in the order of /v1/types.

    Raises:
        ApiError: as `Service.classify`.
    """
    texts = asked.input if isinstance(asked.input, list) else [asked.input]
    names = service.type_names(asked.model)
    answers = await _ask(service, scope, [Question(text) for text in texts], asked.model, len(names), timeout_s)
    data = []
    for index, answer in enumerate(answers.answers):
        shares = dict(answer.prediction.top_k)
        probs = [shares[name] for name in names]
        data.append({"index": index, "label": answer.prediction.label, "probs": probs, "num_classes": len(names)})
    return {
        "id": f"classify-{uuid.uuid4().hex}",
        "object": "list",
        "created": int(time.time()),
        "model": answers.model,
        "data": data,
        "usage": schemas.VllmUsage().model_dump(),
    }


async def _ask(
    service: Service, scope: Scope, questions: Sequence[Question], model: str | None, top_k: int, timeout_s: float
) -> Answers:
    told = scope["state"]  # for the log
    told["products"] = len(questions)
    if service.settings.log_names:
        told["names"] = [question.product for question in questions]
    answers = await service.classify(questions, model=model, top_k=top_k, timeout_s=timeout_s)
    told["model"] = answers.model
    return answers


def _question(asked: str | ProductIn) -> Question:
    if isinstance(asked, str):
        return Question(asked)
    return Question(asked.product, asked.brand, asked.category, asked.sub_category)


def _classified(answer: Answer) -> dict[str, Any]:
    prediction = answer.prediction
    return {
        "product": answer.product.name,
        "text": answer.product.text,
        "type": prediction.label,
        "confidence": prediction.confidence,
        "decision": prediction.decision,
        "level": prediction.level,
        "path": prediction.path,
        "sure_path": prediction.sure_path,
        "top_k": [{"type": label, "confidence": share} for label, share in prediction.top_k],
    }
