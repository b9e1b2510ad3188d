"""The unfinished part of a prediction job: a hidden folder beside the output, safe against a kill at any moment.

    .predictions.csv.parts/
        job.json          what is read and what was asked for; later, that the output is being put in its place
        000000.out        rows as they will stand in the output
        000000.rejects    rows that can't be classified; only where there are any
        000000.answers    what the job remembers of this part; only of the last parts
        000000.json       sizes, hashes and counts of these; a part without it does not exist
        lock              held by the process that works on the job; the system lets go of it when that dies

Every file is on disk before the part's own JSON is, and that appears by a rename. So a kill costs the part at work.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from shelfwise.artifact import storage_errors, write_json
from shelfwise.errors import CorruptArtifactError, InputError, InterruptedRunError, StorageError, WorkError
from shelfwise.pipelines.predict_inputs import rejects_path
from shelfwise.pipelines.predict_tally import Tally

FORMAT = 2  # 1 had answers a line
JOB = "job.json"
LOCK = "lock"
Kind = Literal["out", "rejects", "answers"]
Stage = Literal["working", "placing", "placed"]


@dataclass(frozen=True, slots=True)
class Part:
    """A finished part: the hash and size of each of its files."""

    sha256: Mapping[str, str]
    bytes: Mapping[str, int]
    rows: int


class Parts:
    """The finished parts of one job, in the input's order."""

    def __init__(self, out: Path, job: Mapping[str, object]) -> None:
        self.out = out
        self.folder = parts_folder(out)
        self.stage: Stage = "working"
        self.done: list[Part] = []
        self.tally = Tally()
        self._job = dict(job)

    def commit(self, files: Mapping[Kind, bytes], tally: Tally, remembered: int) -> None:
        """Write the next part; when this returns, no kill can lose it.

        Args:
            files: its files' contents.
            tally: what was done in it.
            remembered: of how many parts, this one included, the answers are kept.

        Raises:
            StorageError: the disk refused; the parts before are as they were.
        """
        number = len(self.done)
        for kind, data in files.items():
            named = self.out if kind != "rejects" else rejects_path(self.out)
            with storage_errors(named):
                _write(self._path(number, kind), data)
        part = Part(
            {kind: hashlib.sha256(data).hexdigest() for kind, data in files.items()},
            {kind: len(data) for kind, data in files.items()},
            tally.rows,
        )
        self._write_json(f"{number:06}.json", {**asdict(part), "tally": asdict(tally)})
        if number >= remembered:
            self._path(number - remembered, "answers").unlink(missing_ok=True)
        self.done.append(part)
        self.tally = self.tally.plus(tally)

    def has(self, kind: Kind) -> list[int]:
        """The numbers of the parts that have such a file."""
        return [number for number, part in enumerate(self.done) if kind in part.sha256]

    def read(self, number: int, kind: Kind) -> bytes:
        """A part's file, compared with its hash.

        Raises:
            CorruptArtifactError: it is missing or changed.
        """
        path = self._path(number, kind)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise CorruptArtifactError(f"{path}: can't be read ({error}). Start over with --force.") from error
        if hashlib.sha256(data).hexdigest() != self.done[number].sha256[kind]:
            raise CorruptArtifactError(f"{path}: changed since it was written. Start over with --force.")
        return data

    def place(self, built: Mapping[Path, Path]) -> None:
        """Put the finished outputs in their places, and clear up; a kill in between is mended by a resumed job.

        Args:
            built: where each output shall stand, and the file in this folder that it is; the last one is the output.
        """
        self._note("placing")
        with storage_errors(self.out):
            for target, staging in built.items():
                os.replace(staging, target)
            _sync(self.out.parent)
        self._note("placed")
        self.clear()

    def clear(self) -> None:
        """Delete the folder; what says what it is goes last."""
        for path in self.folder.iterdir():
            if path.name != JOB:
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        (self.folder / JOB).unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def begin(self) -> None:
        """Start from nothing."""
        for path in self.folder.iterdir():
            if path.name != LOCK:
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        self.done, self.tally, self.stage = [], Tally(), "working"
        try:
            self._note("working")
        except StorageError:
            self.clear()
            raise

    def restore(self) -> None:
        """Take up the parts that are there.

        Raises:
            InputError: they are of another job: other files, other options or another run.
            CorruptArtifactError: they can't be read.
        """
        stored = _read_job(self.folder)
        wanted = json.loads(json.dumps(self._job))
        if stored["job"] != wanted:
            old = stored["job"] if isinstance(stored["job"], dict) else {}
            differing = sorted(key for key in {*old, *wanted} if old.get(key) != wanted.get(key))
            raise InputError(
                f"{self.out}: the unfinished job there is another one; it differs in: {', '.join(differing)}. Call it "
                "as it was called, or start over with --force."
            )
        self.stage = stored["stage"]
        self.tally = Tally.of(stored["tally"])
        if self.stage != "placed":
            self.tally = Tally()
            self._restore_parts()

    def recount(self) -> None:
        """Count what is on the disk: Ctrl-C may come when a part is there and not counted yet."""
        if self.stage == "working":
            self.done, self.tally = [], Tally()
            self._restore_parts()

    def _restore_parts(self) -> None:
        while (marker := self.folder / f"{len(self.done):06}.json").is_file():
            try:
                stored = json.loads(marker.read_bytes())
                part = Part(dict(stored["sha256"]), dict(stored["bytes"]), int(stored["rows"]))
                self.tally = self.tally.plus(Tally.of(stored["tally"]))
            except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
                raise CorruptArtifactError(f"{marker}: not readable ({error}). Start over with --force.") from error
            self.done.append(part)

    def _note(self, stage: Stage) -> None:
        self.stage = stage
        tally = asdict(self.tally)
        self._write_json(JOB, {"format": FORMAT, "stage": stage, "tally": tally, "job": self._job})

    def _write_json(self, name: str, document: Mapping[str, object]) -> None:
        path = self.folder / name
        try:
            write_json(path, document)
        except StorageError as error:  # the name that users know is the output's
            raise StorageError(str(error).replace(str(path), str(self.out))) from error

    def _path(self, number: int, kind: Kind) -> Path:
        return self.folder / f"{number:06}.{kind}"


