"""`shelfwise check`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shelfwise.cli import _shared
from shelfwise.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from rich.table import Table

    from shelfwise.config import Role
    from shelfwise.data.audit import Audit
    from shelfwise.data.catalogue import Catalogue
    from shelfwise.data.findings import Finding
    from shelfwise.data.leakage import Leakage, LeakageFinding

_FIRST_REJECTS = 5
_EXAMPLES = {"problem": 5, "warning": 3, "info": 1}  # by severity; --json prints all that the audit keeps
_STYLES = {"problem": "bold red", "warning": "yellow", "info": "cyan"}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("check", short_help="What is wrong with a catalogue.")(command)


def command(
    catalogue: _shared.CatalogueArgument,
    product: _shared.ProductColumn = None,
    type_: _shared.TypeColumn = None,
    brand: _shared.BrandColumn = None,
    category: _shared.CategoryColumn = None,
    sub_category: _shared.SubCategoryColumn = None,
    text_columns: _shared.TextColumns = "product",
    split: Annotated[Path | None, typer.Option(help="A split.json: also look for leakage between its parts.")] = None,
    rejects: Annotated[Path | None, typer.Option(help="File for the rows that can't be used, as in bad.csv.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file of --rejects.")] = False,
    as_json: _shared.JsonOption = False,
) -> None:
    """Tell what is wrong with a catalogue, row by row, before a model is trained on it."""
    from shelfwise.data.audit import audit
    from shelfwise.data.catalogue import read_catalogue
    from shelfwise.data.leakage import find_leakage
    from shelfwise.data.split import Splits

    splits = Splits.load(split) if split else None
    if rejects:
        _check_target(rejects, catalogue, force)
    columns = _shared.columns(product, type_, brand, category, sub_category)
    roles = _roles(text_columns)
    read = read_catalogue(catalogue, columns, roles)
    found = audit(read, splits)
    leakage = find_leakage(read, splits, roles) if splits and read.labelled else None
    if rejects:
        _write_rejects(read, rejects)
    if as_json:
        first = [{"source": reject.source, "reason": reject.reason} for reject in read.rejects[:_FIRST_REJECTS]]
        written = {"count": len(read.rejects), "file": str(rejects) if rejects else None, "first": first}
        leaks = leakage.to_json() if leakage is not None else None  # None: not looked for
        document = {**found.to_json(), "leakage": leaks, "columns": dict(read.columns), "rejects": written}
        _shared.print_json(document)
        return
    _print(read, found, leakage)
    _print_rejects(read, rejects)


def _roles(text: str) -> tuple[Role, ...]:
    from typing import cast, get_args

    from shelfwise.config import Role

    names = tuple(part.strip() for part in text.split(","))
    known = get_args(Role)
    for name in names:
        if name not in known:
            raise InputError(
                f"--text-columns: '{name}' is none of {', '.join(known)}.{did_you_mean(name, known)} A column of "
                "another name is given its role with --product, --brand, --category or --sub-category."
            )
    return cast("tuple[Role, ...]", names)


def _check_target(target: Path, catalogue: Path, force: bool) -> None:
    from shelfwise.data.writer import format_of
    from shelfwise.storage import require_new

    format_of(target)
    if target.is_dir():
        raise InputError(f"{target}: this is a folder. Name a file in it for --rejects.")
    if target.exists() and catalogue.exists() and target.samefile(catalogue):
        raise InputError(f"{target}: the rejects would overwrite the catalogue. Choose another name for --rejects.")
    require_new(target, force=force)


def _write_rejects(catalogue: Catalogue, target: Path) -> None:
    from shelfwise.artifact import atomic_file
    from shelfwise.data.catalogue import rejects_table
    from shelfwise.data.writer import Column, open_writer

    headings, rows = rejects_table(catalogue.rejects)
    with atomic_file(target, "wb") as stream, open_writer(stream, target, [Column(name) for name in headings]) as write:
        write(rows)


def _print(catalogue: Catalogue, found: Audit, leakage: Leakage | None) -> None:
    typer.echo(f"{found.path.name}: {_counted(found.rows, 'row')}, {found.products:,} usable")
    counts = (
        (found.types, "inventory type"),
        (found.brands, "brand"),
        (found.categories, "category"),
        (found.sub_categories, "sub-category"),
    )
    typer.echo("  " + (", ".join(_counted(count, noun) for count, noun in counts if count) or "names alone"))
    columns = (f"{role} from '{name}'" if role != name else role for role, name in catalogue.columns.items())
    typer.echo(f"  columns used: {', '.join(columns)}")
    if found.largest_type and found.best_accuracy is not None:
        name, rows = found.largest_type
        typer.echo(f"  largest type: {name}, {_counted(rows, 'row')} ({rows / found.labelled:.1%})")
        typer.echo(f"  best accuracy that the text alone allows: {found.best_accuracy:.1%}")
    else:
        typer.echo("  no inventory types: its products can be predicted, but nothing can be trained on it")
    typer.echo("")
    findings: list[Finding | LeakageFinding] = [*found.findings, *(leakage.findings if leakage else ())]
    findings.sort(key=lambda finding: list(_EXAMPLES).index(finding.severity))
    if findings:
        _shared.console().print(_table(findings))
    else:
        typer.echo("Nothing found that needs attention.")


def _counted(count: int, noun: str) -> str:
    if count == 1:
        return f"1 {noun}"
    return f"{count:,} {noun[:-1]}ies" if noun.endswith("y") else f"{count:,} {noun}s"


def _table(findings: Sequence[Finding | LeakageFinding]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(overflow="fold")
    for finding in findings:
        text = Text(finding.message)
        for example in finding.examples[: _EXAMPLES[finding.severity]]:
            line = example.source.rpartition(":")[2]
            text.append(f"\nline {line}", style="bold").append(f"  {example.what}", style="dim")
        table.add_row(Text(finding.severity, style=_STYLES[finding.severity]), Text(f"{finding.count:,}"), text)
    return table


def _print_rejects(catalogue: Catalogue, target: Path | None) -> None:
    rejected = len(catalogue.rejects)
    if rejected:
        typer.echo(f"\n{rejected:,} of {catalogue.row_count:,} rows can't be used:")
        for reject in catalogue.rejects[:_FIRST_REJECTS]:
            typer.echo(f"  {reject.source}: {reject.reason}")
        if rejected > _FIRST_REJECTS:
            typer.echo(f"  and {rejected - _FIRST_REJECTS:,} more")
        typer.echo(f"All of them are in {target}" if target else "Write all of them to a file with --rejects FILE.")
    elif target:
        typer.echo(f"\nNo row was rejected; {target} holds a header alone.")
