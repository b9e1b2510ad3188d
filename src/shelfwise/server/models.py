"""The runs that are served: loading them, proving that they answer, and putting a new version in an old one's place."""

from __future__ import annotations

import hashlib
import logging
import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from shelfwise import artifact
from shelfwise.classifier import Classifier
from shelfwise.errors import WorkError
from shelfwise.records import Prediction, Product
from shelfwise.server.batcher import Batcher
from shelfwise.server.contract import ModelInfo, TypeInfo
from shelfwise.server.settings import Settings
from shelfwise.thresholds import NEVER

logger = logging.getLogger(__name__)

CANARY = "Basmati Rice 1 kg"
CANARY_SOURCE = "canary"  # `Product.source` of what no client asked
TRIAL_SOURCE = "trial"  # and of what somebody types to see what happens, half a name at a time
UNCOUNTED = frozenset({CANARY_SOURCE, TRIAL_SOURCE})
REVIEWED_TYPES = 5
VERSION_DIGITS = 12


@dataclass(frozen=True, slots=True)
class Loaded:
    """A classifier in memory, and which run folder it is of."""

    name: str  # as clients name it
    run: Path
    version: str
    classifier: Classifier
    loaded_at_s: float  # seconds since 1970

    def predict(self, texts: Sequence[str], top_k: int) -> list[Prediction]:
        """Ask the classifier, for as many types as a reviewer is to be shown; who wants fewer gets the first ones."""
        return self.classifier.predict(texts, top_k=max(top_k, REVIEWED_TYPES))

    def info(self, default: bool) -> ModelInfo:
        """What clients are told."""
        return ModelInfo(
            name=self.name,
            version=self.version,
            classifier=self.classifier.name,
            text_columns=tuple(self.classifier.text_columns),
            types=len(self.classifier.labels),
            promise=self.classifier.calibration.promise,
            loaded_at_s=self.loaded_at_s,
            default=default,
        )

    def types(self) -> tuple[TypeInfo, ...]:
        """All inventory types, in the order of the run's labels."""
        labels = self.classifier.labels
        thresholds = self.classifier.calibration.thresholds(labels).tolist()
        return tuple(
            TypeInfo(name, labels.taxonomy.path(name), labels.taxonomy.paths.get(name, ()), _reachable(threshold))
            for name, threshold in zip(labels, thresholds, strict=True)
        )


@dataclass(frozen=True, slots=True)
class Served:
    """A loaded model with the queue before it."""

    loaded: Loaded
    batcher: Batcher


def version_of(run: Path) -> str:
    """Which content a run folder has: the beginning of its manifest's hash, for the manifest hashes all the rest."""
    return hashlib.sha256((run / artifact.MANIFEST).read_bytes()).hexdigest()[:VERSION_DIGITS]


def load(name: str, run: Path, settings: Settings, clock: Callable[[], float] = time.time) -> Loaded:
    """Load a run folder and ask it once. Blocks, for long where the model is large.

    Raises:
        RunFolderError: it is none, or lacks what is to be served.
        CorruptArtifactError: a file is missing or changed, or the folder was replaced while it was read.
        WorkError: it loads, and does not answer.
    """
    artifact.read_manifest(run)
    version = version_of(run)
    classifier = Classifier.load(
        run, which=settings.which, device=settings.device, precision=settings.precision, verify=False
    )
    if version_of(run) != version:
        raise WorkError(f"{run}: replaced while it was being loaded. Load it again.")
    if on_gpu():
        one_thread()
    classifier.warm()
    loaded = Loaded(name, run, version, classifier, clock())
    check(loaded.predict([CANARY], 1), loaded)
    return loaded


def on_gpu() -> bool:
    """Whether a model of this process lies on a GPU."""
    torch = sys.modules.get("torch")  # not imported for a baseline, which does without
    return torch is not None and bool(torch.cuda.is_initialized())


def one_thread() -> None:
    """Let the CPU's part of a GPU's answers be done by the thread that asks.

    It is tokenising and laying out a handful of names. torch's and the tokenizer's other threads cost more to wake than
    they do, and wait for more in loops, on the cores that requests need (docs/lab-notes.md).
    """
    import torch

    torch.set_num_threads(1)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def canary() -> Product:
    """A product for a model to prove itself on; its answer matters to nobody."""
    return Product(0, CANARY_SOURCE, CANARY, None, text=CANARY)


def check(predictions: Sequence[Prediction], loaded: Loaded) -> None:
    """Refuse what is no answer to one text.

    Raises:
        WorkError: not one prediction, of a known type, with a probability.
    """
    answer = predictions[0] if len(predictions) == 1 else None
    if answer is None or answer.label not in loaded.classifier.labels or not _is_probability(answer.confidence):
        raise WorkError(f"{loaded.run}: the model loads, but its answer to '{CANARY}' is none. Train the run again.")


def _is_probability(value: float) -> bool:
    return math.isfinite(value) and 0 <= value <= 1


def _reachable(threshold: float) -> float | None:
    return None if threshold >= NEVER else threshold
