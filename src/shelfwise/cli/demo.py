"""`shelfwise demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shelfwise.cli import _comparison, _shared


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("demo", short_help="The whole path on a packaged sample.")(command)


def command(
    out: Annotated[Path, typer.Option(help="Folder to fill; must be new or empty.")] = Path("demo-run"),
) -> None:
    """Run the whole path on the packaged sample: offline, on a CPU, in about two minutes."""
    from shelfwise.pipelines.demo import demo

    with _shared.training_progress() as hooks:
        result = demo(out, hooks=hooks, step=lambda line: hooks.note(f"• {line}"))
    _comparison.print_comparison(result.comparison)
    typer.echo(
        f"\nThe audit has {len(result.audit.findings)} findings on the sample ('shelfwise check' lists them); "
        f"{result.predictions.predicted} new products are classified in {out / 'predictions.csv'}."
    )
    typer.echo(f"Report: {result.report}   ({result.seconds:.0f} s)")
