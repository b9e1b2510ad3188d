"""*Try*: names in, types out; as a plain form, and as you type."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import Response

from shelfwise.server.contract import Answer, ModelInfo, Question
from shelfwise.server.errors import ApiError
from shelfwise.server.pages_people import require_own_page
from shelfwise.server.pages_view import page, problem, wants_fragment
from shelfwise.text import normalise

MAX_NAMES = 100  # a screen for looking; files go to Upload
MAX_NAME = 1_000  # characters
MAX_TYPED = 50_000  # characters of the whole field
TOP_K = 3
MAX_FIELDS = 10


@dataclass(frozen=True, slots=True)
class Typed:
    """What stands in the form."""

    names: str = ""  # one a line
    brand: str = ""  # of all of them, where the model reads brands
    model: str = ""

    @property
    def lines(self) -> list[str]:
        """The names, without empty lines."""
        return [name for line in self.names.splitlines() if (name := normalise(line))]


def add_routes(router: APIRouter, app: FastAPI) -> None:
    """Add the page."""

    @router.get("/")
    async def show(request: Request, model: str = "") -> Response:
        return _page(request, app, Typed(model=model))

    @router.post("/")
    async def classify(request: Request) -> Response:
        require_own_page(request)
        async with request.form(max_files=0, max_fields=MAX_FIELDS, max_part_size=4 * MAX_TYPED) as form:
            typed = Typed(str(form.get("names", "")), str(form.get("brand", "")), str(form.get("model", "")))
        try:
            answers = await _answers(app, typed)
        except ApiError as error:
            if wants_fragment(request):
                return problem(request, error.status, "", error.message)
            return _page(request, app, typed, complaint=error.message, status=error.status)
        if wants_fragment(request):
            return page(request, "answers.html", answers=answers)
        return _page(request, app, typed, answers)


async def _answers(app: FastAPI, typed: Typed) -> tuple[Answer, ...]:
    names = typed.lines
    if len(typed.names) > MAX_TYPED or len(names) > MAX_NAMES:
        raise ApiError(413, "too_large", f"Up to {MAX_NAMES} names are shown at once. Upload a file for more.")
    for number, name in enumerate(names, 1):
        if len(name) > MAX_NAME:
            raise ApiError(
                413, "too_large", f"Name {number} has {len(name):,} characters; up to {MAX_NAME:,} are read."
            )
    if not names:
        return ()
    questions = [Question(name, brand=typed.brand[:MAX_NAME]) for name in names]
    found = await app.state.service.classify(questions, model=typed.model or None, top_k=TOP_K, trial=True)
    return tuple(found.answers)


def _page(
    request: Request,
    app: FastAPI,
    typed: Typed,
    answers: tuple[Answer, ...] = (),
    complaint: str = "",
    status: int = 200,
) -> Response:
    models: tuple[ModelInfo, ...] = app.state.service.models()
    chosen = next((model for model in models if model.name == typed.model), models[0] if models else None)
    return page(
        request,
        "try.html",
        status=status,
        typed=typed,
        answers=answers,
        complaint=complaint,
        models=models,
        chosen=chosen,
        max_names=MAX_NAMES,
    )