def parts_folder(out: Path) -> Path:
    """Where the unfinished job of an output lies."""
    return out.with_name(f".{out.name}.parts")


def may_replace(out: Path) -> bool:
    """Whether an unfinished job was already putting its output in place, so that what stands there may be its own."""
    try:
        return bool(_read_job(parts_folder(out))["stage"] != "working")
    except WorkError:
        return False


@contextmanager
def opened(out: Path, job: Mapping[str, object], *, resume: bool, force: bool) -> Iterator[Parts]:
    """Open the parts of a job, new or taken up again, for this process alone.

    Left with an error, finished parts stay for `resume`; without any, and when the input itself is wrong, nothing does.

    Args:
        out: the output.
        job: what the result depends on; compared when the job is resumed. JSON values.
        resume: go on with an unfinished job where there is one.
        force: throw an unfinished job away where it can't be resumed, or is not to be.

    Raises:
        InputError: an unfinished job is there and is neither to be resumed nor thrown away, or is another one.
        InterruptedRunError: Ctrl-C, with parts that are kept.
        StorageError: the disk refused, or another process is at work on this output.
    """
    parts = Parts(out, job)
    with storage_errors(out):
        parts.folder.mkdir(parents=True, exist_ok=True)
    with _locked(parts.folder, out):
        _take_up(parts, resume, force)
        try:
            yield parts
        except InputError:
            parts.clear()
            raise
        except KeyboardInterrupt as error:
            parts.recount()
            if not parts.done:
                raise
            raise InterruptedRunError(f"{out}: interrupted. {_kept(parts)}") from error
        except StorageError as error:
            raise StorageError(f"{error} {_kept(parts)}" if parts.done else str(error)) from error
        finally:
            if not parts.done and parts.folder.exists() and parts.stage == "working":
                parts.clear()


def _take_up(parts: Parts, resume: bool, force: bool) -> None:
    there = (parts.folder / JOB).is_file()
    if there and resume:
        try:
            parts.restore()
        except (InputError, CorruptArtifactError):
            if not force:
                raise
            parts.begin()
    elif there and not force:
        raise InputError(
            f"{parts.out}: an unfinished job for this output is there. Go on from where it stopped with --resume, or "
            "start over with --force."
        )
    else:
        parts.begin()


def _kept(parts: Parts) -> str:
    return f"{parts.tally.rows:,} rows are done and kept: the same call with --resume goes on from there."


def _read_job(folder: Path) -> dict[str, Any]:
    try:
        stored: dict[str, Any] = json.loads((folder / JOB).read_bytes())
        if stored["format"] != FORMAT or stored["stage"] not in ("working", "placing", "placed"):
            raise ValueError("of another format")
        Tally.of(stored["tally"])
        _ = stored["job"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptArtifactError(f"{folder / JOB}: not readable ({error}). Start over with --force.") from error
    return stored


@contextmanager
def _locked(folder: Path, out: Path) -> Iterator[None]:
    """Hold the job's lock; a process that was killed holds it no longer."""
    import fcntl

    with (folder / LOCK).open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise StorageError(f"{out}: another process is writing this output. Wait for it, or end it.") from error
        yield


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
