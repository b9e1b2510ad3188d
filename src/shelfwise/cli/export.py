"""`shelfwise export`."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shelfwise.cli import _shared

if TYPE_CHECKING:
    from shelfwise.pipelines.export import Exported


class Dtype(str, enum.Enum):
    """Choices of --dtype."""

    bf16 = "bf16"
    fp16 = "fp16"
    fp32 = "fp32"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("export", short_help="Write a run's model for plain transformers and vLLM.")(command)


def command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder to write; new or empty.")],
    dtype: Annotated[
        Dtype | None, typer.Option(help="Of the weights. Default: as the run saved them, or was trained.")
    ] = None,
    names: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Products to make the proof on. Default: the run's validation.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1.")] = "auto",
    as_json: _shared.JsonOption = False,
) -> None:
    """Write a run's model as a plain transformers folder, adapters merged, with proof that it answers as the run does.

    The folder loads with AutoModelForSequenceClassification (objective head) or AutoModelForCausalLM (completion), and
    in vLLM; its README.md has the lines. parity.json tells the largest difference of any probability, and how many
    names got another type. Where a type changes by more than rounding explains, nothing is written.
    """
    from shelfwise.pipelines.export import export

    exported = export(
        run,
        out,
        dtype=dtype.value if dtype else None,
        names=names,
        device=device,
        step=lambda what: typer.echo(what, err=True),
    )
    if as_json:
        _shared.print_json(exported.to_json())
    else:
        _print(exported)


def _print(exported: Exported) -> None:
    if exported.left_out:
        typer.echo(exported.left_out)
    typer.echo(f"{exported.folder}: {exported.dtype}, proven on {exported.names:,} names ({exported.names_of})")
    for found in exported.comparisons:
        ties = f", {found.ties:,} ties within {exported.margin}" if found.ties else ""
        typer.echo(
            f"  {found.first} against {found.second}: {found.names:,} names, probabilities differ by at most "
            f"{found.largest_difference:.2g}, {found.flipped:,} types changed{ties}"
        )
