"""`shelfwise predict`."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shelfwise.cli import _shared

if TYPE_CHECKING:
    from shelfwise.pipelines.predict import PredictionSummary


class Engine(str, enum.Enum):
    """Choices of --engine."""

    local = "local"
    ray = "ray"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("predict", short_help="Classify the products of a file.")(command)


def command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.")],
    source: Annotated[
        Path,
        typer.Argument(
            metavar="INPUT", help="CSV, TSV, JSON Lines, Parquet or XLSX file of products; a folder, or a '*' pattern."
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(metavar="OUTPUT", help="File to write: .csv, .tsv, .jsonl, .parquet, .xlsx; text also .gz, .zst."),
    ],
    top_k: Annotated[int, typer.Option(min=1, help="How many types to list for each product.")] = 3,
    product: _shared.ProductColumn = None,
    brand: _shared.BrandColumn = None,
    category: _shared.CategoryColumn = None,
    sub_category: _shared.SubCategoryColumn = None,
    classifier: _shared.ClassifierOption = None,
    baseline: Annotated[bool, typer.Option("--baseline", help="Short for --classifier baseline.")] = False,
    cascade: Annotated[
        bool,
        typer.Option("--cascade", help="Ask the baseline first, and others only where it keeps no promise."),
    ] = False,
    engine: Annotated[
        Engine, typer.Option(help="Where it is done: on this machine, or on a Ray cluster.")
    ] = Engine.local,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Processes where the baseline alone answers; actors of --engine ray. Default: all cores, GPUs.",
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1.")] = "auto",
    precision: Annotated[_shared.Arithmetic, typer.Option(help="Of the model's arithmetic.")] = _shared.Arithmetic.auto,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the unfinished job of the same call, where there is one.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Overwrite the output and its rejects file, and drop an unfinished job.")
    ] = False,
    as_json: _shared.JsonOption = False,
) -> None:
    """Classify every product of a file, however large.

    INPUT may be a folder, or a pattern in quotes as in 'feeds/*.csv.gz': then OUTPUT is a folder that gets a file for
    each, or one file with the rows of all. A job that was stopped, even by a kill, goes on with --resume from the last
    finished part, and its output is that of an unbroken one, byte by byte.

    A run answers with its language model, or with a blend of that and its linear baseline where the blend did no worse
    on validation; --classifier asks another. With --cascade, the baseline answers the rows where it keeps the promise,
    and who else would answer only the rest. The column model says who answered.

    With --engine ray the work is spread over the Ray cluster that this machine belongs to, and OUTPUT is a folder of
    files whose names in order give the rows in order; its suffix gives their format, as in predictions.parquet.

    The output holds the input's columns, then predicted_type, confidence, decision, level, top_k, path, sure_path and
    model. Rows that can't be classified go to OUTPUT's name with the ending .rejects.csv, with the reason.
    """
    from shelfwise.pipelines.predict import expected_rows, predict
    from shelfwise.pipelines.predict_worker import calm_collector

    which = _shared.who(classifier, baseline)
    if cascade and which != "auto":
        asked = "--baseline" if baseline else "--classifier"
        raise typer.BadParameter("asks one alone, and --cascade two in a row", param_hint=asked)
    options: dict[str, Any] = {
        "top_k": top_k,
        "columns": _shared.columns(product, None, brand, category, sub_category),
        "which": "cascade" if cascade else which,
        "precision": precision.value,
        "force": force,
        "resume": resume,
    }
    with _progress(expected_rows(source)) as progress:
        if engine is Engine.ray:
            from shelfwise.pipelines.ray_predict import Cluster, predict_on_ray

            cluster = Cluster(workers=workers)
            summary = predict_on_ray(run, source, out, cluster=cluster, progress=progress, **options)
        else:
            calm_collector()
            summary = predict(run, source, out, device=device, workers=workers, progress=progress, **options)
    if as_json:
        _shared.print_json(summary.to_json())
    else:
        _print(summary)


@contextmanager
def _progress(rows: int | None) -> Iterator[Callable[[int], None]]:
    """A bar on standard error: rows done, rate, and the time left where the number of rows is known."""
    bar = _shared.progress_bar("{task.completed:,} rows{task.fields[rate]}")
    with bar:
        task = bar.add_task("loading", total=None, rate="")
        begun = False

        def report(done: int) -> None:
            nonlocal begun
            if not begun:  # the first rows may be those of an earlier call, which say nothing of the rate
                begun = True
                bar.reset(task, completed=done, total=rows)
            speed = bar.tasks[task].speed
            rate = f", {speed:,.0f} rows/s" if speed else ""
            bar.update(task, description="predicting", total=rows, completed=done, rate=rate)

        yield report


def _where(summary: PredictionSummary) -> str:
    return str(summary.rejects) if summary.files == 1 else f"{summary.rejects} (*.rejects.csv)"


def _print(summary: PredictionSummary) -> None:
    """The summary for people; every rejected row is in the rejects file, the first ones also here."""
    typer.echo(f"{summary.out}: {summary.rows:,} rows by {summary.model} in {summary.seconds:,.1f} s")
    if summary.files > 1:
        typer.echo(f"  {summary.files:,} files written")
    if summary.resumed:
        typer.echo(f"  {summary.resumed:,} rows were done already")
    if summary.about:
        typer.echo(f"  {summary.about}")
    typer.echo(f"  {summary.predicted:,} predicted, {summary.scored:,} different texts scored")
    if len(summary.by_model) > 1:
        typer.echo("  answered by " + ", ".join(f"{name}: {rows:,}" for name, rows in summary.by_model.items()))
    review = summary.predicted - summary.accepted
    typer.echo(f"  {summary.accepted:,} accepted ({summary.accepted_share:.1%}), {review:,} to review")
    for ours, name in summary.renamed.items():
        typer.echo(f"  the input has a column '{ours}' of its own, so ours is '{name}'")
    if summary.rejects is not None:
        typer.echo(f"  {summary.rejected:,} rejected, all in {_where(summary)}:")
        for reject in summary.first_rejects:
            typer.echo(f"    {reject.source}: {reject.reason}")
        if summary.rejected > len(summary.first_rejects):
            typer.echo(f"    and {summary.rejected - len(summary.first_rejects):,} more")
