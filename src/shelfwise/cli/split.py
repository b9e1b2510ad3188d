"""`shelfwise split`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shelfwise.cli import _shared
from shelfwise.errors import CorruptArtifactError, InputError

if TYPE_CHECKING:
    from shelfwise.config import SplitConfig
    from shelfwise.data.catalogue import Catalogue
    from shelfwise.data.split import Splits


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("split", short_help="Cut a catalogue into three parts.")(command)


def command(
    catalogue: _shared.CatalogueArgument,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder to write split.json in.")],
    strategy: Annotated[
        _shared.Strategy,
        typer.Option(help="grouped: no name in two parts. random: rows. brand: whole brands held out."),
    ] = _shared.Strategy.grouped,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of the draw.")] = 42,
    test_size: Annotated[float, typer.Option(help="Share of all rows, between 0 and 1.")] = 0.2,
    validation_size: Annotated[float, typer.Option(help="Share of the rows left after test, between 0 and 1.")] = 0.1,
    product: _shared.ProductColumn = None,
    type_: _shared.TypeColumn = None,
    brand: _shared.BrandColumn = None,
    force: Annotated[bool, typer.Option("--force", help="Replace another split that is already there.")] = False,
    as_json: _shared.JsonOption = False,
) -> None:
    """Cut a catalogue into train, validation and test, and save which row is where.

    A split that is already there is kept when it is the same one, and never replaced without --force.
    """
    from shelfwise import artifact
    from shelfwise.config import SplitConfig
    from shelfwise.data.catalogue import read_catalogue, require_trainable
    from shelfwise.data.split import make_splits

    if not 0 < test_size < 1:
        raise InputError(f"--test-size is a share between 0 and 1, not {test_size:g}.")
    if not 0 <= validation_size < 1:
        raise InputError(f"--validation-size is a share from 0 (all rows train) to under 1, not {validation_size:g}.")
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: this is a file. Name a folder for --out.")
    config = SplitConfig(strategy=strategy.value, seed=seed, test_size=test_size, validation_size=validation_size)
    columns = _shared.columns(product, type_, brand, None, None)
    read = read_catalogue(catalogue, columns, labels="required")
    require_trainable(read)
    path = out / artifact.SPLIT
    splits = _kept(path, read, config) if path.exists() and not force else None
    reused = splits is not None
    if splits is None:
        splits = make_splits(read, config)
        artifact.write_json(path, splits.to_json())
    if as_json:
        parts = {name: len(rows) for name, rows in splits.rows().items()}
        _shared.print_json({"file": str(path), "reused": reused, "rows": parts, "notes": list(splits.notes)})
        return
    _print(path, read, splits, reused=reused)


def _kept(path: Path, catalogue: Catalogue, config: SplitConfig) -> Splits:
    """The split that is already there.

    Raises:
        InputError: it is another one than the one asked for.
    """
    from shelfwise.data.split import Splits

    advice = "Choose another folder for --out, or replace it with --force."
    try:
        there = Splits.load(path)
    except CorruptArtifactError as error:
        raise CorruptArtifactError(f"{error} {advice}") from error
    if there.fingerprint != catalogue.fingerprint:
        raise InputError(
            f"{path}: there already is a split, of another catalogue or of other columns of this one. {advice}"
        )
    asked = (config.strategy, config.seed, config.test_size, config.validation_size)
    if (there.strategy, there.seed, there.test_size, there.validation_size) != asked:
        raise InputError(f"{path}: there already is a split with other settings ({there.describe()}). {advice}")
    return there


def _print(path: Path, catalogue: Catalogue, splits: Splits, *, reused: bool) -> None:
    from rich.table import Table

    typer.echo(f"{path}: {'reused as it stands; nothing was drawn anew' if reused else 'written'}")
    typer.echo(f"  {catalogue.path.name}, {splits.describe()}\n")
    table = Table(box=None, pad_edge=False, padding=(0, 1))
    table.add_column("part")
    for heading in ("rows", "share", "usable", "types"):
        table.add_column(heading, justify="right")
    parts = splits.parts(catalogue)
    for (name, rows), products in zip(splits.rows().items(), parts[:3], strict=True):
        types = len({product.label for product in products})
        share = f"{len(rows) / catalogue.row_count:.1%}"
        table.add_row(name, f"{len(rows):,}", share, f"{len(products):,}", f"{types:,}")
    _shared.console().print(table)
    typer.echo("")
    for note in splits.notes:
        typer.echo(f"- {note}")
    typer.echo(f"Next: shelfwise train {catalogue.path} --split {path} --model MODEL --out RUN")
