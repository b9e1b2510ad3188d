"""What a job does with its file, and how its result is looked through and handed out."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from shelfwise.classifier import Classifier
from shelfwise.config import Columns
from shelfwise.data.catalogue import recognise
from shelfwise.data.reader import open_rows
from shelfwise.errors import InputError
from shelfwise.server.jobs_state import DOWNLOAD_PREFIX, Job

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow import compute

DOWNLOADS = (".xlsx", ".csv", ".jsonl", ".parquet")
CHUNK_ROWS = 1024  # small, so that those who ask over HTTP meanwhile wait little
TOP_K = 5  # types listed for each row
MAX_SEARCH = 200  # characters
Shown = Literal["all", "accept", "review"]
Report = Callable[[int, "int | None"], None]


def work(job: Job, source: Path, out: Path, report: Report, classifier: Classifier) -> Job:
    """Classify a job's file.

    Args:
        job: as it stands.
        source: the uploaded file.
        out: the Parquet file to write.
        report: told the rows done, and of how many where that is known.
        classifier: the run's.

    Returns:
        The job, done, with its counts.

    Raises:
        InputError: the file is not one of products.
        StorageError: the disk refused.
    """
    from shelfwise.pipelines.predict import expected_rows, predict

    name_column = recognise(open_rows(source).columns, Columns(), source, options=False)["product"]
    expected = expected_rows(source)
    summary = predict(
        Path(),
        source,
        out,
        classifier=classifier,
        chunk_rows=CHUNK_ROWS,
        progress=lambda rows: report(rows, expected),
        resume=True,  # what an earlier service had done
        force=True,  # where that can't be taken up, as after another version of the run was loaded
        top_k=TOP_K,
    )
    named = {ours: summary.renamed.get(ours, ours) for ours in ("predicted_type", "confidence", "decision", "path")}
    return replace(
        job,
        status="done",
        rows_expected=summary.rows,
        rows_done=summary.rows,
        predicted=summary.predicted,
        rejected=summary.rejected,
        accepted=summary.accepted,
        model=summary.model,
        name_column=name_column,
        type_column=named["predicted_type"],
        confidence_column=named["confidence"],
        decision_column=named["decision"],
        path_column=named["path"],
    )


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which rows of a result."""

    decision: Shown = "all"
    type: str = ""  # exactly; "" is any
    text: str = ""  # somewhere in the name, without regard to case

    def __post_init__(self) -> None:
        if self.decision not in ("all", "accept", "review"):
            raise InputError("Rows are shown that are accepted, to review, or all.")
        object.__setattr__(self, "text", self.text.strip()[:MAX_SEARCH])

    @property
    def everything(self) -> bool:
        """Whether nothing is left out."""
        return self == Wanted()


@dataclass(frozen=True, slots=True)
class ResultRow:
    """One answered row."""

    name: str
    type: str
    confidence: float
    decision: str
    path: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ResultPage:
    """Some rows of a result."""

    rows: tuple[ResultRow, ...]
    matching: int  # rows that were wanted, on all pages
    types: tuple[tuple[str, int], ...]  # all answered types of the whole result with their rows, most frequent first


def look(job: Job, result: Path, wanted: Wanted, offset: int, limit: int) -> ResultPage:
    """A page of a result.

    Raises:
        OSError: the result is not there.
    """
    import pyarrow.compute as pc
    from pyarrow import parquet

    columns = [job.name_column, job.type_column, job.confidence_column, job.decision_column, job.path_column]
    table = parquet.read_table(result, columns=columns)
    counts = pc.value_counts(table[job.type_column]).to_pylist()
    types = sorted(((str(c["values"]), int(c["counts"])) for c in counts), key=lambda one: (-one[1], one[0]))
    if not wanted.everything:
        table = table.filter(_condition(job, wanted))
    rows = table.slice(offset, limit).to_pylist()
    shown = tuple(
        ResultRow(
            str(row[job.name_column]),
            str(row[job.type_column]),
            float(row[job.confidence_column]),
            str(row[job.decision_column]),
            tuple(map(str, row[job.path_column])),
        )
        for row in rows
    )
    return ResultPage(shown, table.num_rows, tuple(types))


def _condition(job: Job, wanted: Wanted) -> compute.Expression:
    import pyarrow.compute as pc

    condition = pc.scalar(True)
    if wanted.decision != "all":
        condition &= pc.field(job.decision_column) == wanted.decision
    if wanted.type:
        condition &= pc.field(job.type_column) == wanted.type
    if wanted.text:
        condition &= pc.match_substring(pc.field(job.name_column), wanted.text, ignore_case=True)
    return condition


@contextmanager
def download(job: Job, result: Path, wanted: Wanted, suffix: str) -> Iterator[Path]:
    """The wanted rows as a file of the format that the suffix names; gone when the context is left.

    Cells that a spreadsheet would run as formulas are escaped in CSV and XLSX.

    Raises:
        InputError: another format, or rows that XLSX can't hold.
        StorageError: the disk refused.
    """
    if suffix not in DOWNLOADS:
        raise InputError(f"A result can be had as {', '.join(DOWNLOADS)}.")
    with tempfile.TemporaryDirectory(dir=result.parent, prefix=DOWNLOAD_PREFIX) as folder:
        out = Path(folder) / f"result{suffix}"
        _convert(job, result, wanted, out)
        yield out


def _convert(job: Job, result: Path, wanted: Wanted, out: Path) -> None:
    from pyarrow import dataset

    from shelfwise.artifact import storage_errors
    from shelfwise.data.writer import Cell, Column, open_writer

    source = dataset.dataset(result, format="parquet")
    kinds = {field.name: _kind(field.type) for field in source.schema}
    headings = [Column(name, kind) for name, kind in kinds.items()]
    condition = None if wanted.everything else _condition(job, wanted)
    with storage_errors(out), out.open("wb") as stream, open_writer(stream, out, headings) as write:
        for batch in source.to_batches(filter=condition):
            columns: list[Sequence[Cell]] = [
                [_ranking(cell) for cell in column.to_pylist()] if kinds[name] == "ranking" else column.to_pylist()
                for name, column in zip(batch.schema.names, batch.columns, strict=True)
            ]
            write(list(zip(*columns, strict=True)))


def _kind(kind: pa.DataType) -> Literal["text", "share", "path", "ranking"]:
    """What the writer made this Parquet type of: see the table in `data.writer`."""
    from pyarrow import types

    if types.is_floating(kind):
        return "share"
    if types.is_list(kind):
        return "ranking" if types.is_struct(kind.value_type) else "path"
    return "text"


def _ranking(cell: Sequence[dict[str, str | float]]) -> tuple[tuple[str, float], ...]:
    return tuple((str(entry["type"]), float(entry["confidence"])) for entry in cell)
