"""*Review*: one product at a time. Nothing moves on before the store has confirmed."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

from fastapi import APIRouter, FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.datastructures import FormData
from fastapi.responses import RedirectResponse, Response

from shelfwise.errors import InputError, StorageError
from shelfwise.review.items import ConflictError, Item, UnknownItemError, new_key, reviewer_name
from shelfwise.review.store import Store
from shelfwise.server import pages_desk
from shelfwise.server.contract import TypeInfo
from shelfwise.server.errors import ApiError
from shelfwise.server.pages_desk import Choice, Standing
from shelfwise.server.pages_files import MEDIA_TYPES, attachment
from shelfwise.server.pages_people import forget, remember, require_own_page, reviewer_of
from shelfwise.server.pages_state import PagesState
from shelfwise.server.pages_view import page, problem, wants_fragment

MAX_FIELDS = 12


class Desk:
    """The page, for one application."""

    def __init__(self, app: FastAPI, state: PagesState) -> None:
        self._app = app
        self._state = state

    @property
    def store(self) -> Store | None:
        """The queue; None for a service without one."""
        found: Store | None = self._app.state.store
        return found

    def types(self) -> dict[str, TypeInfo]:
        """The default run's types by name; none while it is loaded."""
        try:
            return {info.name: info for info in self._app.state.service.types()}
        except ApiError:
            return {}

    async def show(self, request: Request, told: str = "", complaint: str = "") -> Response:
        """The next product, in a page or for the script alone."""
        store, reviewer = self.store, reviewer_of(request)
        if store is None or reviewer is None:
            return page(request, "review_start.html", store=store is not None, reviewer=reviewer, complaint=complaint)
        types, examples = self.types(), self._state.examples()

        def read() -> tuple[pages_desk.Card | None, Standing]:
            return pages_desk.next_card(store, reviewer, types, examples), Standing.of(store, reviewer)

        card, standing = await run_in_threadpool(read)
        template = "desk.html" if wants_fragment(request) else "review.html"
        branches = () if wants_fragment(request) else pages_desk.tree(tuple(types.values()))
        return page(
            request,
            template,
            card=card,
            standing=standing,
            told=told,
            complaint=complaint,
            reviewer=reviewer,
            branches=branches,
            key=new_key(),
        )

    async def decide(self, request: Request) -> Response:
        """Store one decision."""
        store, reviewer, form = await self._asked(request)
        choice, types = _choice(form), self.types()

        def store_it() -> str:
            item = store.item(choice.item_id)
            pages_desk.check(choice, item, types)
            item = store.decide(choice.item_id, choice.decision(reviewer, item.predicted_type))
            return _told(choice, item)

        return await self._done(request, store_it, choice)

    async def overrule(self, request: Request) -> Response:
        """Put this reviewer's decision in the place of another's, after both were shown."""
        store, reviewer, form = await self._asked(request)
        choice, types = _choice(form), self.types()

        def store_it() -> str:
            item = store.item(choice.item_id)
            pages_desk.check(choice, item, types)
            decision = choice.decision(reviewer, item.predicted_type)
            opened = store.reopen(choice.item_id, reviewer, choice.version, f"{decision.key}-reopen")
            again = Choice(item.id, opened.version, choice.key, choice.action, choice.type)
            return _told(choice, store.decide(item.id, again.decision(reviewer, item.predicted_type)))

        return await self._done(request, store_it, choice)

    async def undo(self, request: Request) -> Response:
        """Take back this reviewer's last decision."""
        store, reviewer, form = await self._asked(request)
        key = str(form.get("key", ""))

        def store_it() -> str:
            item = store.undo(reviewer, key)
            return f"Taken back: {item.name}." if item else "There is nothing to take back."

        return await self._done(request, store_it)

    async def _asked(self, request: Request) -> tuple[Store, str, FormData]:
        require_own_page(request)
        store, reviewer = self.store, reviewer_of(request)
        if store is None:
            raise ApiError(404, "not_found", "This service has no review queue.")
        if reviewer is None:
            raise ApiError(403, "forbidden", "Say who you are first: open the review page again.")
        async with request.form(max_files=0, max_fields=MAX_FIELDS, max_part_size=16_384) as form:
            return store, reviewer, form

    async def _done(self, request: Request, act: Callable[[], str], choice: Choice | None = None) -> Response:
        """Act in a thread, then show what comes next, or what stood in the way."""
        try:
            told = await run_in_threadpool(act)
        except ConflictError as conflict:
            if conflict.decision is None:
                return await self.show(request, complaint="This product changed meanwhile, so nothing was stored.")
            return self._conflict(request, conflict, choice)
        except (UnknownItemError, InputError) as error:
            return problem(request, 422, "Nothing was stored.", str(error))
        except StorageError as error:
            return problem(request, 503, "Nothing was stored.", f"The queue can't be written: {error}")
        if wants_fragment(request):
            return await self.show(request, told=told)
        return RedirectResponse("/review", 303)

    def _conflict(self, request: Request, conflict: ConflictError, choice: Choice | None) -> Response:
        template = "conflict.html" if wants_fragment(request) else "review_conflict.html"
        mine = choice.type if choice and choice.action == "type" else conflict.item.predicted_type
        return page(
            request,
            template,
            status=409,
            item=conflict.item,
            decision=conflict.decision,
            mine=mine if choice and choice.action != "skip" else None,
            choice=choice,
        )

    async def decisions(self, request: Request, suffix: str) -> Response:
        """What was decided, as a catalogue to train on."""
        store = self.store
        if store is None or suffix not in MEDIA_TYPES:
            return problem(request, 404, "There is nothing here.", "Decisions can be had as .xlsx and .csv.")
        try:
            stream = await run_in_threadpool(_exported, store, suffix)
        except InputError as error:
            return problem(request, 404, "There is nothing to download.", str(error))
        return attachment(stream, f"decisions{suffix}", MEDIA_TYPES[suffix])

    async def name(self, request: Request) -> Response:
        """Take a reviewer's name."""
        require_own_page(request)
        async with request.form(max_files=0, max_fields=MAX_FIELDS, max_part_size=4_096) as form:
            given = str(form.get("name", ""))
        try:
            name = reviewer_name(given)
        except InputError as error:
            return await self.show(request, complaint=str(error))
        response = RedirectResponse("/review", 303)
        remember(response, name)
        return response

    async def leave(self, request: Request) -> Response:
        """Forget the name, and free what this reviewer has open."""
        require_own_page(request)
        store, reviewer = self.store, reviewer_of(request)
        if store is not None and reviewer is not None:
            await run_in_threadpool(store.release, reviewer)
        response = RedirectResponse("/review", 303)
        forget(response)
        return response

    async def examples(self, request: Request, type: str = "") -> Response:
        """Names that are of a type."""
        label, known = type[: pages_desk.MAX_TYPE], self._state.examples()
        names = await run_in_threadpool(pages_desk.examples_of, self.store, label, known, pages_desk.MORE_EXAMPLES)
        return page(request, "examples.html", type=label, names=names)


