"""Runs side by side on the same rows, with the baseline once, and tests of their differences."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shelfwise import artifact, metrics
from shelfwise.errors import CorruptArtifactError, InputError, RunFolderError
from shelfwise.pipelines import comparison_page
from shelfwise.pipelines.comparison import Comparison, Contestant, Pair
from shelfwise.pipelines.evaluation import PREDICTIONS, REPORT_JSON, Curve, Evaluation, Standing
from shelfwise.pipelines.insights import coverage

__all__ = ["Comparison", "compare"]

BASELINE = "baseline"


@dataclass(frozen=True, slots=True)
class _Evaluated:
    """One run's evaluation, with its answers in the order of the rows' ids."""

    title: str
    folder: Path
    evaluation: Evaluation
    ids: NDArray[np.int64]  # (N,) ascending
    truth: NDArray[np.object_]  # (N,) type names
    answers: dict[str, tuple[NDArray[np.object_], NDArray[np.float64]]]  # by prefix: (N,) types and confidences


def compare(runs: Sequence[Path], *, out: Path | None = None) -> Comparison:
    """Compare evaluated runs.

    Args:
        runs: two or more run folders, or evaluation folders, that were evaluated on the same rows.
        out: an HTML file to write the comparison to, or None. It links to the runs' own reports.

    Raises:
        InputError: fewer than two runs, a run without an evaluation, or evaluations of different rows.
        CorruptArtifactError: an evaluation can't be read.
        StorageError: the disk refused.
    """
    if len(runs) < 2 or len({run.resolve() for run in runs}) < len(runs):
        raise InputError("A comparison needs two different run folders or more.")
    if out is not None and out.is_dir():
        raise InputError(f"{out}: is a folder. Name the HTML file to write.")
    evaluated = [_load(run, title) for run, title in zip(runs, _titles(runs), strict=True)]
    for other in evaluated[1:]:
        _require_same_rows(evaluated[0], other)
    contestants, correct = _contestants(evaluated)
    votes = np.sum(list(correct.values()), axis=0)
    found = Comparison(
        rows=len(evaluated[0].ids),
        majority=evaluated[0].evaluation.standings[0],
        contestants=contestants,
        pairs=_pairs(contestants, correct),
        all_right=int((votes == len(correct)).sum()),
        none_right=int((votes == 0).sum()),
        notes=_notes(evaluated),
    )
    if out is not None:
        artifact.write_text(out, comparison_page.render(found, out.parent))
    return found


def _titles(runs: Sequence[Path]) -> list[str]:
    """The folders' names, with so much of the path before them as tells them apart."""
    parts = [run.resolve().parts for run in runs]
    for length in range(1, max(map(len, parts)) + 1):
        titles = ["/".join(part[-length:]) for part in parts]
        if len(set(titles)) == len(titles) and BASELINE not in titles:
            return titles
    return [str(run) for run in runs]


def _load(run: Path, title: str) -> _Evaluated:
    """Read a run's evaluation."""
    folder = run if (run / REPORT_JSON).is_file() else run / artifact.EVALUATION
    if not (folder / REPORT_JSON).is_file():
        artifact.read_manifest(run, verify=False)
        raise RunFolderError(f"{run}: has not been evaluated. Run first: shelfwise evaluate {run}")
    evaluation = Evaluation.load(folder)
    prefixes = ["", "baseline_"] if evaluation.subject.kind == "model" and evaluation.standing("baseline") else [""]
    wanted = [prefix + name for prefix in prefixes for name in ("predicted_type", "confidence")]
    columns = _columns(folder / PREDICTIONS, ["id", "true_type", *wanted], run)
    ids = columns["id"].astype(np.int64)
    order = np.argsort(ids)
    if len(ids) != evaluation.facts.rows or len(np.unique(ids)) < len(ids):
        raise CorruptArtifactError(
            f"{folder / PREDICTIONS}: does not hold the rows of its report. Write it again with: "
            f"shelfwise evaluate {run}"
        )
    answers = {
        prefix: (columns[f"{prefix}predicted_type"][order], columns[f"{prefix}confidence"][order].astype(np.float64))
        for prefix in prefixes
    }
    return _Evaluated(title, folder, evaluation, ids[order], columns["true_type"][order], answers)


