"""What the parts of the service owe each other: the API, the pages, and what stands behind both.

`app.create_app(settings)` gives a FastAPI application with, from the moment it is made:

    app.state.settings  -> settings.Settings
    app.state.service   -> service.Service
    app.state.store     -> review.store.Store | None         (None without --store; its calls block: use a thread)
    app.state.metrics   -> metrics.Metrics                    (Prometheus; of this application only)

The service, called in the event loop:

    await service.classify([Question("Basmati Rice", brand="Amber")], model=None, top_k=3, timeout_s=None) -> Answers
    service.models()             -> tuple[ModelInfo, ...]     the first is the default; () while they load
    service.types(model=None)    -> tuple[TypeInfo, ...]      in the order of the run's labels
    service.run(model=None)      -> Path                      the run folder; its evaluation/report.html is the report
    service.text_columns(model=None) -> tuple[Role, ...]      what the model reads: ("product",) or with brand before it
    service.classifier(model=None) -> Classifier              for long jobs in threads of their own
    service.state                -> "loading" | "ready" | "leaving" | "draining" | "failed"
    service.observe(callback)    -> None                      see below

A model that does not exist, a full queue, a service that is not ready: `errors.ApiError`, which a page catches and the
API turns into its one error shape. `ApiError.message` is made to be shown.

With `trial=True` an answer is neither counted nor told to observers: names that are typed on the page, half done.

Whoever watches traffic (the monitor page, the review queue) registers a callback with `service.observe`. It is called
once a batch, in the model's worker thread, with an `Answers`; it has to be quick, must not block, and must not raise.

The pages are a module `pages` with `router(app: FastAPI) -> APIRouter`, included when the application is made. It may
register what it needs at start and end with `app.state.startup` and `app.state.shutdown`: lists of async functions
without arguments, awaited in order, after the models began to load and before they are let go.

Bodies of requests under API_PREFIXES are read, bounded and checked before FastAPI sees them; other paths are bounded by
`settings.max_upload_bytes` while they are streamed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from shelfwise.config import Role
from shelfwise.records import Prediction, Product

State = Literal["loading", "ready", "leaving", "draining", "failed"]
API_PREFIXES = ("/v1/", "/classify")


@dataclass(frozen=True, slots=True)
class Question:
    """A product as a client names it: not normalised, not bounded."""

    product: str
    brand: str = ""
    category: str = ""
    sub_category: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """One product, normalised, with what the model says; `product.text` is what it read."""

    product: Product
    prediction: Prediction


@dataclass(frozen=True, slots=True)
class Answers:
    """The answers to one request, in its order; or, for observers, to one batch."""

    model: str  # as clients name it
    version: str  # of the run folder: 12 hex digits of its manifest's hash
    classifier: str  # "llama2-7b lora head"
    answers: tuple[Answer, ...]


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A run that is served."""

    name: str
    version: str
    classifier: str
    text_columns: tuple[Role, ...]
    types: int  # how many
    promise: float  # the precision that accepted answers are to have
    loaded_at_s: float  # seconds since 1970
    default: bool


@dataclass(frozen=True, slots=True)
class TypeInfo:
    """An inventory type of a run."""

    name: str
    path: tuple[str, ...]  # the most frequent (category, sub-category, type), without unknown levels
    paths: tuple[tuple[str, str, int], ...]  # every (category, sub-category, products in training), most frequent first
    threshold: float | None  # the confidence from which it is accepted; None: never
