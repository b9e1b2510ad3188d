"""From a file of products to a file of predictions, in flat memory, and safe against a kill.

The output has the input's columns in the input's order, as text, then `predict_plan.ADDED`. Rows keep their order. A
row that can't be classified (no name, a wrong number of cells) stands in the rejects file beside the output, with its
source and the reason. Both files appear under their names only when they are whole.

Until then each finished part lies in a hidden folder beside the output (`predict_parts`). A resumed job reads on behind
the last of them, and its output is that of an unbroken job, byte by byte.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from shelfwise.classifier import Classifier
from shelfwise.config import Arithmetic, Columns
from shelfwise.errors import InputError
from shelfwise.pipelines.predict_answers import Alone
from shelfwise.pipelines.predict_folder import predict_each
from shelfwise.pipelines.predict_inputs import expected_rows, find_inputs, is_several
from shelfwise.pipelines.predict_job import Asked, Job, Progress, Settings
from shelfwise.pipelines.predict_summary import PredictionSummary

__all__ = ["PredictionSummary", "expected_rows", "predict"]


def predict(
    run: Path,
    source: Path,
    out: Path,
    *,
    top_k: int = 3,
    columns: Columns | None = None,
    which: Asked = "auto",
    device: str = "auto",
    precision: Arithmetic = "auto",
    chunk_rows: int | None = None,
    force: bool = False,
    resume: bool = False,
    progress: Progress | None = None,
    classifier: Classifier | None = None,
    workers: int | None = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> PredictionSummary:
    """Classify every product of a file, of a folder of files, or of the files that a pattern finds.

    Args:
        run: a run folder; not read when a `classifier` is given.
        source: CSV, TSV, JSON Lines, Parquet or XLSX; the text formats may be compressed (.gz, .zst). Or a folder, or
            a pattern as in ``feeds/*.csv``.
        out: its suffix gives the format: .csv, .tsv, .jsonl, .parquet or .xlsx; text also as .gz or .zst. For a folder
            or a pattern it may be a folder: then each file gets one of its own name in it.
        top_k: how many types the column `top_k` lists.
        columns: which column plays which role; those left open as `predict_plan.make_plan` says.
        which: the run's model, the baseline that was fitted beside it, their blend, or both in a row
            (`pipelines.cascade`); "auto": as the run itself decided.
        device: "auto", "cpu", "cuda", "cuda:1".
        precision: of the model's arithmetic.
        chunk_rows: rows that are read, scored and written together: what is held in memory, and what a kill can cost;
            None: 8,192 where the baseline alone answers, else 2,048.
        force: overwrite `out` and its rejects file, and throw away what an unfinished job left.
        resume: go on with an unfinished job of the same call, where there is one.
        progress: called with the number of rows done: when a job is taken up again, and after each part.
        classifier: one that is already loaded.
        workers: processes that classify, where the baseline alone answers; None: one for each core where the input is
            large. The output is the same.
        clock: seconds, monotonic.

    Raises:
        InputError: the call, the input or the run is wrong, or `out` or an unfinished job stands in the way; told
            before the model is loaded. Also: XLSX can't hold the rows.
        InterruptedRunError: Ctrl-C; what was done is kept for `resume`.
        CorruptArtifactError: the run folder, or what an unfinished job left, is damaged.
        StorageError: the disk refused; what was done is kept for `resume`.
    """
    for name, number in (("top_k", top_k), ("chunk_rows", chunk_rows), ("workers", workers)):
        if number is not None and number < 1:
            raise InputError(f"{name} is at least 1, not {number}.")
    settings = Settings(which, device, precision, top_k, columns or Columns(), chunk_rows, force, resume, workers)
    job = Job(run, settings, Alone(classifier) if classifier else None, clock)
    if is_several(source) and (out.is_dir() or not out.suffix):
        return predict_each(find_inputs(source), out, job, progress)
    return job.predict(source, out, progress)
