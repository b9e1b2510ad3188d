"""Run folders laid out by hand, so that measuring them needs no training."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from unittest import mock

import numpy as np
from numpy.typing import NDArray

from shelfwise import artifact
from shelfwise import config as configs
from shelfwise.baseline import Baseline
from shelfwise.blend import Blend, Score
from shelfwise.calibration import Calibration
from shelfwise.config import SplitConfig
from shelfwise.data.catalogue import read_catalogue
from shelfwise.data.split import make_splits
from shelfwise.labels import Labels
from shelfwise.prompts import PromptFormat

NASTY = "<script>alert(1)</script> Soap"
SHELVES = {
    "Rice": ("Food", "Staples", ["Basmati Rice", "Brown Rice", "Idli Rice"]),
    "Rice, Ready": ("Food", "Meals", ["Lemon Rice Cup", "Rice Bowl", "Brown Rice Bowl"]),
    "Green Tea": ("Drinks", "Tea", ["Tulsi Green Tea", "Mint Green Tea", "Green Tea Bags"]),
    "Soap & Bars": ("Beauty", "Bath", ["Neem Soap", "Rose Soap", NASTY]),
}
BRANDS = ["Amber", "Borealis", "Cobalt", "Dune", "Elan", "Fjord"]
SIZES = ["1 kg", "500 g", "pack of 2"]

Row = tuple[str, str, str, str, str]  # product, category, sub_category, brand, type


def rows() -> list[Row]:
    """216 products of 4 types in 3 categories."""
    return [
        (f"{brand} {name} {size}", category, shelf, brand, label)
        for label, (category, shelf, names) in SHELVES.items()
        for name in names
        for brand in BRANDS
        for size in SIZES
    ]


def write_catalogue(path: Path, lines: Sequence[Row] | None = None) -> Path:
    """A CSV of products."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["product", "category", "sub_category", "brand", "type"])
        writer.writerows(rows() if lines is None else lines)
    return path


def lay_out(
    run: Path,
    catalogue: Path,
    *,
    model: str = "baseline",
    seed: int = 42,
    baseline: bool = True,
    blend: Blend | None = None,
    classifier: Literal["auto", "model", "blend"] = "auto",
) -> Path:
    """A finished run folder: a fitted baseline, and for another model its name only (see `answering`)."""
    read = read_catalogue(catalogue, labels="required")
    splits = make_splits(read, SplitConfig(strategy="random", seed=seed))
    parts, labels = splits.parts(read), Labels.of(read.labelled)
    config = configs.TrainConfig(catalogue=catalogue, model=model, method="lora", classifier=classifier)
    artifact.write_text(run / artifact.CONFIG, configs.dump(config))
    artifact.write_json(run / artifact.LABELS, labels.to_json())
    artifact.write_json(run / artifact.SPLIT, splits.to_json())
    artifact.write_json(run / artifact.PROMPT, PromptFormat().to_json())
    # Of `FirstHit`'s 0.7 for Rice the type is not sure; with 0.1 for the other type of Food, the category is.
    of_model = Calibration(threshold=0.6, promise=0.9, by_type={"Rice": 0.75}, category_threshold=0.75)
    calibrations = {} if model == "baseline" else {"model": of_model}
    if baseline:
        targets = [labels.index(product.label or "") for product in parts.train]
        fitted = Baseline.fit([product.text for product in parts.train], targets, len(labels))
        fitted.save(run / artifact.BASELINE)
        calibrations["baseline"] = Calibration(temperature=0.3, threshold=0.5, promise=0.9)
    if blend is not None:
        artifact.write_json(run / artifact.BLEND, blend.to_json())
        calibrations["blend"] = Calibration(threshold=0.6, promise=0.9)
    artifact.write_json(run / artifact.CALIBRATION, Calibration.to_json_all(calibrations))
    artifact.write_manifest(run, {})
    return run


@dataclass(frozen=True)
class FirstHit:
    """Answers the first label whose first word is in the text, with a confidence of 0.7; else each as likely."""

    labels: Labels
    but: str = ""  # texts with this word in them are answered as if they held none

    def log_probs(self, texts: Sequence[str]) -> NDArray[np.float32]:
        scored = np.full((len(texts), len(self.labels)), 1 / len(self.labels))
        for row, text in zip(scored, texts, strict=True):
            hits = [i for i, name in enumerate(self.labels) if name.split()[0].strip(",") in text]
            if hits and not (self.but and self.but in text):
                row[:] = 0.3 / (len(row) - 1)
                row[hits[0]] = 0.7
        return np.log(scored).astype(np.float32)


@contextmanager
def answering(but: str = "") -> Iterator[None]:
    """Let `FirstHit` stand in for the language model of every run that is loaded."""

    def engine(run: Path, config: object, labels: Labels, *_: object) -> FirstHit:
        return FirstHit(labels, but)

    with mock.patch("shelfwise.classifier._engine", engine):
        yield


def weighed(weight: float = 0.5, model: float = 0.8, blend: float = 0.9) -> Blend:
    """A blend as training would have left it: its weight, and how much model and blend got right on validation."""
    return Blend(weight, 20, Score(model, 0.6), Score(0.85, 0.5), Score(blend, 0.4))
