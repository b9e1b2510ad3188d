"""What several commands need: option types, the console, JSON for machines."""

from __future__ import annotations

import enum
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shelfwise import processes

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

    from shelfwise.config import Columns, TrainConfig
    from shelfwise.pipelines.run import Hooks
    from shelfwise.records import Which


class Precision(str, enum.Enum):
    """Choices of --precision."""

    auto = "auto"
    bf16 = "bf16"
    fp16 = "fp16"
    fp32 = "fp32"


class Arithmetic(str, enum.Enum):
    """Choices of --precision where a finished run answers."""

    auto = "auto"
    bf16 = "bf16"
    fp16 = "fp16"
    fp32 = "fp32"
    fp8 = "fp8"


class Who(str, enum.Enum):
    """Choices of --classifier."""

    auto = "auto"
    model = "model"
    blend = "blend"
    baseline = "baseline"


class Method(str, enum.Enum):
    """Choices of --method."""

    auto = "auto"
    full = "full"
    lora = "lora"
    qlora = "qlora"


class Objective(str, enum.Enum):
    """Choices of --objective."""

    head = "head"
    completion = "completion"


class Strategy(str, enum.Enum):
    """Choices of --strategy."""

    grouped = "grouped"
    random = "random"
    brand = "brand"


CatalogueArgument = Annotated[
    Path, typer.Argument(metavar="CATALOGUE", help="CSV, TSV, JSON Lines, Parquet or XLSX file of products.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document for machines instead of a table.")]
ProductColumn = Annotated[str | None, typer.Option(help="Column of product names. Recognised: product, name, title.")]
TypeColumn = Annotated[
    str | None, typer.Option("--type", help="Column of inventory types. Recognised: type, inventory_type.")
]
BrandColumn = Annotated[str | None, typer.Option(help="Column of brands. Recognised: brand.")]
CategoryColumn = Annotated[str | None, typer.Option(help="Column of categories. Recognised: category.")]
SubCategoryColumn = Annotated[str | None, typer.Option(help="Column of sub-categories. Recognised: sub_category.")]
TextColumns = Annotated[
    str, typer.Option(help="What the model reads: role names joined by commas, as in 'brand,product'.")
]

# Who of a finished run answers.
ClassifierOption = Annotated[
    Who | None,
    typer.Option(
        "--classifier", help="Who answers: the language model, its baseline, or both. Default: what the run chose."
    ),
]

# Options that make or change a run's configuration; None: as the configuration has it.
ModelOption = Annotated[str | None, typer.Option(help="Base model: see 'shelfwise models'; a folder; a hub id; auto.")]
ObjectiveOption = Annotated[Objective | None, typer.Option(help="A classification head, or the label as text.")]
BatchSizeOption = Annotated[int | None, typer.Option(help="Products an optimiser step.")]
MicroBatchSizeOption = Annotated[
    int | None, typer.Option(help="Products a forward pass. Default: what the memory holds.")
]
LoraRankOption = Annotated[int | None, typer.Option(help="Rank of LoRA and QLoRA adapters.")]
ConfigOption = Annotated[Path | None, typer.Option(help="YAML configuration; other options override it.")]
ReadOption = Annotated[str | None, typer.Option(help="What the model reads, as in 'brand,product'.")]


def columns(
    product: str | None, type_: str | None, brand: str | None, category: str | None, sub_category: str | None
) -> Columns:
    """The column options of a command as one value."""
    from shelfwise.config import Columns

    return Columns(product=product, type=type_, brand=brand, category=category, sub_category=sub_category)


def who(classifier: Who | None, baseline: bool) -> Which:
    """Who is to answer; --baseline is short for --classifier baseline."""
    if baseline and classifier not in (None, Who.baseline):
        raise typer.BadParameter(f"asks the baseline, and --classifier the {classifier.value}", param_hint="--baseline")
    return "baseline" if baseline else (classifier or Who.auto).value


def merged_config(path: Path | None, overrides: dict[str, object]) -> TrainConfig:
    """The file's configuration with the options given on the command line in their places; None is not given.

    Raises:
        ConfigError: the file can't be read, or values are wrong.
        ModelNotFoundError: no base model goes by the name there.
    """
    from shelfwise import config as configs

    base = configs.load(path).model_dump() if path else {}
    for key, value in overrides.items():
        if isinstance(value, dict):
            chosen = {name: item for name, item in value.items() if item is not None}
            base[key] = {**(base.get(key) or {}), **chosen}
        elif value is not None:
            base[key] = value
    wanted = configs.parse(base, str(path) if path else "command line")
    _require_model(wanted.model)
    return wanted


def _require_model(name: str) -> None:
    """Refuse a base model that can't be there before anything that takes seconds is imported."""
    from shelfwise.errors import ModelNotFoundError, did_you_mean_beside

    folder = Path(os.path.expanduser(name))
    if name.startswith(("./", "../", "/", "~")) and not folder.is_dir():
        raise ModelNotFoundError(
            f"{name}: there is no such folder.{did_you_mean_beside(folder, folder=True)} Name a folder with a base "
            "model in it, or one of: shelfwise models"
        )
    if name not in ("auto", "baseline"):
        from shelfwise.modeling.registry import require_name  # loads no torch

        require_name(name)


def console(*, stderr: bool = False) -> Console:
    """A console that wraps sanely when its output is no terminal."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, soft_wrap=False)


def print_json(document: Any) -> None:
    """Print one JSON document; non-ASCII text stays as it is."""
    typer.echo(json.dumps(document, ensure_ascii=False, indent=2))


def progress_bar(done: str, speed_period_s: float = 600) -> Progress:
    """A bar on standard error: what is done, the time so far and the time left; silent where there is no terminal.

    Args:
        done: rich's template of what is done, as in ``"{task.completed} rows"``.
        speed_period_s: the rate is an average over so long: a chunk can take a minute on a CPU, and a rate needs
            several.
    """
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    terminal = console(stderr=True)
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=30),
        TextColumn(done),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=terminal,
        transient=True,
        # A log would get the empty line that it leaves; of several processes one speaks for all.
        disable=not (terminal.is_terminal and processes.is_first()),
        speed_estimate_period=speed_period_s,
    )


@contextmanager
def training_progress() -> Iterator[Hooks]:
    """A progress bar on standard error: rate, loss and time left, with a line for each validation."""
    from shelfwise.pipelines.run import Hooks

    bar = progress_bar("{task.completed}/{task.total} steps{task.fields[rate]}{task.fields[loss]}")
    with bar:
        task = bar.add_task("training", total=None, rate="", loss="", visible=False)

        def report(progress: Any) -> None:
            values = progress.values
            if "eval_macro_f1" in values:
                bar.console.print(
                    f"  step {progress.step}: validation accuracy {values['eval_accuracy']:.3f}, macro-F1 "
                    f"{values['eval_macro_f1']:.3f}, loss {values['eval_loss']:.3f}"
                )
                return
            known = [values[name] for name in ("loss", "pretraining_loss") if name in values]
            loss = f", loss {known[0]:.3f}" if known else ""
            speed = bar.tasks[task].speed
            rate = f", {speed:.3g}/s" if speed else ""
            bar.update(task, total=progress.steps, completed=progress.step, rate=rate, loss=loss, visible=True)

        def note(line: str) -> None:
            bar.console.print(line, markup=False, soft_wrap=True)

        yield Hooks(report=report, note=note)
