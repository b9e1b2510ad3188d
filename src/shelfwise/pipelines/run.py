"""What the steps of a training run share: the data side, the outcome, and what a caller watches."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from shelfwise import artifact
from shelfwise import config as configs
from shelfwise.blend import Blend
from shelfwise.calibration import Calibration
from shelfwise.classifier import Scorer
from shelfwise.config import TrainConfig
from shelfwise.data.catalogue import Catalogue, read_catalogue, require_trainable
from shelfwise.data.leakage import Leakage, find_leakage, require_no_leakage
from shelfwise.data.names import name_key
from shelfwise.data.split import Splits, make_splits
from shelfwise.errors import InputError, StorageError
from shelfwise.labels import Labels
from shelfwise.pipelines import leakage_record
from shelfwise.prompts import PromptFormat
from shelfwise.records import Product

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from shelfwise.modeling.job import TrainProgress


@dataclass(frozen=True, slots=True)
class Prepared:
    """The data side of a run."""

    catalogue: Catalogue
    splits: Splits
    labels: Labels
    train: tuple[Product, ...]
    validation: tuple[Product, ...]
    leakage: Leakage = field(default_factory=Leakage)


@dataclass(frozen=True, slots=True)
class TrainedRun:
    """What `train` gives back."""

    folder: Path
    config: TrainConfig  # resolved
    steps: int
    seconds: float  # of optimisation alone, all legs of a resumed run together
    best_metric: float | None  # on validation
    peak_bytes: int | None  # of GPU memory; None on a CPU
    train_rows: int = 0  # products trained on
    baseline_seconds: float | None = None  # of fitting and calibrating the baseline; None without one
    blend: Blend | None = None  # of the two; None where there are not both, or no validation part

    def after(self, earlier: TrainedRun) -> TrainedRun:
        """With the seconds and the peak of a part that went before; steps stay those of the labels."""
        peaks = [run.peak_bytes for run in (earlier, self) if run.peak_bytes is not None]
        return replace(self, seconds=earlier.seconds + self.seconds, peak_bytes=max(peaks, default=None))


@dataclass(frozen=True, slots=True)
class Hooks:
    """How a caller watches a run; the defaults are silent."""

    report: Callable[[TrainProgress], None] = lambda _: None
    note: Callable[[str], None] = lambda _: None


def prepare(config: TrainConfig, hooks: Hooks | None = None, *, strict: bool = False) -> Prepared:
    """Read the catalogue, cut it as the configuration says, and look for leakage.

    Args:
        config: what to read and how to cut it.
        hooks: are told of leakage, in one line.
        strict: refuse leakage that makes the numbers wrong.

    Raises:
        CatalogueError: the file can't be used, there is nothing to learn in it, or `strict` refuses it.
    """
    if config.catalogue is None:
        raise InputError(
            "There is no catalogue: name one on the command line, or as 'catalogue:' in the configuration."
        )
    catalogue = read_catalogue(config.catalogue, config.columns, config.text_columns, labels="required")
    require_trainable(catalogue)
    splits = Splits.load(config.split.file) if config.split.file else make_splits(catalogue, config.split)
    splits.check(catalogue)
    parts = splits.parts(catalogue)
    if not parts.train:
        raise InputError(f"{config.catalogue}: the split leaves no product to train on. Use a smaller split.test_size.")
    leakage = find_leakage(catalogue, splits, config.text_columns)
    tell_leakage(leakage, catalogue, (hooks or Hooks()).note, strict=strict)
    return Prepared(catalogue, splits, Labels.of(catalogue.labelled), parts.train, parts.validation, leakage)


def tell_leakage(leakage: Leakage, catalogue: Catalogue, note: Callable[[str], None], *, strict: bool) -> None:
    """Say in one line what leaks, if anything does.

    Raises:
        CatalogueError: with `strict`, for leakage that makes the numbers wrong; near duplicates alone pass.
    """
    if strict:
        require_no_leakage(leakage, catalogue)
    if leakage:
        note(leakage.summary())


def begin(out: Path, config: TrainConfig, prepared: Prepared) -> None:
    """Write what is known before training; `config.yaml` last, for it marks a run as begun.

    Raises:
        StorageError: the disk refused; what had been written is gone again, so that the same call can be repeated.
    """
    documents = {
        artifact.LABELS: prepared.labels.to_json(),
        artifact.PROMPT: PromptFormat().to_json(),
        artifact.SPLIT: prepared.splits.to_json(),
        artifact.LEAKAGE: leakage_record.document(prepared.leakage, prepared.splits, config.text_columns),
    }
    try:
        for name, document in documents.items():
            artifact.write_json(out / name, document)
        artifact.write_text(out / artifact.CONFIG, configs.dump(config))
    except StorageError:
        for name in documents:
            (out / name).unlink(missing_ok=True)
        with suppress(OSError):
            out.rmdir()
        raise


def targets_of(products: Sequence[Product], labels: Labels) -> list[int]:
    """Label index of each labelled product."""
    return [labels.index(product.label or "", product.source) for product in products]


@dataclass(frozen=True, slots=True)
class Calibrated:
    """A scorer's calibration, and its calibrated answers to the validation part, which a blend is fitted on."""

    calibration: Calibration
    log_probs: NDArray[np.float32] | None  # (N, C) natural logarithms; None where there is no validation part


def calibrate(scorer: Scorer, prepared: Prepared) -> Calibrated:
    """Fit a scorer's temperature and thresholds on the validation part; neutral when there is none."""
    import numpy as np

    if not prepared.validation:
        return Calibrated(Calibration(), None)
    log_probs = scorer.log_probs([product.text for product in prepared.validation])
    targets = np.asarray(targets_of(prepared.validation, prepared.labels))
    calibration = Calibration.fit(
        log_probs, targets, labels=prepared.labels, clusters=held_out_together(prepared.validation, prepared.splits)
    )
    return Calibrated(calibration, calibration.log_probs(log_probs))


def blended(model: Calibrated, baseline: Calibrated, prepared: Prepared) -> tuple[Blend, Calibration] | None:
    """Weigh a language model and its baseline on the validation part; None when there is none."""
    import numpy as np

    from shelfwise import blend

    if model.log_probs is None or baseline.log_probs is None:
        return None
    targets = np.asarray(targets_of(prepared.validation, prepared.labels))
    clusters = held_out_together(prepared.validation, prepared.splits)
    return blend.fit(model.log_probs, baseline.log_probs, targets, prepared.labels, clusters)


def held_out_together(products: Sequence[Product], splits: Splits) -> NDArray[np.int64] | None:
    """(N,) which products were held out together, as numbers; None where each was for itself.

    A split that keeps names or brands whole asks for new names or brands, so its rows don't count each for itself.
    """
    import numpy as np

    if splits.strategy == "random":
        return None
    by_brand = splits.strategy == "brand"
    keys = [("brand", name_key(p.brand)) if by_brand and p.brand else ("name", name_key(p.name)) for p in products]
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    return np.array([numbers[key] for key in keys], np.int64)


def append_metrics(out: Path) -> Callable[[TrainProgress], None]:
    """A reporter that adds each progress report to `metrics.jsonl`."""
    path = out / artifact.METRICS

    def report(progress: TrainProgress) -> None:
        line = json.dumps({"step": progress.step, "epoch": round(progress.epoch, 4), **progress.values})
        with artifact.storage_errors(path), path.open("a", encoding="utf-8") as stream:
            stream.write(line + "\n")

    return report
