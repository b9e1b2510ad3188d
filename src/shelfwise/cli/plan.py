"""`shelfwise plan`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shelfwise.cli import _shared

if TYPE_CHECKING:
    from shelfwise.pipelines.plan import Plan, Way


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("plan", short_help="Memory and time of a training run, before it.")(command)


def command(
    model: _shared.ModelOption = None,
    method: Annotated[_shared.Method | None, typer.Option(help="auto plans for all of them.")] = None,
    objective: _shared.ObjectiveOption = None,
    gpu: Annotated[str | None, typer.Option(help="Name of a GPU, as in H100, A100-40GB, 'RTX 4090', T4.")] = None,
    gpu_memory: Annotated[
        str | None, typer.Option(help="As in 24GiB. Default: the GPU's, or what is free here.")
    ] = None,
    batch_size: _shared.BatchSizeOption = None,
    micro_batch_size: _shared.MicroBatchSizeOption = None,
    lora_r: _shared.LoraRankOption = None,
    gradient_checkpointing: Annotated[bool | None, typer.Option(help="Default: planned with and without.")] = None,
    catalogue: Annotated[Path | None, typer.Option(help="File of labelled products: their lengths and number.")] = None,
    row_tokens: Annotated[int | None, typer.Option(help="Tokens of the longest row, instead.")] = None,
    config: _shared.ConfigOption = None,
    text_columns: _shared.ReadOption = None,
    product: _shared.ProductColumn = None,
    type_: _shared.TypeColumn = None,
    brand: _shared.BrandColumn = None,
    as_json: _shared.JsonOption = False,
) -> None:
    """Estimate peak memory and time of a training run from the model's configuration alone; no weights are fetched."""
    overrides: dict[str, object] = {
        "catalogue": catalogue,
        "model": model,
        "method": method and method.value,
        "objective": objective and objective.value,
        "text_columns": text_columns,
        "columns": {"product": product, "type": type_, "brand": brand},
        "lora": {"r": lora_r},
        "training": {
            "batch_size": batch_size,
            "micro_batch_size": micro_batch_size,
            "gradient_checkpointing": gradient_checkpointing,
        },
    }
    wanted = _shared.merged_config(config, overrides)
    from shelfwise.pipelines import plan as pipeline  # with torch: what is wrong above is told at once

    size = None if gpu_memory is None else pipeline.parse_memory(gpu_memory)
    found = pipeline.plan(wanted, gpu=gpu, gpu_memory=size, row_tokens=row_tokens)
    if as_json:
        from dataclasses import asdict

        _shared.print_json(asdict(found))
        return
    _print(found)


def _print(plan: Plan) -> None:
    from rich.table import Table

    typer.echo(
        f"{plan.model}, {plan.parameters / 1e9:.3g}B parameters, {plan.objective}, batch of {plan.batch_size}: "
        "estimates, before anything is loaded"
    )
    typer.echo(
        f"Memory: {plan.memory_gib:.1f} GiB of {plan.device}, of which a run plans with {plan.usable_gib:.1f} GiB"
    )
    typer.echo(f"Rows: up to {plan.rows.longest} tokens, {plan.rows.mean:g} on average ({plan.rows.source})\n")
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))  # narrow: all of it in 80 columns
    for heading in ("method", "optimiser", "check-\npoints"):
        table.add_column(heading, no_wrap=True)
    for heading in ("micro-\nbatch", "weights", "gra-\ndients", "opti-\nmiser", "activa-\ntions", "peak\nGiB"):
        table.add_column(heading, justify="right", no_wrap=True)
    epoch = f"{plan.products:,}\nproducts" if plan.rows.products is None else "one\nepoch"
    table.add_column(epoch, justify="right", no_wrap=True)
    for way in plan.ways:
        parts = (way.weights_gib, way.gradients_gib, way.optimizer_gib, way.activations_gib, way.peak_gib)
        table.add_row(
            way.method,
            way.optimizer,
            "yes" if way.gradient_checkpointing else "no",
            str(way.micro_batch_size),
            *(f"{part:.1f}" for part in parts),
            _outcome(way),
            style="bold" if way.chosen and way.fits else None,
        )
    _shared.console().print(table)
    typer.echo("")
    for line in (*plan.advice, *plan.notes):
        typer.echo(f"- {line}")


def _outcome(way: Way) -> str:
    """Whether it fits, and its time in words: 45 s, 3.2 min, 1.5 h; "over" where small micro-batches take longer."""
    if not way.fits:
        return "does not fit"
    if way.seconds is None:
        return "fits"
    for unit, length in (("h", 3600), ("min", 60)):
        if way.seconds >= length:
            said = f"{way.seconds / length:.1f} {unit}"
            break
    else:
        said = f"{way.seconds:.0f} s"
    return f"over {said}" if way.at_least else said
