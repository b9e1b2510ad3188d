"""From a file of products to a file of predictions, in flat memory.

The output has the input's columns in the input's order, as text, then `predict_plan.ADDED`. Rows keep their order. A
row that can't be classified (no name, a wrong number of cells) stands in the rejects file beside the output, with its
source and the reason. Both files appear under their names only when they are whole.
"""

from __future__ import annotations

import itertools
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from shelfwise.artifact import atomic_file, storage_errors
from shelfwise.classifier import Classifier
from shelfwise.config import Columns, Precision
from shelfwise.data.catalogue import product_of
from shelfwise.data.writer import Cell, Column, Write, open_writer
from shelfwise.errors import InputError
from shelfwise.pipelines.predict_plan import Plan, expected_rows, make_plan
from shelfwise.records import Prediction, RawRow, Reject

__all__ = ["PredictionSummary", "expected_rows", "predict"]

REMEMBERED_TEXTS = 200_000  # measured: with the top 3 of each, 135 MiB
FIRST_REJECTS = 5
FIRST_CHUNK_ROWS = 256


@dataclass(frozen=True, slots=True)
class PredictionSummary:
    """What one prediction job did."""

    out: Path
    rejects: Path | None  # None: no row was rejected
    model: str
    rows: int  # data rows of the input; each is predicted or rejected
    predicted: int
    rejected: int
    scored: int  # texts that the model read; one seen among the last `REMEMBERED_TEXTS` is answered from memory
    accepted: int  # predictions whose confidence keeps the run's promise; the others are to be reviewed
    seconds: float  # reading, scoring and writing, without loading the model
    first_rejects: tuple[Reject, ...]
    renamed: Mapping[str, str]  # added columns whose names the input already has, to what they became

    @property
    def accepted_share(self) -> float:
        """Accepted rows of the predicted ones, in [0, 1]; 0 when nothing was predicted."""
        return self.accepted / self.predicted if self.predicted else 0.0

    @property
    def rows_per_s(self) -> float:
        """Mean rate."""
        return self.rows / self.seconds if self.seconds else 0.0

    def to_json(self) -> dict[str, object]:
        """The summary as one JSON document."""
        return {
            "out": str(self.out),
            "rejects": str(self.rejects) if self.rejects else None,
            "model": self.model,
            "rows": self.rows,
            "predicted": self.predicted,
            "rejected": self.rejected,
            "scored": self.scored,
            "accepted": self.accepted,
            "accepted_share": round(self.accepted_share, 4),
            "seconds": round(self.seconds, 3),
            "rows_per_s": round(self.rows_per_s, 1),
            "first_rejects": [{"source": reject.source, "reason": reject.reason} for reject in self.first_rejects],
            "renamed": dict(self.renamed),
        }


