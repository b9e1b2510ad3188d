"""`shelfwise compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shelfwise.cli import _shared, _standings


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("compare", short_help="Runs side by side, with significance.")(command)


def command(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN RUN...", help="Evaluated run or evaluation folders.")],
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write the comparison as an HTML file.")] = None,
    as_json: _shared.JsonOption = False,
) -> None:
    """Hold runs against each other and their baseline, on the same rows, with significance."""
    from shelfwise.pipelines.compare import compare

    found = compare(runs, out=out)
    if as_json:
        _shared.print_json(found.to_json())
        return
    _standings.print_comparison(found)
    if out is not None:
        typer.echo(f"Report: {out}")
