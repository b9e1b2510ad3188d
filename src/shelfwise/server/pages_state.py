"""What the pages keep for as long as the service runs: uploads, traffic counts, and what they are held against."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from fastapi import FastAPI
from fastapi.concurrency import run_in_threadpool

from shelfwise.classifier import Classifier
from shelfwise.errors import ShelfwiseError, WorkError
from shelfwise.server import jobs_work
from shelfwise.server.contract import Answers
from shelfwise.server.errors import ApiError
from shelfwise.server.jobs import Job, Jobs, Limits
from shelfwise.server.monitor import SAVE_PERIOD_S, Traffic
from shelfwise.server.monitor_reference import Reference

_LOG = logging.getLogger(__name__)
STOPPING_S = 10.0  # for the part that a job is at
LOADING_PERIOD_S = 0.5  # how often a job that came before its model asks whether that is loaded


class PagesState:
    """For one application; started and stopped with it."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        self._data: Path | None = app.state.settings.data
        self._traffic: dict[str, Traffic] = {}
        self._references: dict[tuple[str, str], Reference] = {}  # by model and version
        self._tasks: list[asyncio.Task[None]] = []
        self.jobs: Jobs | None = None
        if self._data is not None:
            limits = replace(Limits(), file_bytes=app.state.settings.limits.max_upload_bytes)
            self.jobs = Jobs(self._data / "jobs", self._work, limits)
            self.jobs.hold()  # refused before anything is loaded

    async def start(self) -> None:
        """Take up the jobs of an earlier service, and begin to count."""
        self._app.state.service.observe(self._observe)
        if self.jobs is not None:
            await run_in_threadpool(self.jobs.start)
        self._tasks = [asyncio.create_task(self._save_now_and_then()), asyncio.create_task(self._refer())]

    async def stop(self) -> None:
        """Write down what there is. A job at work is taken up by the next service."""
        for task in self._tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        if self.jobs is not None:
            await run_in_threadpool(self.jobs.stop, STOPPING_S)
        await run_in_threadpool(self._save)

    def traffic(self, model: str) -> Traffic:
        """The counts of one model."""
        if model not in self._traffic:
            path = None
            if self._data is not None:
                name = hashlib.sha256(model.encode("utf-8", "replace")).hexdigest()[:16]
                path = self._data / "traffic" / f"{name}.json"
            self._traffic[model] = Traffic(path)
        return self._traffic[model]

    def reference(self, model: str | None = None) -> Reference:
        """What the run of a model, or of the default one, tells; empty while it is being read."""
        info = next((one for one in self._app.state.service.models() if model in (None, one.name)), None)
        found = self._references.get((info.name, info.version)) if info is not None else None
        return found or Reference()

    def examples(self) -> Mapping[str, tuple[str, ...]]:
        """Names of each type, from the default run."""
        return self.reference().examples or {}

    def timed(self, model: str | None, seconds: float) -> None:
        """Count an answered request."""
        if model:
            self.traffic(model).timed(seconds)

    def _observe(self, answers: Answers) -> None:
        self.traffic(answers.model).observe(answers.answers)

    async def _save_now_and_then(self) -> None:
        while True:
            await asyncio.sleep(SAVE_PERIOD_S)
            await run_in_threadpool(self._save)

    def _save(self) -> None:
        for traffic in list(self._traffic.values()):
            traffic.save()

    async def _refer(self) -> None:
        """Read what new runs tell, as they are loaded; seldom anything to do."""
        while True:
            for info in self._app.state.service.models():
                if (info.name, info.version) in self._references:
                    continue
                try:
                    run = self._app.state.service.run(info.name)
                    found = await run_in_threadpool(Reference.of, run)
                except ShelfwiseError as error:
                    _LOG.warning("the pages know nothing of %s's training: %s", info.name, error)
                    found = Reference()
                self._references[info.name, info.version] = found
                self.traffic(info.name).know(found.known)
            await asyncio.sleep(LOADING_PERIOD_S)

    def _work(self, job: Job, source: Path, out: Path, report: jobs_work.Report) -> Job:
        """In the thread of the jobs."""
        return jobs_work.work(job, source, out, report, self._classifier(job.run))

    def _classifier(self, model: str) -> Classifier:
        """The classifier that answers; waits while it is being loaded.

        Raises:
            WorkError: it is not served any more.
        """
        while (state := self._app.state.service.state) == "loading":
            time.sleep(LOADING_PERIOD_S)
        try:
            found: Classifier = self._app.state.service.classifier(model)
        except ApiError as error:
            raise WorkError(f"The model '{model}' is not served any more ({state}). Upload the file again.") from error
        return found
