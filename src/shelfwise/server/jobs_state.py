"""What is known of one uploaded file, and its state file."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, fields
from pathlib import Path, PureWindowsPath
from typing import Literal

from shelfwise.errors import InputError
from shelfwise.storage import write_json

Status = Literal["waiting", "running", "done", "failed"]
SUFFIXES = (
    ".csv",
    ".tsv",
    ".jsonl",
    ".ndjson",
    ".parquet",
    ".xlsx",
    ".csv.gz",
    ".tsv.gz",
    ".jsonl.gz",
)
STATE = "job.json"
DOWNLOAD_PREFIX = "download-"  # of folders in which a download is made
MAX_STATE_BYTES = 1 << 20
MAX_SHOWN_NAME = 200
_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Job:
    """One uploaded file."""

    id: str  # 32 hex digits, made by the service
    file_name: str  # as the user's computer calls it; shown, never a path
    suffix: str  # one of `SUFFIXES`
    run: str  # the service's run that answers
    created_at_s: float  # seconds since 1970
    bytes: int = 0
    status: Status = "waiting"
    started_at_s: float | None = None
    ended_at_s: float | None = None
    rows_expected: int | None = None  # where the format tells it cheaply
    rows_done: int = 0
    predicted: int = 0
    rejected: int = 0
    accepted: int = 0
    name_column: str = ""  # of the result, and so are these
    type_column: str = "predicted_type"
    confidence_column: str = "confidence"
    decision_column: str = "decision"
    path_column: str = "path"
    model: str = ""
    error: str = ""  # made to be shown

    def __post_init__(self) -> None:
        checked_id(self.id)
        if self.suffix not in SUFFIXES:
            raise InputError(f"'{self.suffix}' is no suffix of a file that can be read.")
        shown = "".join(c for c in self.file_name if c.isprintable())[:MAX_SHOWN_NAME]
        object.__setattr__(self, "file_name", shown or f"upload{self.suffix}")

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.status in ("done", "failed")

    @property
    def to_review(self) -> int:
        """Answers whose confidence is under the threshold."""
        return self.predicted - self.accepted

    @property
    def share_done(self) -> float | None:
        """In [0, 1]; None where it can't be told."""
        if self.status == "done":
            return 1.0
        return min(self.rows_done / self.rows_expected, 1.0) if self.rows_expected else None

    @property
    def stem(self) -> str:
        """The file's name without its suffix, for the name of a download."""
        return self.file_name[: -len(self.suffix)] if self.file_name.lower().endswith(self.suffix) else self.file_name

    def save(self, folder: Path) -> None:
        """Write the state file, whole.

        Raises:
            StorageError: the disk refused.
        """
        write_json(folder / STATE, asdict(self))

    @classmethod
    def load(cls, folder: Path) -> Job:
        """Read a state file.

        Raises:
            OSError, ValueError, KeyError, TypeError: it is none.
        """
        path = folder / STATE
        if path.stat().st_size > MAX_STATE_BYTES:
            raise ValueError("the state file is too large")
        stored = json.loads(path.read_text(encoding="utf-8"))
        known = {field.name for field in fields(cls)}
        job = cls(**{key: value for key, value in stored.items() if key in known})
        if job.id != folder.name:
            raise ValueError("the state file is of another job")
        return job


def checked_id(job_id: str) -> str:
    """The number of a job, or an InputError when it can't be one."""
    if not _ID.fullmatch(job_id):
        raise InputError("This is no number of an upload.")
    return job_id


def base_name(file_name: str) -> str:
    """The last part of what a browser calls the file; some send a whole path."""
    return PureWindowsPath(file_name).name  # which parts names at both kinds of slash


def suffix_of(file_name: str) -> str:
    """Which of `SUFFIXES` the name ends with, the longest first.

    Raises:
        InputError: none of them.
    """
    name = file_name.lower()
    for suffix in sorted(SUFFIXES, key=len, reverse=True):
        if name.endswith(suffix):
            return suffix
    raise InputError(
        f"{file_name or 'The file'}: only CSV, TSV, JSON Lines, Parquet and Excel (.xlsx) files can be read. In a "
        "spreadsheet program, save it as .xlsx or as CSV (UTF-8)."
    )
