"""The tables of an evaluation folder: confusion matrix, per-type scores, every prediction."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from shelfwise import artifact, metrics
from shelfwise.data.writer import defuse
from shelfwise.pipelines import figures
from shelfwise.pipelines.details import Details
from shelfwise.pipelines.evaluation import CONFUSION_CSV, CONFUSION_PNG, PER_TYPE_CSV, PREDICTIONS, TypePromise
from shelfwise.pipelines.scoring import Answers, Rows
from shelfwise.records import LEVELS

if TYPE_CHECKING:
    import pyarrow as pa

DECIMALS = 4


def write(
    folder: Path, answers: Sequence[Answers], rows: Rows, details: Details, promises: Sequence[TypePromise] = ()
) -> None:
    """Write all tables and the picture into `folder`.

    Args:
        folder: that of the evaluation.
        answers: of the baseline, if there is one, and of the subject, which comes last.
        rows: that they answered.
        details: as `insights.details` found them.
        promises: what became of the subject's accepted answers, type by type.
    """
    write_confusion(folder / CONFUSION_CSV, answers[-1], rows)
    write_per_type(folder / PER_TYPE_CSV, details, promises)
    with artifact.atomic_file(folder / CONFUSION_PNG, "wb") as stream:
        stream.write(figures.grid_png(details.grid))
    write_predictions(folder / PREDICTIONS, answers, rows)


def _write_csv(path: Path, lines: Iterable[Sequence[str | int | float]]) -> None:
    with artifact.atomic_file(path, newline="") as stream:
        writer = csv.writer(stream)
        for line in lines:
            writer.writerow([defuse(cell) if isinstance(cell, str) else cell for cell in line])


def write_confusion(path: Path, answers: Answers, rows: Rows) -> None:
    """The full (C, C) matrix with names: rows are the truth, columns the answers."""
    counts = metrics.confusion(rows.targets, answers.predictions, len(rows.names))
    _write_csv(
        path,
        (("true type", *rows.names), *((name, *line) for name, line in zip(rows.names, counts.tolist(), strict=True))),
    )


def write_per_type(path: Path, details: Details, promises: Sequence[TypePromise] = ()) -> None:
    """One line a type: precision, recall, F1, support; the baseline's beside them where there is one.

    Then what became of the accepted answers of the type: their number, the right ones among them, and the verdict on
    the promise, which is empty where none was accepted.
    """
    columns = ["type", "category", "support", "predicted", "precision", "recall", "f1"]
    if details.baseline_types:
        columns += [f"baseline_{name}" for name in ("precision", "recall", "f1")]
    columns += ["accepted", "accepted_right", "promise"]
    accepted = {promise.label: promise for promise in promises}
    lines: list[Sequence[str | int | float]] = [columns]
    for i, found in enumerate(details.types):
        shares = [found.precision, found.recall, found.f1]
        if details.baseline_types:
            beside = details.baseline_types[i]
            shares += [beside.precision, beside.recall, beside.f1]
        rounded = [round(share, DECIMALS) for share in shares]
        promise = accepted.get(found.label)
        held = (promise.accepted, promise.right, promise.verdict) if promise else (0, 0, "")
        lines.append([found.label, details.categories[i] or "", found.support, found.predicted, *rounded, *held])
    _write_csv(path, lines)


def write_predictions(path: Path, answers: Sequence[Answers], rows: Rows) -> None:
    """One line a row: what is true, what the subject answered, and under ``baseline_`` what the baseline did."""
    import pyarrow as pa
    from pyarrow import parquet

    products = rows.products
    columns = {
        "id": pa.array([product.id for product in products], pa.int64()),
        "source": pa.array([product.source for product in products], pa.string()),
        "text": pa.array([product.text for product in products], pa.string()),
        "true_type": pa.array([rows.names[target] for target in rows.targets.tolist()], pa.string()),
        "true_category": pa.array(rows.categories(rows.targets), pa.string()),
        **_columns(answers[-1], rows, ""),
    }
    for each in answers[:-1]:
        columns.update(_columns(each, rows, f"{each.kind}_"))
    with artifact.atomic_file(path, "wb") as stream:
        parquet.write_table(pa.table(columns), stream, compression="zstd")


def _columns(answers: Answers, rows: Rows, prefix: str) -> dict[str, pa.Array]:
    import pyarrow as pa

    names = rows.names
    ranking = pa.list_(pa.struct([("type", pa.string()), ("confidence", pa.float32())]))
    top_k = [
        [{"type": names[label], "confidence": share} for label, share in zip(labels, shares, strict=True)]
        for labels, shares in zip(answers.ranked.answers.tolist(), answers.ranked.probabilities.tolist(), strict=True)
    ]
    levels = [LEVELS[level] for level in answers.level.tolist()]
    columns = {
        "predicted_type": pa.array([names[label] for label in answers.predictions.tolist()], pa.string()),
        "confidence": pa.array(answers.confidence, pa.float32()),
        "decision": pa.array(["accept" if level == "type" else "review" for level in levels], pa.string()),
        "level": pa.array(levels, pa.string()),
        "correct": pa.array(answers.correct(rows), pa.bool_()),
        "true_probability": pa.array(np.exp(answers.ranked.of_truth), pa.float32()),
        "top_k": pa.array(top_k, ranking),
    }
    return {prefix + name: column for name, column in columns.items()}
