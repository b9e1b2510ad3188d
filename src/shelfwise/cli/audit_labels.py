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
    from shelfwise.pipelines.run import Hooks

_MERGES = 10


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("audit-labels", short_help="Products whose type is probably wrong.")(command)


def command(
    catalogue: _shared.CatalogueArgument,
    out: Annotated[Path, typer.Option(metavar="FILE", help="File to write: .csv, .tsv, .jsonl, .parquet or .xlsx.")],
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file of --out.")] = False,
    folds: Annotated[int, typer.Option(min=2, max=50, help="Parts that take turns in being judged.")] = 5,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of the folds and of the fits.")] = 0,
    product: _shared.ProductColumn = None,
    type_: _shared.TypeColumn = None,
    brand: _shared.BrandColumn = None,
    category: _shared.CategoryColumn = None,
    sub_category: _shared.SubCategoryColumn = None,
    text_columns: Annotated[
        str | None, typer.Option(help="What is read of a row, as in 'brand,product'. Default: product.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="What judges: a base model, trained anew for each fold. Default: the baseline.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="YAML configuration of that model's training.")
    ] = None,
    epochs: Annotated[float | None, typer.Option(help="Passes of that model over the other folds.")] = None,
    precision: Annotated[_shared.Precision | None, typer.Option(help="Of that model's arithmetic.")] = None,
    device: Annotated[str, typer.Option(help="Of that model: auto, cpu, cuda.")] = "auto",
    limit: Annotated[int, typer.Option(min=0, help="Suspects to print; the file holds all.")] = 10,
    as_json: _shared.JsonOption = False,
) -> None:
    """Find the products whose inventory type is probably wrong, and write them for a person to settle.

    The linear baseline, or a language model, judges each product without having seen its name. Listed are probable
    label errors, names that carry several types, and types so alike that they could be one. The catalogue itself is not
    changed.
    """
    training = {"epochs": epochs, "precision": precision and precision.value}
    overrides: dict[str, object] = {
        "model": model or (None if config else "baseline"),
        "text_columns": text_columns and _roles(text_columns),
        "columns": {
            "product": product,
            "type": type_,
            "brand": brand,
            "category": category,
            "sub_category": sub_category,
        },
        "training": training,
    }
    wanted = _shared.merged_config(config, overrides)
    if wanted.model == "baseline" and any(training.values()):
        raise InputError("--epochs and --precision are a language model's: name one with --model.")
    from shelfwise.pipelines.label_audit import audit_labels  # takes seconds: what is wrong above is told at once

    with _progress(wanted.model) as (hooks, progress):
        found = audit_labels(
            catalogue,
            wanted.columns,
            wanted.text_columns,
            folds=folds,
            seed=seed,
            out=out,
            force=force,
            config=wanted,
            device=device,
            hooks=hooks,
            progress=progress,
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
def _progress(model: str) -> Iterator[tuple[Hooks | None, Callable[[int, int], None]]]:
    """On standard error: a bar of the folds done, or for a language model a bar for the training of each."""
    if model == "baseline":
        # A fold of a large catalogue takes minutes.
        bar = _shared.progress_bar("{task.completed} of {task.total} folds", speed_period_s=3600)
        with bar:
            task = bar.add_task("judging", total=None)
            yield None, lambda done, folds: bar.update(task, completed=done, total=folds)
        return
    with _shared.training_progress() as hooks:

        def told(done: int, folds: int) -> None:
            if done < folds:
                hooks.note(f"fold {done + 1} of {folds}")

        yield hooks, told


def _print(found: LabelAudit, limit: int) -> None:
    errors, conflicts = found.count("probable label error"), found.count("conflicting name")
    typer.echo(f"{found.catalogue.name}: {found.rows:,} products with an inventory type, judged in {found.folds} folds")
    typer.echo(
        f"  {found.agreement:.1%} carry the type that {found.judge} finds most probable without having seen them"
    )
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
