"""Runs that were evaluated, read back with their answers row by row, and proof that the rows are the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shelfwise import artifact
from shelfwise.errors import CorruptArtifactError, InputError, RunFolderError
from shelfwise.pipelines.evaluation import PREDICTIONS, REPORT_JSON, Evaluation

BASELINE = "baseline"


@dataclass(frozen=True, slots=True)
class Given:
    """What one classifier gave: N types and how sure it was."""

    types: NDArray[np.object_]
    confidence: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class EvaluatedRun:
    """One run's evaluation, with its answers in the order of the rows' ids."""

    name: str  # the folder's, as a caller names the run
    folder: Path
    evaluation: Evaluation
    ids: NDArray[np.int64]  # (N,) ascending
    truth: NDArray[np.object_]  # (N,) type names
    categories: NDArray[np.object_] | None  # (N,) of the truth, None in places; None in older evaluations
    subject: Given
    baseline: Given | None  # of the baseline beside a model or a blend

    @classmethod
    def load(cls, run: Path, name: str) -> EvaluatedRun:
        """Read a run folder's evaluation, or an evaluation folder.

        Raises:
            RunFolderError: it has not been evaluated, or is no run.
            CorruptArtifactError: the evaluation can't be read.
        """
        folder = run if (run / REPORT_JSON).is_file() else run / artifact.EVALUATION
        if not (folder / REPORT_JSON).is_file():
            artifact.read_manifest(run, verify=False)
            raise RunFolderError(f"{run}: has not been evaluated. Run first: shelfwise evaluate {run}")
        evaluation = Evaluation.load(folder)
        has_baseline = evaluation.subject.kind != "baseline" and evaluation.standing("baseline") is not None
        prefixes = ["", "baseline_"] if has_baseline else [""]
        wanted = [prefix + name for prefix in prefixes for name in ("predicted_type", "confidence")]
        columns = _columns(folder / PREDICTIONS, ["id", "true_type", *wanted], ["true_category"], run)
        ids = columns["id"].astype(np.int64)
        order = np.argsort(ids)
        if len(ids) != evaluation.facts.rows or len(np.unique(ids)) < len(ids):
            raise CorruptArtifactError(
                f"{folder / PREDICTIONS}: does not hold the rows of its report. Write it again with: "
                f"shelfwise evaluate {run}"
            )
        given = [
            Given(columns[f"{prefix}predicted_type"][order], columns[f"{prefix}confidence"][order].astype(np.float64))
            for prefix in prefixes
        ]
        categories = columns["true_category"][order] if "true_category" in columns else None
        beside = given[1] if has_baseline else None
        return cls(name, folder, evaluation, ids[order], columns["true_type"][order], categories, given[0], beside)

    @property
    def title(self) -> str:
        """The name as readers see it: where a blend answers, it is not the language model alone that is compared."""
        return f"{self.name} + {BASELINE}" if self.evaluation.subject.kind == "blend" else self.name

    def correct(self, given: Given) -> NDArray[np.bool_]:
        """(N,) whether these answers are right."""
        return np.equal(given.types, self.truth).astype(np.bool_)

    def require_same_rows(self, other: EvaluatedRun) -> None:
        """Refuse to compare answers to different questions.

        Raises:
            InputError: the other run was evaluated on other rows.
        """
        facts, others = self.evaluation.facts, other.evaluation.facts
        if facts.fingerprint != others.fingerprint:
            why = f"{facts.catalogue} and {others.catalogue} differ in their contents"
        elif not np.array_equal(self.ids, other.ids):
            shared = len(np.intersect1d(self.ids, other.ids))
            why = f"they share {shared:,} of {len(self.ids):,} and {len(other.ids):,} rows"
        elif not np.array_equal(self.truth, other.truth):
            why = "the same rows have different types in them"
        else:
            return
        raise InputError(
            f"'{self.title}' and '{other.title}' were not evaluated on the same rows: {why}. Train them on one saved "
            "split (shelfwise split, then --split), or evaluate both with the same --catalogue."
        )


def titles(runs: Sequence[Path]) -> list[str]:
    """The folders' names, with so much of the path before them as tells them apart."""
    parts = [run.resolve().parts for run in runs]
    for length in range(1, max(map(len, parts)) + 1):
        found = ["/".join(part[-length:]) for part in parts]
        if len(set(found)) == len(found) and BASELINE not in found:
            return found
    return [str(run) for run in runs]


def _columns(path: Path, names: Sequence[str], optional: Sequence[str], run: Path) -> dict[str, NDArray[Any]]:
    """Columns of a Parquet file: none of `names` with empty cells, and those of `optional` that are there."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        # Without partitioning=None, Arrow reads columns out of a path such as lr=2e-4/evaluation/.
        there = [name for name in optional if name in parquet.read_schema(path).names]
        table = parquet.read_table(path, columns=[*names, *there], partitioning=None)
        if missing := [name for name in names if table[name].null_count]:
            raise ValueError(f"empty cells in {', '.join(missing)}")
        return {name: table[name].to_numpy() for name in (*names, *there)}
    except (OSError, KeyError, ValueError, pa.ArrowException) as error:
        reason = str(error).partition("\n")[0]  # Arrow adds the whole schema
        raise CorruptArtifactError(
            f"{path}: not readable as predictions ({reason}). Write it again with: shelfwise evaluate {run}"
        ) from error
