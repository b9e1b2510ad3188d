"""*Upload*: a file in, its answers to look through, and to download."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import IO

from fastapi import APIRouter, FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import RedirectResponse, Response
from starlette.types import Message, Receive

from shelfwise.errors import InputError, ShelfwiseError
from shelfwise.review.store import Store
from shelfwise.server import jobs_work
from shelfwise.server.errors import ApiError
from shelfwise.server.jobs import Job, Jobs, NoSuchJobError, TooManyJobsError
from shelfwise.server.jobs_state import SUFFIXES, base_name
from shelfwise.server.jobs_work import DOWNLOADS, Shown, Wanted
from shelfwise.server.pages_files import BLOCK, MEDIA_TYPES, attachment
from shelfwise.server.pages_people import require_own_page
from shelfwise.server.pages_state import PagesState
from shelfwise.server.pages_view import HEADERS, page, problem, wants_fragment

ROWS = 50  # a page
MAX_TYPES = 2_000  # in the list to choose from
MAX_OFFSET = 10_000_000
FORM_BYTES = 64 << 10  # of an upload that are not the file


def add_routes(router: APIRouter, app: FastAPI, state: PagesState) -> None:
    """Add the pages."""
    uploads = Uploads(app, state)
    router.add_api_route("/upload", uploads.show, methods=["GET"])
    router.add_api_route("/upload", uploads.receive, methods=["POST"])
    router.add_api_route("/upload/{job_id}", uploads.job, methods=["GET"])
    router.add_api_route("/upload/{job_id}/result{suffix}", uploads.download, methods=["GET"])
    router.add_api_route("/upload/{job_id}/rejects.csv", uploads.rejects, methods=["GET"])
    router.add_api_route("/upload/{job_id}/review", uploads.review, methods=["POST"])
    router.add_api_route("/upload/{job_id}/delete", uploads.delete, methods=["POST"])


class Uploads:
    """The pages, for one application."""

    def __init__(self, app: FastAPI, state: PagesState) -> None:
        self._app = app
        self._state = state

    async def show(self, request: Request, complaint: str = "", status: int = 200) -> Response:
        """The form, and the files that are there."""
        jobs = self._state.jobs
        return page(
            request,
            "jobs.html" if wants_fragment(request) else "upload.html",
            status=status,
            jobs=jobs.all() if jobs else None,
            limit=jobs.limits.file_bytes if jobs else 0,
            models=self._app.state.service.models(),
            suffixes=SUFFIXES,
            complaint=complaint,
        )

    async def receive(self, request: Request) -> Response:
        """Take a file."""
        require_own_page(request)
        jobs = self._jobs()
        try:
            job = await _received(request, jobs, self._default_model())
        except TooManyJobsError as error:
            return await self._refused(request, str(error), 429)
        except InputError as error:
            return await self._refused(request, str(error), 422)
        except ApiError as error:
            said = str(_too_large(jobs)) if error.status == 413 else error.message
            return await self._refused(request, said, error.status)
        except ShelfwiseError as error:
            return await self._refused(request, f"The file could not be kept: {error}", 503)
        where = f"/upload/{job.id}"
        if wants_fragment(request):
            return Response(status_code=201, headers={**HEADERS, "Location": where})
        return RedirectResponse(where, 303)

    async def _refused(self, request: Request, complaint: str, status: int) -> Response:
        if wants_fragment(request):
            return problem(request, status, "", complaint)
        return await self.show(request, complaint, status)

    async def job(
        self,
        request: Request,
        job_id: str,
        decision: str = "all",
        type: str = "",
        text: str = "",
        offset: int = 0,
        queued: int = -1,
    ) -> Response:
        """One file: its progress, or its answers."""
        try:
            job = self._jobs().get(job_id)
            wanted = _wanted(decision, type, text)
        except InputError as error:
            return problem(request, 404, "Not here.", str(error))
        if job.status != "done":
            return page(request, "progress.html" if wants_fragment(request) else "job.html", job=job)
        start = min(max(offset, 0), MAX_OFFSET)
        try:
            shown = await run_in_threadpool(jobs_work.look, job, self._jobs().result(job_id), wanted, start, ROWS)
        except OSError as error:
            return problem(request, 500, "The answers can't be read.", f"{error.strerror or error}. Upload it again.")
        return page(
            request,
            "result.html",
            job=job,
            wanted=wanted,
            shown=shown,
            types=shown.types[:MAX_TYPES],
            offset=start,
            rows=ROWS,
            downloads=DOWNLOADS,
            store=self._app.state.store is not None,
            queued=queued,
        )

    async def download(
        self, request: Request, job_id: str, suffix: str, decision: str = "all", type: str = "", text: str = ""
    ) -> Response:
        """The answers that are shown, as a file."""
        try:
            job, result = self._jobs().get(job_id), self._jobs().result(job_id)
            if job.status != "done":
                raise NoSuchJobError("There are no answers yet.")
            stream = await run_in_threadpool(_converted, job, result, _wanted(decision, type, text), suffix)
        except (NoSuchJobError, OSError):
            return problem(request, 404, "Not here.", "There are no answers of this upload.")
        except ShelfwiseError as error:
            return problem(request, 422, "This can't be downloaded.", str(error))
        return attachment(stream, f"{job.stem}-types{suffix}", MEDIA_TYPES[suffix])

    async def rejects(self, request: Request, job_id: str) -> Response:
        """The rows that could not be classified, with the reasons."""
        try:
            job = self._jobs().get(job_id)
            stream = self._jobs().rejects(job_id).open("rb")
        except (InputError, OSError):
            return problem(request, 404, "Not here.", "No row of this upload was rejected.")
        return attachment(stream, f"{job.stem}-rejected.csv", MEDIA_TYPES[".csv"])

    async def review(self, request: Request, job_id: str) -> Response:
        """Put the doubtful rows into the review queue; doing it twice adds nothing."""
        require_own_page(request)
        from shelfwise.pipelines.review_load import load_file

        store: Store | None = self._app.state.store
        if store is None:
            return problem(request, 404, "Not here.", "This service has no review queue.")
        try:
            loaded = await run_in_threadpool(load_file, store, self._jobs().result(job_id))
        except ShelfwiseError as error:
            return problem(request, 422, "Nothing was queued.", str(error))
        return RedirectResponse(f"/upload/{job_id}?queued={loaded.items}", 303)

    async def delete(self, request: Request, job_id: str) -> Response:
        """Delete a file and its answers."""
        require_own_page(request)
        try:
            await run_in_threadpool(self._jobs().delete, job_id)
        except InputError as error:
            return problem(request, 409, "Nothing was deleted.", str(error))
        return RedirectResponse("/upload", 303)

    def _jobs(self) -> Jobs:
        if self._state.jobs is None:
            raise ApiError(404, "not_found", "This service keeps no files. Start it with --data DIR.")
        return self._state.jobs

    def _default_model(self) -> str:
        models = self._app.state.service.models()
        if not models:
            raise ApiError(503, "not_ready", "The model is still being loaded. Try again in a moment.")
        return str(models[0].name)


async def _received(request: Request, jobs: Jobs, default_model: str) -> Job:
    """Store the file of a form.

    Raises:
        InputError: there is none, or it can't be taken.
        StorageError: the disk refused.
    """
    too_large = _too_large(jobs)
    most = jobs.limits.file_bytes + FORM_BYTES
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > most:
        raise too_large
    bounded = Request(request.scope, _bounded(request, most, too_large))
    async with bounded.form(max_files=1, max_fields=5, max_part_size=FORM_BYTES) as form:
        file, model = form.get("file"), str(form.get("model") or default_model)
        if file is None or isinstance(file, str) or not file.filename:
            raise InputError("Choose a file first.")
        if model not in {info.name for info in request.app.state.service.models()}:
            raise InputError(f"There is no model '{model[:100]}' here.")

        async def chunks() -> AsyncIterator[bytes]:
            while block := await file.read(BLOCK):
                yield block

        return await jobs.receive(base_name(file.filename), model, chunks())


def _too_large(jobs: Jobs) -> InputError:
    return InputError(f"The file is larger than {jobs.limits.file_bytes >> 20} MiB, the most that is taken here.")


def _bounded(request: Request, most: int, too_large: InputError) -> Receive:
    """The body's messages, until they are too many."""
    taken = 0

    async def receive() -> Message:
        nonlocal taken
        message = await request.receive()
        taken += len(message.get("body", b""))
        if taken > most:
            raise too_large
        return message

    return receive


def _wanted(decision: str, type: str, text: str) -> Wanted:
    shown: Shown = "accept" if decision == "accept" else "review" if decision == "review" else "all"
    return Wanted(shown, type[:1_000], text)


def _converted(job: Job, result: Path, wanted: Wanted, suffix: str) -> IO[bytes]:
    """An open file that has no name any more: it is gone as soon as it is closed, whatever becomes of the client."""
    with jobs_work.download(job, result, wanted, suffix) as path:
        return path.open("rb")