def _columns(path: Path, names: Sequence[str], run: Path) -> dict[str, NDArray[Any]]:
    """Columns of a Parquet file, none of them with empty cells."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        # Without partitioning=None, Arrow reads columns out of a path such as lr=2e-4/evaluation/.
        table = parquet.read_table(path, columns=list(names), partitioning=None)
        if missing := [name for name in names if table[name].null_count]:
            raise ValueError(f"empty cells in {', '.join(missing)}")
        return {name: table[name].to_numpy() for name in names}
    except (OSError, KeyError, ValueError, pa.ArrowException) as error:
        reason = str(error).partition("\n")[0]  # Arrow adds the whole schema
        raise CorruptArtifactError(
            f"{path}: not readable as predictions ({reason}). Write it again with: shelfwise evaluate {run}"
        ) from error


def _require_same_rows(first: _Evaluated, other: _Evaluated) -> None:
    """Refuse to compare answers to different questions."""
    facts, others = first.evaluation.facts, other.evaluation.facts
    if facts.fingerprint != others.fingerprint:
        why = f"{facts.catalogue} and {others.catalogue} differ in their contents"
    elif not np.array_equal(first.ids, other.ids):
        shared = len(np.intersect1d(first.ids, other.ids))
        why = f"they share {shared:,} of {len(first.ids):,} and {len(other.ids):,} rows"
    elif not np.array_equal(first.truth, other.truth):
        why = "the same rows have different types in them"
    else:
        return
    raise InputError(
        f"'{first.title}' and '{other.title}' were not evaluated on the same rows: {why}. Train them on one saved "
        "split (shelfwise split, then --split), or evaluate both with the same --catalogue."
    )


def _contestants(evaluated: Sequence[_Evaluated]) -> tuple[tuple[Contestant, ...], dict[str, NDArray[np.bool_]]]:
    """The baseline once, then the runs; and which rows each gets right."""
    contestants, correct = [], {}
    beside = next((each for each in evaluated if "baseline_" in each.answers), None)
    if beside is not None and not any(_is_baseline(each, beside) for each in evaluated):
        standing = beside.evaluation.standing("baseline")
        if standing is not None:
            contestants.append(_contestant(BASELINE, beside, "baseline_", standing, is_run=False))
            correct[BASELINE] = _correct(beside, "baseline_")
    for each in evaluated:
        contestants.append(_contestant(each.title, each, "", each.evaluation.subject, is_run=True))
        correct[each.title] = _correct(each, "")
    return tuple(contestants), correct


def _is_baseline(run: _Evaluated, beside: _Evaluated) -> bool:
    """Whether a run is the very baseline that stands beside another."""
    return run.evaluation.subject.kind == "baseline" and np.array_equal(
        run.answers[""][0], beside.answers["baseline_"][0]
    )


def _correct(evaluated: _Evaluated, prefix: str) -> NDArray[np.bool_]:
    return np.equal(evaluated.answers[prefix][0], evaluated.truth).astype(np.bool_)


def _contestant(title: str, of: _Evaluated, prefix: str, standing: Standing, *, is_run: bool) -> Contestant:
    confidence, correct = of.answers[prefix][1], _correct(of, prefix)
    curve = Curve(standing.kind, title, metrics.reliability(confidence, correct), coverage(confidence, correct))
    return Contestant(title, standing, of.evaluation.facts, of.folder, curve, is_run)


def _pairs(contestants: Sequence[Contestant], correct: dict[str, NDArray[np.bool_]]) -> tuple[Pair, ...]:
    """Every run against the baseline, then every two runs."""
    yardstick = next((each.title for each in contestants if each.standing.kind == "baseline"), None)
    others = [each.title for each in contestants if each.title != yardstick]
    couples = [(title, yardstick) for title in others if yardstick is not None]
    couples += itertools.combinations(others, 2)
    return tuple(Pair(a, b, metrics.mcnemar(correct[a], correct[b])) for a, b in couples)


def _notes(evaluated: Sequence[_Evaluated]) -> tuple[str, ...]:
    """What keeps the comparison from being even."""
    notes = []
    read = {each.title: " + ".join(each.evaluation.facts.text_columns) for each in evaluated}
    if len(set(read.values())) > 1:
        told = ", ".join(f"{title}: {columns}" for title, columns in read.items())
        notes.append(f"The runs do not read the same columns ({told}).")
    baselines = [each.answers["baseline_"][0] for each in evaluated if "baseline_" in each.answers]
    if any(not np.array_equal(baselines[0], other) for other in baselines[1:]):
        notes.append(
            "The runs' baselines do not answer alike, so the runs were not trained on the same rows or columns; the "
            "first run's is shown."
        )
    return tuple(notes)
