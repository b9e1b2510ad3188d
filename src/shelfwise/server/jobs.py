"""Uploaded files and what became of them: a folder a job, which survives a restart of the service.

    DATA/jobs/4f0c.../          a number of our own making; nothing that a user names becomes a path
        job.json                what the job is and how far; replaced whole, never written in place
        input.csv               what was uploaded; of its name only the suffix is kept, and that is one of a closed set
        result.parquet          the answers; appears when it is whole
        result.rejects.csv      rows that could not be classified, with the reasons

One thread works through the jobs in the order of their arrival. A job that was waiting or running when the service
ended is taken up when it starts again: finished parts of it are kept where `pipelines.predict` keeps them.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import shutil
import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from shelfwise.errors import InputError, InterruptedRunError, ShelfwiseError, StorageError
from shelfwise.server.jobs_state import DOWNLOAD_PREFIX, STATE, Job, checked_id, suffix_of
from shelfwise.storage import storage_errors

__all__ = ["Job", "Jobs", "Limits", "NoSuchJobError", "TooManyJobsError", "Work"]

_LOG = logging.getLogger(__name__)
LOCK = "lock"
PROGRESS_PERIOD_S = 1.0  # how often progress is written down; a page that asks is told from memory


@dataclass(frozen=True, slots=True)
class Limits:
    """What one service takes."""

    file_bytes: int = 200 << 20
    jobs: int = 100  # kept at once, finished ones included
    waiting: int = 10  # not finished


class NoSuchJobError(InputError):
    """There is no job of this number."""


class TooManyJobsError(InputError):
    """The service keeps, or has waiting, as many jobs as it takes."""


# Works on one job: told the job, its input, where its result goes, and whom to tell of rows done, of so many.
Work = Callable[[Job, Path, Path, Callable[[int, "int | None"], None]], Job]


class Jobs:
    """The jobs of one folder. Every method may be called from any thread."""

    def __init__(
        self, folder: Path, work: Work, limits: Limits = Limits(), clock: Callable[[], float] = time.time
    ) -> None:
        self.limits = limits
        self._folder = folder
        self._work = work
        self._clock = clock
        self._lock = threading.Lock()
        self._jobs: dict[str, Job] = {}
        self._waiting: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._held: IO[str] | None = None
        self._stopping = threading.Event()

    def hold(self) -> None:
        """Make the folder, and take it for this process; the system lets go of it when that dies.

        Raises:
            StorageError: the folder can't be made, or another service works in it.
        """
        import fcntl

        if self._held is not None:
            return
        with storage_errors(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
            stream = (self._folder / LOCK).open("w")
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            stream.close()
            raise StorageError(f"{self._folder}: another service works in this folder. Give each its own.") from error
        self._held = stream

    def start(self) -> None:
        """Take up what an earlier service left, and begin to work.

        Raises:
            StorageError: as `hold`, or the folder can't be read.
        """
        self.hold()
        with storage_errors(self._folder):
            found = [path for path in self._folder.iterdir() if path.is_dir()]
        for path in found:
            _tidy(path)
        loaded = {job.id: job for path in found if path.exists() and (job := self._load(path)) is not None}
        self._jobs = dict(sorted(loaded.items(), key=lambda one: one[1].created_at_s))
        for job in self._jobs.values():
            if not job.ended:
                self._waiting.put(job.id)
        # A daemon: a service that is told to stop does not wait for a file of millions, the next one goes on with it.
        self._thread = threading.Thread(target=self._run, name="shelfwise-jobs", daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float = 0.0) -> None:
        """Begin no further job; the one at work ends after the part that it is at, and the next service goes on."""
        self._stopping.set()
        self._waiting.put(None)
        if self._thread is not None:
            self._thread.join(timeout_s)
        # Not while the thread works: until the process ends the folder is its own.
        if self._held is not None and not (self._thread and self._thread.is_alive()):
            self._held.close()
            self._held = None

    def all(self) -> list[Job]:
        """Newest first."""
        with self._lock:
            return list(reversed(self._jobs.values()))

    def get(self, job_id: str) -> Job:
        """One job as it stands now.

        Raises:
            NoSuchJobError: there is none of this number.
        """
        with self._lock:
            job = self._jobs.get(job_id)
        if job is None:
            raise NoSuchJobError("There is no such upload; it may have been deleted.")
        return job

    def folder(self, job_id: str) -> Path:
        """Where a job's files lie; only of jobs that exist."""
        return self._folder / checked_id(self.get(job_id).id)

    def result(self, job_id: str) -> Path:
        """The answers of a finished job, Parquet."""
        return self.folder(job_id) / "result.parquet"

    def rejects(self, job_id: str) -> Path:
        """The rows that could not be classified; the file is there only if there are any."""
        return self.folder(job_id) / "result.rejects.csv"

    async def receive(self, file_name: str, run: str, chunks: AsyncIterator[bytes]) -> Job:
        """Store an uploaded file, and queue it.

        Args:
            file_name: as the user's computer calls it: shown, never used as a path.
            run: which of the service's runs is to answer.
            chunks: the file.

        Raises:
            InputError: a suffix that can't be read, an empty file, one that is too large.
            TooManyJobsError: too many jobs are kept or waiting.
            StorageError: the disk refused. Nothing is left of the file in any of these cases.
        """
        suffix = suffix_of(file_name)
        self._require_room()
        job = Job(id=uuid.uuid4().hex, file_name=file_name, suffix=suffix, run=run, created_at_s=self._clock())
        with self._staged(job) as folder:
            size = await self._store(folder / f"input{suffix}", file_name, chunks)
            job = replace(job, bytes=size)
            job.save(folder)
        with self._lock:
            self._jobs[job.id] = job
        self._waiting.put(job.id)
        return job

    def delete(self, job_id: str) -> None:
        """Delete a job that has ended, with all its files.

        Raises:
            InputError: it has not ended.
            NoSuchJobError: there is none of this number.
        """
        job, folder = self.get(job_id), self.folder(job_id)
        if not job.ended:
            raise InputError(f"{job.file_name} is still being worked on. Delete it when it has ended.")
        with self._lock:
            self._jobs.pop(job_id, None)
        with contextlib.suppress(OSError):
            (folder / STATE).unlink()  # first: what a killed service leaves of the rest is no job any more
        shutil.rmtree(folder, ignore_errors=True)

    def _require_room(self) -> None:
        with self._lock:
            kept, waiting = len(self._jobs), sum(not job.ended for job in self._jobs.values())
        if waiting >= self.limits.waiting:
            raise TooManyJobsError(f"{waiting} files are waiting already. Try again when some of them have ended.")
        if kept >= self.limits.jobs:
            raise TooManyJobsError(f"{kept} uploads are kept already. Delete some that are no longer needed.")

    @contextmanager
    def _staged(self, job: Job) -> Iterator[Path]:
        """A new job's folder, which is gone again if what fills it fails."""
        folder = self._folder / job.id
        with storage_errors(self._folder):
            folder.mkdir()
        try:
            yield folder
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    async def _store(self, target: Path, file_name: str, chunks: AsyncIterator[bytes]) -> int:
        size = 0
        with storage_errors(target), target.open("wb") as stream:
            async for chunk in chunks:
                size += len(chunk)
                if size > self.limits.file_bytes:
                    raise InputError(
                        f"{file_name} is larger than {self.limits.file_bytes >> 20} MiB, the most that this service "
                        "takes. Split it, or classify it with: shelfwise predict"
                    )
                stream.write(chunk)
            stream.flush()
            os.fsync(stream.fileno())  # who is told that it is here may rely on it
        if not size:
            raise InputError(f"{file_name} is empty (0 bytes).")
        return size

    def _load(self, folder: Path) -> Job | None:
        """A job of an earlier service; None for a folder that holds none."""
        try:
            job = Job.load(folder)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            _LOG.warning("job %s is not readable and left alone (%s)", folder.name, type(error).__name__)
            return None
        return job

    def _keep(self, job: Job, *, write: bool) -> None:
        if write:  # first, so that what a page is told is on disk
            job.save(self._folder / job.id)
        with self._lock:
            self._jobs[job.id] = job

    def _run(self) -> None:
        while (job_id := self._waiting.get()) is not None and not self._stopping.is_set():
            try:
                self._finish(self.get(job_id))
            except StorageError as error:  # the disk refuses even the note that the job failed
                _LOG.error("job %s can't be written down: %s", job_id, error)

    def _finish(self, job: Job) -> None:
        job = replace(job, status="running", started_at_s=self._clock(), rows_done=0)
        self._keep(job, write=True)
        folder, last_written = self._folder / job.id, self._clock()

        def report(rows: int, expected: int | None) -> None:
            nonlocal last_written
            now = self._clock()
            due = now - last_written >= PROGRESS_PERIOD_S
            last_written = now if due else last_written
            self._keep(replace(job, rows_done=rows, rows_expected=expected), write=due)
            if self._stopping.is_set():
                raise InterruptedRunError(f"{job.file_name}: goes on when the service starts again.")

        try:
            ended = self._work(job, folder / f"input{job.suffix}", folder / "result.parquet", report)
        except InterruptedRunError:
            return  # written down as running, so it is taken up
        except ShelfwiseError as error:
            # What a user may read: the file by the name that they know, not by its place on this machine.
            shown = str(error).replace(str(folder / f"input{job.suffix}"), job.file_name).replace(f"{folder}/", "")
            ended = replace(job, status="failed", error=shown)
        except Exception:
            # The thread has to live on for the jobs behind this one.
            _LOG.exception("job %s failed", job.id)
            ended = replace(job, status="failed", error="This failed in a way that was not foreseen; see the log.")
        self._keep(replace(ended, ended_at_s=self._clock()), write=True)


def _tidy(folder: Path) -> None:
    """Remove what a killed service left behind: an upload or a deletion that was cut off, a download half made."""
    if not (folder / STATE).exists():
        shutil.rmtree(folder, ignore_errors=True)
        return
    for path in folder.glob(f"{DOWNLOAD_PREFIX}*"):
        shutil.rmtree(path, ignore_errors=True)
