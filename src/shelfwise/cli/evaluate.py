"""`shelfwise evaluate`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shelfwise.cli import _shared, _standings

if TYPE_CHECKING:
    from shelfwise.pipelines.evaluation import Evaluation


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("evaluate", short_help="Measure a run on held-out products.")(command)


def command(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders, one or more.")],
    catalogue: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Other labelled products. Default: the run's own test part.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Evaluation folder to write. Default: in the run folder.")
    ] = None,
    table: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also write all runs as one table: .json, .csv, .md or .html."),
    ] = None,
    reuse: Annotated[
        bool, typer.Option("--reuse", help="Leave a run alone whose evaluation is up to date, with the same options.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file of --table.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1.")] = "auto",
    precision: Annotated[_shared.Arithmetic, typer.Option(help="Of the model's arithmetic.")] = _shared.Arithmetic.auto,
    perturb: Annotated[
        bool, typer.Option("--perturb", help="Also ask for names with typos, dropped brands and the like.")
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Refuse leakage that makes the numbers wrong.")] = False,
    as_json: _shared.JsonOption = False,
) -> None:
    """Measure a run on products it has not seen, beside its baseline, and write a report.

    Language model, baseline and their blend are all measured; the report is about the one that the run answers with.

    The evaluation folder holds report.html, report.json, confusion.csv, confusion.png, per_type.csv and
    predictions.parquet. A copy of the run's own catalogue is evaluated on its test part, any other on all its labelled
    rows. Several runs, of different splits for instance, are measured one after the other and told in one table; to
    hold runs against each other on the same rows, use compare.
    """
    from shelfwise.pipelines.side_by_side import evaluate_all

    if out is not None and len(runs) > 1:
        raise typer.BadParameter(
            "names one folder, and each of several runs is evaluated into its own", param_hint="--out"
        )
    with _progress() as progress:
        found = evaluate_all(
            runs,
            catalogue,
            out=out,
            table=table,
            force=force,
            device=device,
            precision=precision.value,
            date=datetime.now(timezone.utc).date().isoformat(),
            perturb=perturb,
            strict=strict,
            reuse=reuse,
            note=lambda line: typer.echo(line, err=True),
            progress=progress,
        )
    if as_json:
        _print_json(found)
    elif len(found) == 1:
        _print(found[0])
    else:
        _print_all(found)
    if table is not None and not as_json:
        typer.echo(f"Table: {table}")


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """A bar on standard error: the classifier at work, products done, and the time left."""
    from rich.progress import TaskID

    bar = _shared.progress_bar("{task.completed:,} of {task.total:,} names{task.fields[rate]}")
    tasks: dict[str, TaskID] = {}
    with bar:

        def report(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = bar.add_task(name, total=total, rate="")
            speed = bar.tasks[tasks[name]].speed
            bar.update(tasks[name], completed=done, rate=f", {speed:,.0f}/s" if speed else "")

        yield report


def _print(found: Evaluation) -> None:
    """The table, what it means, and where the rest is."""
    from shelfwise.pipelines import report

    facts = found.facts
    what = "held-out products" if facts.part == "test" else "products"
    typer.echo(f"{facts.rows:,} {what} of {facts.catalogue}, {facts.n_labels:,} inventory types")
    if facts.unknown_types:
        rows = sum(unknown.rows for unknown in facts.unknown_types)
        first = ", ".join(f"'{unknown.label}'" for unknown in facts.unknown_types[:3])
        typer.echo(
            f"{rows:,} of them are of {len(facts.unknown_types):,} types that this run was never taught, such as "
            f"{first}; they count as wrong."
        )
    typer.echo()
    _shared.console().print(_standings.table([(standing.name, standing) for standing in found.standings]))
    typer.echo()
    _standings.print_bands(found.standings)
    _standings.print_robustness(found.robustness)
    _standings.print_leakage(found.leakage)
    if about := report.about_blend(found):
        typer.echo(about)
    verdict = report.verdict(found)
    typer.echo(f"{verdict.title} {verdict.text}")
    typer.echo(f"Report: {found.folder / 'report.html'}")


def _print_all(found: Sequence[Evaluation]) -> None:
    """Several runs as one table, and where their reports are."""
    from shelfwise.pipelines.side_by_side import lines

    _shared.console().print(_standings.side_by_side(lines(found)))
    typer.echo()
    for each in found:
        typer.echo(f"Report: {each.folder / 'report.html'}")


def _print_json(found: Sequence[Evaluation]) -> None:
    """One run as its report.json; several as their reports and the table."""
    if len(found) == 1:
        _shared.print_json(found[0].to_json())
        return
    from dataclasses import asdict

    from shelfwise.pipelines.side_by_side import lines

    table = [asdict(line) for line in lines(found)]
    _shared.print_json({"evaluations": [each.to_json() for each in found], "table": table})
