"""What clients send and get, as OpenAPI describes it. Strict: unknown fields and wrong types are refused."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag

from shelfwise.data.catalogue import MAX_TEXT
from shelfwise.records import Decision, Level

MAX_TOP_K = 50
# What `text.normalise` leaves nothing of holds no character of this kind: one is to be there.
VISIBLE = (
    r"[^\u0000-\u0020\u007f\u0085\u00a0\u00ad\u034f\u1680\u180e\u2000-\u200f\u2028-\u202f\u205f-\u2064\u3000\ufeff]"
)

Name = Annotated[str, Field(max_length=MAX_TEXT, pattern=VISIBLE, description="A product's name.")]
Part = Annotated[str, Field(max_length=MAX_TEXT)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class ProductIn(_Strict):
    """A product. A model reads its own text columns (see /v1/models) and passes over the rest."""

    product: Name
    brand: Part = ""
    category: Part = ""
    sub_category: Part = ""


def _kind(value: Any) -> str:
    """Which of the forms a client meant, so that an error is about that form alone."""
    if isinstance(value, list):
        return "list"
    return "name" if isinstance(value, str) else "product"


def _whole(value: Any) -> Any:
    """JSON knows one kind of number: 3.0 is an integer."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


OneProduct = Annotated[
    Annotated[Name, Tag("name")] | Annotated[ProductIn, Tag("product")],
    Discriminator(_kind),
]
Products = Annotated[
    Annotated[Name, Tag("name")]
    | Annotated[ProductIn, Tag("product")]
    | Annotated[list[OneProduct], Field(min_length=1), Tag("list")],
    Discriminator(_kind),
]


class ClassifyRequest(_Strict):
    """One product, or several in a list."""

    products: Products
    model: Annotated[str | None, Field(max_length=200, description="A name of /v1/models; the first by default.")] = (
        None
    )
    top_k: Annotated[
        int, Field(ge=1, le=MAX_TOP_K, description="How many types to list for each product."), BeforeValidator(_whole)
    ] = 3


class Ranked(BaseModel):
    """A type and how probable it is."""

    type: str
    confidence: float


class Classified(BaseModel):
    """The answer to one product."""

    product: str = Field(description="The name, normalised.")
    text: str = Field(description="What the model read.")
    type: str = Field(description="The most probable inventory type.")
    confidence: float = Field(ge=0, le=1, description="The calibrated probability of that type.")
    decision: Decision = Field(description="accept where the promised precision holds for the type, else review.")
    level: Level = Field(description="The deepest level at which the promise holds; empty where it holds at none.")
    path: list[str] = Field(description="Category, sub-category and type, as far as the catalogue knew them.")
    sure_path: list[str] = Field(description="The most probable path down to `level`.")
    top_k: list[Ranked] = Field(description="The most probable types, highest first.")


class ClassifyResponse(BaseModel):
    """Answers in the order of the request's products."""

    model: str
    version: str = Field(description="Of the run folder: other content has another version.")
    classifier: str = Field(description="Base model, method and objective.")
    predictions: list[Classified]


class Model(BaseModel):
    """A model that is served."""

    id: str
    object: Literal["model"] = "model"
    created: int = Field(description="When it was loaded, in seconds since 1970.")
    owned_by: Literal["shelfwise"] = "shelfwise"
    version: str
    classifier: str
    text_columns: list[str] = Field(description="What it reads of a product, in this order.")
    types: int = Field(description="How many inventory types it knows.")
    promise: float = Field(description="The share of accepted answers that are to be right.")
    default: bool = Field(description="Whether it answers where a request names no model.")


class ModelList(BaseModel):
    """Every model that is served; the default first."""

    object: Literal["list"] = "list"
    data: list[Model]


class InventoryType(BaseModel):
    """A type of a model."""

    type: str
    path: list[str] = Field(description="Its most frequent category and sub-category, then itself.")
    threshold: float | None = Field(description="The confidence from which it is accepted; null: never.")


class TypeList(BaseModel):
    """The types of a model, in its own order."""

    model: str
    types: list[InventoryType]


class VllmRequest(BaseModel):
    """As vLLM's /classify takes it; other fields are passed over."""

    model_config = ConfigDict(strict=True)

    input: Annotated[
        Annotated[Name, Tag("name")] | Annotated[list[Name], Field(min_length=1), Tag("list")],
        Discriminator(_kind),
    ]
    model: Annotated[str | None, Field(max_length=200)] = None


class VllmAnswer(BaseModel):
    """The answer to one text."""

    index: int
    label: str
    probs: list[float] = Field(description="Of all types, in the order of /v1/types.")
    num_classes: int


class VllmUsage(BaseModel):
    """Always 0: tokens are not counted."""

    prompt_tokens: int = 0
    total_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: None = None


class VllmResponse(BaseModel):
    """As vLLM's /classify answers."""

    id: str
    object: Literal["list"] = "list"
    created: int
    model: str
    data: list[VllmAnswer]
    usage: VllmUsage


class ReloadRequest(_Strict):
    """Which model's run folder is to be loaded again; all by default."""

    model: Annotated[str | None, Field(max_length=200)] = None


class ReloadedModel(BaseModel):
    """What came of it."""

    model: str
    version: str
    previous_version: str
    changed: bool = Field(description="false: the folder holds what was loaded already, and nothing was done.")


class ReloadResponse(BaseModel):
    """What came of a reload."""

    models: list[ReloadedModel]


class Status(BaseModel):
    """How the service is."""

    status: str
    models: dict[str, str] = Field(default_factory=dict, description="Versions by model.")


class ErrorDetail(BaseModel):
    """One thing that is wrong, and where."""

    where: str
    problem: str


class ErrorBody(BaseModel):
    """What went wrong."""

    code: str
    message: str
    details: list[ErrorDetail]


class ErrorResponse(BaseModel):
    """The one shape of all errors."""

    error: ErrorBody
