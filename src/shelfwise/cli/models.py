"""`shelfwise models`."""

from __future__ import annotations

import typer

from shelfwise.cli import _shared


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("models", short_help="Base models, and what fits here.")(command)


def command(as_json: _shared.JsonOption = False) -> None:
    """List the base models that go by a name, and how each would be trained on this machine."""
    from shelfwise.pipelines.models import list_models

    found = list_models()
    if as_json:
        from dataclasses import asdict

        _shared.print_json(asdict(found))
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in ("name", "size", "trains here by"):
        table.add_column(heading, justify="right" if heading == "size" else "left", no_wrap=True)
    table.add_column("where it comes from, and what it is", overflow="fold")
    for row in found.models:
        about = f"{row.source}\n  {row.about}"
        table.add_row(row.name, _size(row.parameters), ", ".join(row.methods) or "nothing fits", about)
    _shared.console().print(table)
    typer.echo(f"\nJudged by the {found.free_gib:,.0f} GiB free on this machine's {found.device}.")
    typer.echo("Any folder or hub id of a causal language model works too: --model owner/name")


def _size(parameters: int) -> str:
    """Parameters as people say them: 6.7B, 135M."""
    return f"{parameters / 1e9:.1f}B" if parameters >= 1e9 else f"{parameters / 1e6:.0f}M"