def predict(
    run: Path,
    source: Path,
    out: Path,
    *,
    top_k: int = 3,
    columns: Columns | None = None,
    which: Literal["model", "baseline"] = "model",
    device: str = "auto",
    precision: Precision | Literal["auto"] = "auto",
    chunk_rows: int = 8192,
    force: bool = False,
    progress: Callable[[int], None] | None = None,
    classifier: Classifier | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> PredictionSummary:
    """Classify every product of a file.

    Args:
        run: a run folder; not read when a `classifier` is given.
        source: CSV, TSV, JSON Lines, Parquet or XLSX; the text formats may be gzipped.
        out: its suffix gives the format: .csv, .tsv, .jsonl, .parquet or .xlsx.
        top_k: how many types the column `top_k` lists.
        columns: which column plays which role; those left open as `predict_plan.make_plan` says.
        which: the run's model, or the baseline that was fitted beside it.
        device: "auto", "cpu", "cuda", "cuda:1".
        precision: of the model's arithmetic.
        chunk_rows: rows that are read, scored and written together, and so what is held in memory.
        force: overwrite `out` and its rejects file.
        progress: called after each chunk with the number of rows done.
        classifier: one that is already loaded.
        clock: seconds, monotonic.

    Raises:
        InputError: the call, the input or the run is wrong, or `out` stands in the way; told before the model is
            loaded. Also: XLSX can't hold the rows.
        CorruptArtifactError: the run folder is damaged.
        StorageError: the disk refused; nothing was left under the output's names.
    """
    for name, number in (("top_k", top_k), ("chunk_rows", chunk_rows)):
        if number < 1:
            raise InputError(f"{name} is at least 1, not {number}.")
    plan = make_plan(run, source, out, columns=columns or Columns(), force=force, classifier=classifier)
    classifier = classifier or Classifier.load(run, which=which, device=device, precision=precision)
    answers = _Answers(classifier, top_k)
    tally = _Tally()
    started = clock()
    _stream(plan, answers, tally, chunk_rows, progress)
    return PredictionSummary(
        out=out,
        rejects=plan.rejects if tally.rejected else None,
        model=classifier.name,
        rows=tally.rows,
        predicted=tally.predicted,
        rejected=tally.rejected,
        scored=answers.scored,
        accepted=tally.accepted,
        seconds=clock() - started,
        first_rejects=tuple(tally.first_rejects),
        renamed=plan.renamed,
    )


def _stream(
    plan: Plan, answers: _Answers, tally: _Tally, chunk_rows: int, progress: Callable[[int], None] | None
) -> None:
    """Read, score and write, a chunk at a time."""
    model = answers.classifier.name
    write_reject: Write | None = None
    # The formats of both files are completed before either file appears.
    with ExitStack() as files, ExitStack() as formats:
        write = _open(plan.out, plan.headings, files, formats)
        for chunk in _chunks(plan.stream, chunk_rows):
            rows, texts, rejected = _sort_out(chunk, plan)
            predictions = answers.of(texts)
            write([(*row.values.values(), *_cells(p, model)) for row, p in zip(rows, predictions, strict=True)])
            if rejected:
                write_reject = write_reject or _open(plan.rejects, plan.reject_headings, files, formats)
                write_reject([_reject_cells(reject, plan.stream.columns) for reject in rejected])
            tally.add(predictions, rejected)
            if progress is not None:
                progress(tally.rows)
    if write_reject is None:
        plan.rejects.unlink(missing_ok=True)  # an earlier job's, which would be taken for this one's


def _chunks(rows: Iterable[RawRow | Reject], size: int) -> Iterator[list[RawRow | Reject]]:
    """Chunks that double up to `size`: where a model is slow, the first rate is then told soon."""
    left = iter(rows)
    next_size = min(FIRST_CHUNK_ROWS, size)
    while chunk := list(itertools.islice(left, next_size)):
        yield chunk
        next_size = min(2 * next_size, size)


def _sort_out(chunk: Iterable[RawRow | Reject], plan: Plan) -> tuple[list[RawRow], list[str], list[Reject]]:
    """The rows that can be classified, the text of each, and the rejected ones; all in the file's order."""
    rows: list[RawRow] = []
    texts: list[str] = []
    rejected: list[Reject] = []
    for row in chunk:
        if isinstance(row, Reject):
            rejected.append(row)
            continue
        product = product_of(row, plan.roles, plan.text_columns)
        if isinstance(product, Reject):
            rejected.append(product)
        else:
            rows.append(row)
            texts.append(product.text)
    return rows, texts, rejected


def _open(target: Path, columns: Sequence[Column], files: ExitStack, formats: ExitStack) -> Write:
    """Open one output file. What the disk refuses is reported under its own name, whichever file is left first."""
    stream = files.enter_context(atomic_file(target, "wb"))
    formats.enter_context(storage_errors(target))
    write = formats.enter_context(open_writer(stream, target, columns))

    def guarded(rows: Sequence[Sequence[Cell]]) -> None:
        with storage_errors(target):
            write(rows)

    return guarded


def _cells(p: Prediction, model: str) -> tuple[Cell, ...]:
    """One prediction in the order of `predict_plan.ADDED`."""
    return p.label, p.confidence, p.decision, p.level, p.top_k, p.path, p.sure_path, model


def _reject_cells(reject: Reject, columns: Sequence[str]) -> list[Cell]:
    return [reject.source, reject.reason, *(reject.values.get(column, "") for column in columns)]


@dataclass(slots=True)
class _Tally:
    """What has been done so far."""

    predicted: int = 0
    rejected: int = 0
    accepted: int = 0
    first_rejects: list[Reject] = field(default_factory=list)

    @property
    def rows(self) -> int:
        return self.predicted + self.rejected

    def add(self, predictions: Sequence[Prediction], rejected: Sequence[Reject]) -> None:
        self.predicted += len(predictions)
        self.rejected += len(rejected)
        self.accepted += sum(prediction.decision == "accept" for prediction in predictions)
        self.first_rejects.extend(rejected[: FIRST_REJECTS - len(self.first_rejects)])


class _Answers:
    """A classifier that remembers: a text among the last `capacity` different ones is scored once."""

    def __init__(self, classifier: Classifier, top_k: int, capacity: int = REMEMBERED_TEXTS) -> None:
        self.classifier = classifier
        self.scored = 0
        self._top_k = top_k
        self._capacity = capacity
        self._known: OrderedDict[str, Prediction] = OrderedDict()

    def of(self, texts: Sequence[str]) -> list[Prediction]:
        """One prediction a text, in their order."""
        distinct = dict.fromkeys(texts)
        answers = {text: self._known[text] for text in distinct if text in self._known}
        new = [text for text in distinct if text not in answers]
        if new:
            answers.update(zip(new, self.classifier.predict(new, top_k=self._top_k), strict=True))
            self.scored += len(new)
        for text in distinct:
            self._known[text] = answers[text]
            self._known.move_to_end(text)
        while len(self._known) > self._capacity:
            self._known.popitem(last=False)  # the one not seen for the longest time
        return [answers[text] for text in texts]
