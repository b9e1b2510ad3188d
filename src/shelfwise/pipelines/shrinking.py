"""What a run says and writes when the memory is full: a smaller micro-batch, or what else takes less."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from shelfwise import artifact, processes
from shelfwise import config as configs
from shelfwise.config import TrainConfig
from shelfwise.errors import WorkError

if TYPE_CHECKING:
    from shelfwise.modeling.out_of_memory import FittingParts


def watch(out: Path, note: Callable[[str], None]) -> Callable[[int], None]:
    """What a `Job` tells of a smaller micro-batch: it is said, and kept so that a resumed run begins with it."""

    def shrunk(rows: int) -> None:
        path = out / artifact.CONFIG
        config = configs.load(path)
        note(
            f"the memory was full: this step is made again, and all others follow, in micro-batches of {rows}; the "
            f"batch of {config.training.batch_size} stays as it is and nothing is lost"
        )
        if processes.is_first():
            artifact.write_text(path, configs.dump(with_micro_batch(config, rows)))

    return shrunk


def with_micro_batch(config: TrainConfig, rows: int | None) -> TrainConfig:
    """The configuration with another micro-batch, as the one that the memory held."""
    return config.model_copy(update={"training": config.training.model_copy(update={"micro_batch_size": rows})})


@contextmanager
def at_its_end(config: TrainConfig, fitting: FittingParts) -> Iterator[None]:
    """Say what else takes less memory, where a smaller micro-batch is no way out.

    Raises:
        WorkError: the memory is full at one row, or outside the passes over rows: the optimiser's state, validation.
    """
    try:
        yield
    except RuntimeError as error:
        from shelfwise.modeling.out_of_memory import is_out_of_memory

        if not is_out_of_memory(error):
            raise
        raise out_of_memory(config, fitting.micro_batch_size) from error


def out_of_memory(config: TrainConfig, rows: int) -> WorkError:
    """The error of a run for which a smaller micro-batch is no way out.

    Args:
        config: settled.
        rows: the micro-batch at the end.
    """
    training = config.training
    ways = []
    if rows == 1:
        what = "even at a micro-batch of 1"
    elif processes.count() > 1:  # a model in pieces: see `modeling.out_of_memory`
        what = f"at a micro-batch of {rows} on each of {processes.count()} processes"
        ways.append("a smaller --micro-batch-size")
    else:
        what = f"and at a micro-batch of {rows} not for its rows alone"
    if not training.gradient_checkpointing:
        ways.append("--gradient-checkpointing")
    if config.method == "full":
        if training.optimizer == "adamw":
            ways.append("'optimizer: adamw_bf16' under 'training:' in a --config")
        ways.append("--method lora")
    if config.method != "qlora":
        ways.append("--method qlora")
    ways.append("a smaller base model")
    return WorkError(
        f"The memory is full, {what}. What takes less: {', '.join(ways)}. For what fits: shelfwise plan --model "
        f"{config.model}"
    )
