"""Several runs in one table: the same recipe under three splits, with and without brands, base model beside base model.

Each line is measured on its own run's held-out rows, so lines of different splits are no contest: they show what a
number depends on. Runs on the same rows are held against each other by `pipelines.compare`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from shelfwise import artifact
from shelfwise import config as configs
from shelfwise.config import Arithmetic
from shelfwise.errors import InputError
from shelfwise.pipelines import breakdown, side_by_side_table
from shelfwise.pipelines.asking import Progress
from shelfwise.pipelines.evaluate import evaluate
from shelfwise.pipelines.evaluation import Evaluation, Standing
from shelfwise.pipelines.side_by_side_table import Line
from shelfwise.storage import require_new


def evaluate_all(
    runs: Sequence[Path],
    catalogue: Path | None = None,
    *,
    out: Path | None = None,
    table: Path | None = None,
    force: bool = False,
    device: str = "auto",
    precision: Arithmetic = "auto",
    date: str | None = None,
    perturb: bool = False,
    strict: bool = False,
    reuse: bool = False,
    note: Callable[[str], None] = lambda _: None,
    progress: Progress | None = None,
) -> tuple[Evaluation, ...]:
    """Evaluate runs one after the other, each into its own folder, and write them as one table.

    Args:
        runs: run folders, all different.
        catalogue: as of `evaluate.evaluate`, for every run.
        out: the evaluation folder, for a single run only; None: each run's own.
        table: a file to write the table to, as JSON, CSV, Markdown or HTML by its suffix; None writes none.
        force: overwrite `table`.
        device: as of `evaluate.evaluate`, as the arguments that follow.
        precision: of a language model's arithmetic.
        date: of the evaluation.
        perturb: also ask for perturbed names.
        strict: refuse leakage.
        reuse: leave a run alone whose evaluation is up to date.
        note: told what `evaluate.evaluate` notes.
        progress: called with the run's name before its classifier's.

    Returns:
        The evaluations in the order of `runs`.

    Raises:
        InputError: a run is named twice or is none, `out` is to hold several, the table's suffix is unknown, or it
            would overwrite a catalogue or, without `force`, another file; nothing was evaluated. Or what
            `evaluate.evaluate` refuses; the runs before it are evaluated.
    """
    if out is not None and len(runs) > 1:
        raise InputError(f"{out}: is one folder for {len(runs)} runs. Leave it out: each goes into its own.")
    if len({run.resolve() for run in runs}) < len(runs):
        raise InputError("A run folder is named twice. Name each once.")
    for run in runs:
        artifact.read_manifest(run, verify=False)
    if table is not None:
        side_by_side_table.require_writable(table)
        _require_no_catalogue(table, [catalogue, *(configs.load(run / artifact.CONFIG).catalogue for run in runs)])
        require_new(table, force=force)
    found = tuple(
        evaluate(
            run,
            catalogue,
            out=out,
            device=device,
            precision=precision,
            date=date,
            perturb=perturb,
            strict=strict,
            reuse=reuse,
            note=note,
            progress=_named(progress, run.resolve().name) if len(runs) > 1 else progress,
        )
        for run in runs
    )
    if table is not None:
        side_by_side_table.write(lines(found), table)
    return found


def _require_no_catalogue(table: Path, catalogues: Sequence[Path | None]) -> None:
    for catalogue in catalogues:
        if catalogue is not None and catalogue.exists() and table.exists() and catalogue.samefile(table):
            raise InputError(f"{table}: the table would overwrite the catalogue. Choose another name for --table.")


def _named(progress: Progress | None, run: str) -> Progress | None:
    """Progress whose classifiers are told by their run, for every run has a baseline."""
    if progress is None:
        return None
    told = progress
    return lambda name, done, total: told(f"{run}: {name}", done, total)


def lines(evaluations: Sequence[Evaluation]) -> list[Line]:
    """Every classifier of every run, the one that the run answers with last; the majority is left out."""
    names = [found.facts.run for found in evaluations]
    titles = names if len(set(names)) == len(names) else [str(found.folder.parent) for found in evaluations]
    return [
        _line(title, found, standing)
        for title, found in zip(titles, evaluations, strict=True)
        for standing in found.standings
        if standing.kind != "majority"
    ]


def _line(run: str, found: Evaluation, standing: Standing) -> Line:
    facts, scores, decisions, intervals = found.facts, standing.scores, standing.decisions, standing.intervals
    accuracy = {band.title: band.accuracy for band in standing.bands}
    accepted = decisions if decisions and decisions.accepted else None
    return Line(
        run=run,
        split=facts.split,
        input="+".join("name" if column == "product" else column for column in facts.text_columns),
        part=facts.part,
        rows=scores.n,
        train_rows=facts.train_rows,
        model=standing.name,
        kind=standing.kind,
        accuracy=scores.accuracy,
        accuracy_low=standing.interval.low,
        accuracy_high=standing.interval.high,
        macro_f1=scores.macro_f1,
        macro_f1_low=intervals.macro_f1.low if intervals else None,
        macro_f1_high=intervals.macro_f1.high if intervals else None,
        accuracy_new_names=standing.new_name_accuracy,
        accuracy_seen_names=accuracy.get(breakdown.SEEN_NAMES),
        accuracy_without_brand=accuracy.get(breakdown.WITHOUT_BRAND),
        ece=scores.ece,
        promise=decisions.promise if decisions else 0.0,
        accepted_share=decisions.accepted_share if decisions else 0.0,
        accepted_precision=accepted.precision if accepted else None,
        accepted_precision_low=accepted.interval.low if accepted else None,
        accepted_precision_high=accepted.interval.high if accepted else None,
        verdict=decisions.verdict if decisions else "nothing accepted",
    )
