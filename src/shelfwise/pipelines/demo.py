"""The whole path on the packaged sample: audit, split, train both architectures, evaluate, compare, predict."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from shelfwise import artifact
from shelfwise.config import SplitConfig, TrainConfig, TrainingConfig
from shelfwise.data import sample
from shelfwise.data.audit import audit
from shelfwise.data.catalogue import read_catalogue
from shelfwise.data.split import make_splits
from shelfwise.errors import RunFolderError
from shelfwise.pipelines.compare import Comparison, compare
from shelfwise.pipelines.evaluate import evaluate
from shelfwise.pipelines.predict import PredictionSummary, predict
from shelfwise.pipelines.run import Hooks
from shelfwise.pipelines.train import train

if TYPE_CHECKING:
    from shelfwise.data.audit import Audit

MODELS = ("tiny-llama", "tiny-falcon")
# Chosen on the sample's validation part (docs/lab-notes.md): more epochs gain nothing there.
EPOCHS, BATCH = 12, 64


@dataclass(frozen=True, slots=True)
class DemoResult:
    """What the demo made, and how long it took."""

    audit: Audit
    comparison: Comparison
    predictions: PredictionSummary
    report: Path
    seconds: float


def demo(
    out: Path, *, hooks: Hooks | None = None, step: Callable[[str], None] = lambda _: None, epochs: float = EPOCHS
) -> DemoResult:
    """Run the whole path, offline, on a CPU.

    Args:
        out: a folder to fill; must be new or empty.
        hooks: progress of the trainings.
        step: told the name of each part as it begins.
        epochs: of each training.

    Raises:
        RunFolderError: `out` holds something.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RunFolderError(f"{out}: exists and is not empty. Delete it, or choose another --out.")
    began = time.perf_counter()
    step("reading and auditing the sample catalogue")
    path = sample.catalogue_path()
    catalogue = read_catalogue(path, labels="required")
    splits = make_splits(catalogue, SplitConfig())
    found = audit(catalogue, splits)
    artifact.write_json(out / artifact.SPLIT, splits.to_json())

    runs = []
    for model in MODELS:
        step(f"fine-tuning {model}")
        config = TrainConfig(
            catalogue=path,
            model=model,
            split=SplitConfig(file=out / artifact.SPLIT),
            training=TrainingConfig(epochs=epochs, batch_size=BATCH),
        )
        train(config, out / model, device="cpu", hooks=hooks)
        step(f"evaluating {model}")
        evaluate(out / model, device="cpu")
        runs.append(out / model)

    step("comparing them")
    report = out / "report.html"
    comparison = compare(runs, out=report)
    step("classifying new products")
    predictions = predict(runs[0], sample.new_products_path(), out / "predictions.csv", device="cpu")
    return DemoResult(found, comparison, predictions, report, time.perf_counter() - began)
