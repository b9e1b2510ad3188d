"""`shelfwise compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shelfwise.cli import _comparison, _shared


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("compare", short_help="Runs side by side, with significance.")(command)


def command(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN RUN...", help="Evaluated run or evaluation folders.")],
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write the comparison as an HTML file.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file of --out.")] = False,
    price_per_hour: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[RUN=]PRICE",
            help="What an hour of the machine costs, for the cost of a million products. Repeat as RUN=PRICE for "
            "single runs, as in baseline=0.10.",
        ),
    ] = None,
    as_json: _shared.JsonOption = False,
) -> None:
    """Hold runs against each other and their baseline, on the same rows: is the language model worth it, and where.

    Accuracy is tested by McNemar's test, macro-F1 by a paired bootstrap, types and categories by the sign test with
    the false discovery rate held at 5%. Times and costs are those of the machines that evaluated.
    """
    from shelfwise.pipelines.compare import Prices, compare

    found = compare(runs, out=out, force=force, prices=Prices.parse(price_per_hour or []))
    if as_json:
        _shared.print_json(found.to_json())
        return
    _comparison.print_comparison(found)
    if out is not None:
        typer.echo(f"Report: {out}")
