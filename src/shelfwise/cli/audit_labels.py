"""`shelfwise audit-labels`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from shelfwise.cli import _shared
from shelfwise.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from rich.table import Table

    from shelfwise.config import Role
    from shelfwise.pipelines.label_audit import LabelAudit, Suspect

_MERGES = 10


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("audit-labels", short_help="Products whose type is probably wrong.")(command)


def command(
    catalogue: _shared.CatalogueArgument,
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="File to write: .csv, .tsv, .jsonl, .parquet or .xlsx; replaced.")
    ],
    folds: Annotated[int, typer.Option(min=2, max=50, help="Parts that take turns in being judged.")] = 5,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of the folds and of the fits.")] = 0,
    product: _shared.ProductColumn = None,
    type_: Annotated[
        str | None, typer.Option("--type", help="Column of inventory types. Recognised: type, inventory_type.")
    ] = None,
    brand: _shared.BrandColumn = None,
    category: _shared.CategoryColumn = None,
    sub_category: _shared.SubCategoryColumn = None,
    text_columns: _shared.TextColumns = "product",
    limit: Annotated[int, typer.Option(min=0, help="Suspects to print; the file holds all.")] = 10,
    as_json: _shared.JsonOption = False,
) -> None:
    """Find the products whose inventory type is probably wrong, and write them for a person to settle.

    The linear baseline judges each product without having seen its name. Listed are probable label errors, names that
    carry several types, and types so alike that they could be one. The catalogue itself is not changed.
    """
    from shelfwise.pipelines.label_audit import audit_labels

    columns = _shared.columns(product, type_, brand, category, sub_category)
    with _progress() as progress:
        found = audit_labels(
            catalogue, columns, _roles(text_columns), folds=folds, seed=seed, out=out, progress=progress
        )
    if as_json:
        _shared.print_json(found.to_json(limit))
    else:
        _print(found, limit)


def _roles(text: str) -> tuple[Role, ...]:
    from typing import get_args

    from shelfwise.config import Role

    names, known = tuple(part.strip() for part in text.split(",")), get_args(Role)
    for name in names:
        if name not in known:
            raise InputError(f"--text-columns: '{name}' is none of {', '.join(known)}.{did_you_mean(name, known)}")
    return cast("tuple[Role, ...]", names)


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """A bar on standard error: folds done, and the time left."""
    # A fold of a large catalogue takes minutes.
    bar = _shared.progress_bar("{task.completed} of {task.total} folds", speed_period_s=3600)
    with bar:
        task = bar.add_task("judging", total=None)
        yield lambda done, folds: bar.update(task, completed=done, total=folds)


def _print(found: LabelAudit, limit: int) -> None:
    errors, conflicts = found.count("probable label error"), found.count("conflicting name")
    typer.echo(f"{found.catalogue.name}: {found.rows:,} products with an inventory type, judged in {found.folds} folds")
    typer.echo(f"  {found.agreement:.1%} carry the type that the baseline finds most probable without having seen them")
    if found.unjudged:
        typer.echo(f"  {found.unjudged:,} are of types that occur under a single name: nothing to judge them by")
    typer.echo(f"  {errors:,} probable label errors, {conflicts:,} rows of names that carry several types\n")
    if found.suspects[:limit]:
        _shared.console().print(_table(found.suspects[:limit]))
        if len(found.suspects) > limit:
            typer.echo(f"and {len(found.suspects) - limit:,} more")
        typer.echo("")
    if found.merges:
        typer.echo("Types that could be one, for each is often taken for the other:")
        for merge in found.merges[:_MERGES]:
            typer.echo(
                f"  {merge.first} / {merge.second}: {merge.first_as_second:,} of {merge.first_rows:,} and "
                f"{merge.second_as_first:,} of {merge.second_rows:,}"
            )
        if len(found.merges) > _MERGES:
            typer.echo(f"  and {len(found.merges) - _MERGES:,} more pairs; --json lists all")
        typer.echo("")
    typer.echo(f"{found.out}: {len(found.suspects):,} rows to look at, worst first")


def _table(suspects: tuple[Suspect, ...]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for heading in ("line", "product", "given", "suggested", "reason"):
        table.add_column(heading, overflow="fold")
    table.add_column("score", justify="right", no_wrap=True)
    for suspect in suspects:
        line = suspect.source.rpartition(":")[2]
        cells = (line, suspect.name, suspect.given, suspect.suggested, suspect.reason, f"{suspect.score:.2f}")
        table.add_row(*map(Text, cells))  # names are data: square brackets in one are no markup
    return table
