"""The trackers that a run logs to: whether they are installed, and the evaluation's headline numbers in them.

During training transformers' own callbacks log (`modeling.job`); this adds one point a number, at the run's last step,
to the same place: TensorBoard's folder, or a run named as the run folder.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterable
from pathlib import Path

from shelfwise import artifact
from shelfwise.errors import MissingPackageError
from shelfwise.pipelines.evaluation import Evaluation, Standing

TENSORBOARD = "tensorboard"  # folder in `artifact.TRACKERS`; modeling.trainer writes there too


def require(names: Iterable[str], where: str) -> None:
    """Refuse trackers that are not installed.

    Args:
        names: trackers that are wished for.
        where: they are, for the message: "--tracker", "run.yaml: trackers:".

    Raises:
        MissingPackageError: names the first, and how to install all that are missing.
    """
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingPackageError(
            f"{where} {missing[0]}: this package is not installed. Leave it out, or install it: "
            f"pip install 'shelfwise[{','.join(missing)}]'"
        )


def log(run: Path, names: Iterable[str], found: Evaluation, *, step: int, note: Callable[[str], None]) -> None:
    """Log an evaluation's headline numbers.

    A tracker that is not installed is noted and passed over: the machine that evaluates need not be the one that
    trained, and the report has all numbers.

    Args:
        run: the run folder.
        names: trackers of its configuration.
        found: the evaluation of its test part.
        step: the optimiser step that the numbers belong to: the run's last.
        note: told of trackers that are passed over, a line each.

    Raises:
        StorageError: the disk refused TensorBoard's file.
    """
    values = headline(found)
    for name in names:
        if importlib.util.find_spec(name) is None:
            note(f"{name} is not installed here, so it gets no numbers: pip install 'shelfwise[{name}]'")
        else:
            _LOGGERS[name](run, values, step)


def headline(found: Evaluation) -> dict[str, float]:
    """Numbers by their names in a tracker: ``test/...`` of who answers of the run, ``test_baseline/...`` of others."""
    values = _numbers("test", found.subject)
    for standing in found.standings[:-1]:
        if standing.kind != "majority":
            values |= _numbers(f"test_{standing.kind}", standing)
    return values


def _numbers(prefix: str, standing: Standing) -> dict[str, float]:
    scores, decisions = standing.scores, standing.decisions
    values: dict[str, float | None] = {
        "accuracy": scores.accuracy,
        "macro_f1": scores.macro_f1,
        "weighted_f1": scores.weighted_f1,
        "top3_accuracy": scores.top3_accuracy,
        "loss": scores.mean_nll,
        "ece": scores.ece,
        "category_accuracy": standing.category_accuracy,
        "hierarchical_f1": standing.hierarchy.f1 if standing.hierarchy else None,
        "new_name_accuracy": standing.new_name_accuracy,
        "accepted_share": decisions.accepted_share if decisions else None,
        "accepted_precision": decisions.precision if decisions and decisions.accepted else None,
    }
    return {f"{prefix}/{name}": value for name, value in values.items() if value is not None}


def _tensorboard(run: Path, values: dict[str, float], step: int) -> None:
    from torch.utils.tensorboard import SummaryWriter

    # As transformers' callback has it: the variable goes before the run folder.
    folder = os.environ.get("TENSORBOARD_LOGGING_DIR") or run / artifact.TRACKERS / TENSORBOARD
    with artifact.storage_errors(Path(folder)), SummaryWriter(log_dir=str(folder)) as writer:
        for name, value in values.items():
            writer.add_scalar(name, value, step)


def _mlflow(run: Path, values: dict[str, float], step: int) -> None:
    import mlflow

    if experiment := os.environ.get("MLFLOW_EXPERIMENT_NAME"):
        mlflow.set_experiment(experiment)
    with mlflow.start_run(run_name=run.resolve().name):
        mlflow.log_metrics(values, step=step)


def _wandb(run: Path, values: dict[str, float], step: int) -> None:
    import wandb

    # The project that transformers' callback logs to when none is set.
    with wandb.init(project=os.environ.get("WANDB_PROJECT", "huggingface"), name=run.resolve().name) as tracked:
        tracked.log(values, step=step)


_LOGGERS: dict[str, Callable[[Path, dict[str, float], int], None]] = {
    "tensorboard": _tensorboard,
    "mlflow": _mlflow,
    "wandb": _wandb,
}
