"""`shelfwise models`."""

from __future__ import annotations

import typer

from shelfwise.cli import _shared


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("models")(command)


def command(as_json: _shared.JsonOption = False) -> None:
    """List the base models that go by a name, and how each would be trained on this machine."""
    from shelfwise.pipelines.models import list_models

    rows = list_models()
    if as_json:
        from dataclasses import asdict

        _shared.print_json([asdict(row) for row in rows])
        return
    from rich.table import Table

    table = Table(title=None, box=None, pad_edge=False)
    for heading in ("name", "parameters", "source", "training here", "about"):
        table.add_column(heading, justify="right" if heading == "parameters" else "left", overflow="fold")
    for row in rows:
        table.add_row(row.name, f"{row.parameters / 1e6:,.0f}M", row.source, row.here, row.about)
    _shared.console().print(table)
    typer.echo("Any folder or hub id of a causal language model works too: --model owner/name")