def add_routes(router: APIRouter, app: FastAPI, state: PagesState) -> None:
    """Add the page."""
    desk = Desk(app, state)

    @router.get("/review")
    async def show(request: Request) -> Response:
        return await desk.show(request)

    router.add_api_route("/review/decide", desk.decide, methods=["POST"])
    router.add_api_route("/review/overrule", desk.overrule, methods=["POST"])
    router.add_api_route("/review/undo", desk.undo, methods=["POST"])
    router.add_api_route("/review/name", desk.name, methods=["POST"])
    router.add_api_route("/review/leave", desk.leave, methods=["POST"])
    router.add_api_route("/review/decisions{suffix}", desk.decisions, methods=["GET"])
    router.add_api_route("/review/examples", desk.examples, methods=["GET"])


def _exported(store: Store, suffix: str) -> IO[bytes]:
    """An open file that has no name any more."""
    from shelfwise.pipelines.review_export import export

    with tempfile.TemporaryDirectory(prefix="shelfwise-") as folder:
        return export(store, Path(folder) / f"decisions{suffix}").out.open("rb")


def _choice(form: FormData) -> Choice:
    """What a form asks for.

    Raises:
        ApiError: 422, it is none of our forms.
    """
    action, _, label = str(form.get("choice", "")).partition(":")
    try:
        return Choice(
            item_id=int(str(form.get("item", ""))[:18]),
            version=int(str(form.get("version", ""))[:18]),
            key=str(form.get("card", ""))[:100],
            action=action,
            type=label[: pages_desk.MAX_TYPE],
            same_name=form.get("same") == "yes" and action != "skip",
        )
    except ValueError as error:
        raise ApiError(422, "invalid_request", "This form is incomplete. Open the review page again.") from error


def _told(choice: Choice, item: Item) -> str:
    """What was done, in words."""
    if choice.action == "skip":
        return f"Skipped: {item.name}."
    others = f", and {item.same_name} others of this name" if choice.same_name and item.same_name else ""
    return f"Stored: {item.name} is {item.settled_type}{others}."
