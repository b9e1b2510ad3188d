"""`shelfwise train`."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shelfwise import processes
from shelfwise.cli import _shared

if TYPE_CHECKING:
    from shelfwise.config import TrainConfig


class BestMetric(str, enum.Enum):
    """Choices of --best-metric."""

    macro_f1 = "macro_f1"
    loss = "loss"


class Answerer(str, enum.Enum):
    """Choices of --classifier."""

    auto = "auto"
    model = "model"
    blend = "blend"


class Tracker(str, enum.Enum):
    """Choices of --tracker."""

    tensorboard = "tensorboard"
    mlflow = "mlflow"
    wandb = "wandb"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("train", short_help="Fine-tune a base model.")(command)


def command(
    catalogue: Annotated[Path | None, typer.Argument(metavar="CATALOGUE", help="File of labelled products.")] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder to write.")] = None,
    config: _shared.ConfigOption = None,
    model: _shared.ModelOption = None,
    method: Annotated[_shared.Method | None, typer.Option(help="auto chooses by the memory there is.")] = None,
    objective: _shared.ObjectiveOption = None,
    epochs: Annotated[float | None, typer.Option(help="Passes over the training products.")] = None,
    pretraining_epochs: Annotated[
        float | None, typer.Option(help="Passes over bare names before. Default: the base model's recipe.")
    ] = None,
    max_steps: Annotated[int | None, typer.Option(help="Optimiser steps; overrides --epochs.")] = None,
    batch_size: _shared.BatchSizeOption = None,
    micro_batch_size: _shared.MicroBatchSizeOption = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak rate. Default: the base model's recipe.")] = None,
    layer_decay: Annotated[float | None, typer.Option(help="A layer's rate, as a share of the one above.")] = None,
    weight_decay: Annotated[float | None, typer.Option(help="AdamW's; not on norms and biases.")] = None,
    lora_r: _shared.LoraRankOption = None,
    precision: Annotated[_shared.Precision | None, typer.Option(help="auto chooses by the hardware.")] = None,
    gradient_checkpointing: Annotated[
        bool | None, typer.Option(help="Less memory, a third more time. Default: where memory is short.")
    ] = None,
    best_metric: Annotated[BestMetric | None, typer.Option(help="On validation; chooses the weights kept.")] = None,
    patience: Annotated[int | None, typer.Option(help="Stop after so many validations without a gain.")] = None,
    classifier: Annotated[
        Answerer | None,
        typer.Option(help="Who answers: the model, or a blend with its baseline. auto: the blend if no worse."),
    ] = None,
    tracker: Annotated[list[Tracker] | None, typer.Option(help="Also log there; can be given more than once.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of weights, order and dropout.")] = None,
    strategy: Annotated[_shared.Strategy | None, typer.Option(help="How the catalogue is split.")] = None,
    split: Annotated[Path | None, typer.Option(help="A saved split.json to reuse.")] = None,
    text_columns: _shared.ReadOption = None,
    product: _shared.ProductColumn = None,
    type_: _shared.TypeColumn = None,
    brand: _shared.BrandColumn = None,
    category: _shared.CategoryColumn = None,
    sub_category: _shared.SubCategoryColumn = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1.")] = "auto",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the unfinished run in --out.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Refuse leakage that makes the numbers wrong.")] = False,
    as_json: _shared.JsonOption = False,
) -> None:
    """Fine-tune a base model on a catalogue, fit the baseline beside it, and weigh the two into a blend."""
    if out is None:
        raise typer.BadParameter("name the run folder to write", param_hint="--out")
    from shelfwise.pipelines import trackers
    from shelfwise.pipelines import train as pipeline

    overrides: dict[str, object] = {
        "catalogue": catalogue,
        "model": model,
        "method": method and method.value,
        "objective": objective and objective.value,
        "text_columns": text_columns,
        "columns": {
            "product": product,
            "type": type_,
            "brand": brand,
            "category": category,
            "sub_category": sub_category,
        },
        "lora": {"r": lora_r},
        "training": {
            "epochs": epochs,
            "pretraining_epochs": pretraining_epochs,
            "max_steps": max_steps,
            "batch_size": batch_size,
            "micro_batch_size": micro_batch_size,
            "learning_rate": learning_rate,
            "layer_decay": layer_decay,
            "weight_decay": weight_decay,
            "precision": precision and precision.value,
            "gradient_checkpointing": gradient_checkpointing,
            "best_metric": best_metric and best_metric.value,
            "patience": patience,
            "seed": seed,
        },
        "trackers": [each.value for each in tracker] if tracker else None,
        "classifier": classifier and classifier.value,
        "split": {"strategy": strategy and strategy.value, "file": split},
    }
    wanted = None if resume else _shared.merged_config(config, overrides)
    if wanted:
        _refuse_ignored(wanted, overrides)
        trackers.require(wanted.trackers, "--tracker" if tracker else f"{config}: trackers:")
    if resume and (config or _given(overrides)):
        raise typer.BadParameter("a resumed run keeps its own configuration: give --out alone", param_hint="--resume")
    with _shared.training_progress() as hooks:
        run = pipeline.train(wanted, out, resume=resume, device=device, strict=strict, hooks=hooks)
    if not processes.is_first():
        return
    if as_json:
        _shared.print_json({"run": str(run.folder), **pipeline.facts(run)})
        return
    took = f"{run.steps} steps in {run.seconds:.0f} s" if run.steps else f"fitted in {run.baseline_seconds or 0:.1f} s"
    typer.echo(f"Run folder: {run.folder}  ({took})")
    if run.blend is not None:
        typer.echo(f"Answers with its {'language model alone' if pipeline.answering(run) == 'model' else 'blend'}.")
    typer.echo(f"Next: shelfwise evaluate {run.folder}")


def _given(values: dict[str, object]) -> list[object]:
    flat: list[object] = []
    for value in values.values():
        flat.extend(value.values() if isinstance(value, dict) else [value])
    return [value for value in flat if value is not None]


def _refuse_ignored(wanted: TrainConfig, given: dict[str, Any]) -> None:
    """Refuse options that would change nothing.

    Args:
        wanted: the configuration as a whole.
        given: what the options alone say; None is not given.

    Raises:
        InputError: a language model's options and a baseline, or a way to split beside a split.
    """
    from shelfwise.errors import InputError

    if wanted.split.file is not None and given["split"]["strategy"]:
        raise InputError(
            f"--strategy: the split is read from {wanted.split.file}, so there is none to make. Leave --strategy out, "
            "or that file."
        )
    of_models = {"method": given["method"], "objective": given["objective"], "lora-r": given["lora"]["r"]}
    of_models |= {**given["training"], "classifier": given["classifier"]}
    ignored = [f"--{name.replace('_', '-')}" for name, value in of_models.items() if value not in (None, "auto")]
    if wanted.model == "baseline" and ignored:
        raise InputError(
            f"{', '.join(ignored)}: only a language model has that, and this run is a baseline. Leave that out, or "
            "name a language model with --model."
        )
