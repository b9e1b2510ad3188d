"""The cascade: the baseline answers where its promise holds, and only the rest goes to the language model.

Of a run that answers with a blend, the rest goes to the blend, which asks the model and weighs the baseline in.

Both keep the thresholds that they have alone. Measured with SmolLM2-135M on BigBasket (random and grouped splits, by
name and by brand and name): the accepted answers of the two together keep the promise of 0.95 in all four (0.955 to
0.970), for the baseline's lie above it. Those that the language model adds do not always keep it by themselves (0.905
to 0.964): they are the harder rows, and its threshold was fitted on all. One that is fitted on the harder rows alone
accepts none of them in three of the four, so nearly all that the model adds would go to review.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shelfwise import artifact
from shelfwise import config as configs
from shelfwise.blend import BlendScorer
from shelfwise.classifier import Classifier, answering
from shelfwise.config import Arithmetic, Role
from shelfwise.data.catalogue import read_catalogue
from shelfwise.data.split import Splits
from shelfwise.errors import InputError
from shelfwise.labels import Labels
from shelfwise.metrics import Interval, accuracy_interval
from shelfwise.pipelines.predict_answers import Answer
from shelfwise.records import Product

CHUNK = 4_096  # texts asked for together; bounds the (texts, labels) table in memory


@dataclass(frozen=True, slots=True)
class Cascade:
    """Two classifiers in a row; a `predict_answers.Answerer`."""

    first: Classifier
    then: Classifier  # of the same labels and text columns

    def __post_init__(self) -> None:
        if self.first.labels.sha256 != self.then.labels.sha256 or self.first.text_columns != self.then.text_columns:
            raise InputError("The classifiers of a cascade must know the same types and read the same columns.")

    @classmethod
    def load(cls, run: Path, *, device: str = "auto", precision: Arithmetic = "auto") -> Cascade:
        """A run's baseline, and its language model or the blend of both, whichever the run answers with.

        Raises:
            InputError: the run has only one of them.
            CorruptArtifactError: the run folder is damaged.
        """
        artifact.read_manifest(run, verify=False)
        config = configs.load(run / artifact.CONFIG)
        if config.model == "baseline":
            raise InputError(f"{run}: this run is a baseline, so there is no language model for the rest of a cascade.")
        if answering(run, config) == "blend":  # which has the baseline in memory
            blend = Classifier.load(run, which="blend", device=device, precision=precision)
            assert isinstance(blend.scorer, BlendScorer)
            return cls(blend.scorer.baseline, blend)
        first = Classifier.load(run, which="baseline")
        # The hashes of all files were just compared.
        return cls(first, Classifier.load(run, which="model", device=device, precision=precision, verify=False))

    @property
    def name(self) -> str:
        """Both names, in order."""
        return f"{self.first.name} then {self.then.name}"

    @property
    def labels(self) -> Labels:
        """The types that both know."""
        return self.first.labels

    @property
    def text_columns(self) -> tuple[Role, ...]:
        """What both read."""
        return self.first.text_columns

    @property
    def exact(self) -> bool:
        """A language model's last bits depend on the batch."""
        return False

    def start(self, texts: Sequence[str], top_k: int) -> Callable[[], list[Answer]]:
        """Begin with some texts, by the first classifier.

        What comes back waits for one answer a text, in their order: the first one's where it accepts the type, else the
        other's.
        """
        answers = [Answer(prediction, self.first.name) for prediction in self.first.predict(texts, top_k=top_k)]
        rest = [i for i, answer in enumerate(answers) if answer.prediction.decision != "accept"]
        if not rest:
            return lambda: answers
        asked = self.then.start([texts[i] for i in rest], top_k=top_k)

        def joined() -> list[Answer]:
            for i, prediction in zip(rest, asked(), strict=True):
                answers[i] = Answer(prediction, self.then.name)
            return answers

        return joined


@dataclass(frozen=True, slots=True)
class Accepted:
    """Accepted answers held against the truth."""

    accepted: int
    right: int

    @property
    def precision(self) -> float:
        """Share of the accepted that are right; 0 when none is accepted."""
        return self.right / self.accepted if self.accepted else 0.0

    @property
    def interval(self) -> Interval:
        """95% interval of the precision."""
        return accuracy_interval(self.right, self.accepted)


@dataclass(frozen=True, slots=True)
class CascadeReport:
    """What a cascade saves on labelled rows, and whether its promise holds."""

    rows: int
    right: int  # of all rows, accepted or not
    answered_by_first: int  # rows that the language model is spared
    promise: float  # the lower of the two promises
    by_first: Accepted
    by_then: Accepted

    @property
    def together(self) -> Accepted:
        """All accepted answers, whoever gave them: what the promise is about."""
        return Accepted(self.by_first.accepted + self.by_then.accepted, self.by_first.right + self.by_then.right)

    @property
    def saving(self) -> float:
        """Share of the rows that the language model is spared."""
        return self.answered_by_first / self.rows

    @property
    def kept(self) -> bool:
        """Whether the accepted answers are right as often as was promised; also when nothing is accepted."""
        return not self.together.accepted or self.together.precision >= self.promise


def measure(cascade: Cascade, products: Sequence[Product]) -> CascadeReport:
    """Ask a cascade for labelled products.

    Args:
        cascade: to be measured.
        products: at least one, each with its type; one of a type that the run does not know counts as wrong.

    Raises:
        InputError: no product, or one without a type.
    """
    if not products or any(product.label is None for product in products):
        raise InputError("A cascade is measured on products with inventory types, and on at least one.")
    accepts, rights, firsts = [], [], []
    for start in range(0, len(products), CHUNK):
        chunk = products[start : start + CHUNK]
        for product, answer in zip(chunk, cascade.start([product.text for product in chunk], 1)(), strict=True):
            accepts.append(answer.prediction.decision == "accept")
            rights.append(answer.prediction.label == product.label)
            firsts.append(answer.model == cascade.first.name)
    accepted, right, first = np.array(accepts), np.array(rights), np.array(firsts)
    return CascadeReport(
        rows=len(products),
        right=int(right.sum()),
        answered_by_first=int(first.sum()),
        promise=min(cascade.first.calibration.promise, cascade.then.calibration.promise),
        by_first=Accepted(int((accepted & first).sum()), int((accepted & first & right).sum())),
        by_then=Accepted(int((accepted & ~first).sum()), int((accepted & ~first & right).sum())),
    )


def measure_run(
    run: Path,
    catalogue: Path | None = None,
    *,
    device: str = "auto",
    precision: Arithmetic = "auto",
) -> CascadeReport:
    """Measure a run's cascade on the run's own test part.

    Args:
        run: a run folder with a language model and its baseline.
        catalogue: a copy of the catalogue that it was trained on; None: at the place where it was.
        device: where the language model answers.
        precision: of its arithmetic.

    Raises:
        InputError: the run or the catalogue can't be used, or there is no test part.
    """
    cascade = Cascade.load(run, device=device, precision=precision)
    config = configs.load(run / artifact.CONFIG)
    path = catalogue or config.catalogue
    if path is None:
        raise InputError(f"{run}: its configuration names no catalogue.")
    source = read_catalogue(path, config.columns, config.text_columns, labels="required", options=False)
    splits = Splits.load(run / artifact.SPLIT)
    splits.check(source)
    return measure(cascade, splits.parts(source).test)
