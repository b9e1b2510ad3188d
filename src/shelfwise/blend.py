"""The blend: a language model and its baseline answer together, and get more right than either alone.

Their calibrated log-probabilities are added with one weight and made to sum to 1 again: a logarithmic opinion pool
(Genest and Zidek 1986, "Combining probability distributions"). The weight is the one with the least mean negative
log-likelihood on validation rows. Measured with SmolLM2-135M on six lines of BigBasket (three splits, with and without
brands): 1.3 to 2.8 points of accuracy above the better of the two, where a weighted sum of the probabilities
themselves wins 0.1 to 0.6 points less on five of the six (docs/lab-notes.md, "model and baseline together").

The weight, the calibrations of both parts and that of the blend are all fitted on the same validation rows, which also
chose the epoch. That is one number more on rows that carry a few already; what it does on rows that nothing was fitted
on is told by `shelfwise evaluate`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from shelfwise.calibration import Calibration
from shelfwise.errors import COPY_AGAIN, CorruptArtifactError, InputError, RunFolderError
from shelfwise.labels import Labels
from shelfwise.recalibration import log_softmax, nll

if TYPE_CHECKING:
    from shelfwise.classifier import Classifier

FORMAT = 1
MAX_BYTES = 1 << 20
MAX_CELLS = 40_000_000  # (rows, labels) that the weight is fitted on; more rows than that are sampled
# Stands for every lower log-probability, -inf too: one label that one of the two rules out is ruled out by both, but
# one such row does not decide over the weight alone. float32 can't tell its exponential from 0.
LOWEST = -100.0

Rows = NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class Score:
    """How one classifier fares on the validation rows, calibrated."""

    accuracy: float  # share of right answers
    mean_nll: float  # mean negative log-likelihood of the true types, nats

    def __post_init__(self) -> None:
        if not 0 <= self.accuracy <= 1:
            raise InputError(f"An accuracy lies between 0 and 1, not {self.accuracy}.")
        if not 0 <= self.mean_nll < float("inf"):
            raise InputError(f"A mean negative log-likelihood is a number from 0, not {self.mean_nll}.")

    @classmethod
    def of(cls, log_probs: Rows, targets: NDArray[np.integer]) -> Score:
        """The score of (N, C) calibrated natural logarithms."""
        right = log_probs.argmax(axis=1) == targets
        return cls(float(right.mean()), max(0.0, float(nll(np.maximum(log_probs, LOWEST), targets).mean())))


@dataclass(frozen=True, slots=True)
class Blend:
    """How a language model and its baseline are weighed, and what that gained; `blend.json` of a run folder."""

    weight: float  # of the language model, in [0, 1]; the baseline has the rest
    rows: int  # validation rows that it was fitted on
    model: Score  # alone, as `baseline`
    baseline: Score
    blend: Score

    def __post_init__(self) -> None:
        if not 0 <= self.weight <= 1:
            raise InputError(f"The weight of a blend lies between 0 and 1, not {self.weight}.")
        if self.rows < 1:
            raise InputError(f"A blend is fitted on at least one row, not on {self.rows}.")

    @property
    def gained(self) -> bool:
        """Whether, on validation, it is no worse than the language model alone, and another classifier than it."""
        no_worse = self.blend.accuracy >= self.model.accuracy and self.blend.mean_nll <= self.model.mean_nll
        return no_worse and self.weight < 1

    @property
    def told(self) -> str:
        """What it is and what it gained, in two sentences."""
        return (
            f"The blend weighs the language model {self.weight:.2f} and the baseline {1 - self.weight:.2f}. On the "
            f"{self.rows:,} validation products that this was fitted on it gets {self.blend.accuracy:.1%} right, the "
            f"language model alone {self.model.accuracy:.1%} and the baseline alone {self.baseline.accuracy:.1%}."
        )

    def to_json(self) -> dict[str, object]:
        """What `blend.json` holds."""
        return {"format": FORMAT, **asdict(self)}

    @classmethod
    def load(cls, path: Path) -> Blend:
        """Read `blend.json`.

        Raises:
            CorruptArtifactError: the file can't be read, or holds numbers that no blend has.
        """
        try:
            if path.stat().st_size > MAX_BYTES:
                raise ValueError(f"larger than {MAX_BYTES:,} bytes")
            stored = json.loads(path.read_text(encoding="utf-8"))
            if stored.pop("format") != FORMAT:
                raise ValueError(f"not of format {FORMAT}")
            rows = stored["rows"]
            if type(rows) is not int:
                raise TypeError(f"{rows!r} is no number of rows")
            if unknown := set(stored) ^ {field.name for field in fields(cls)}:
                raise ValueError(f"missing or unknown: {', '.join(sorted(unknown))}")
            return cls(_number(stored["weight"]), rows, *(_score(stored[of]) for of in ("model", "baseline", "blend")))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, InputError) as error:
            raise CorruptArtifactError(f"{path}: not a readable blend ({error}). {COPY_AGAIN}") from error


def _score(stored: dict[str, object]) -> Score:
    if unknown := set(stored) ^ {field.name for field in fields(Score)}:
        raise ValueError(f"missing or unknown: {', '.join(sorted(unknown))}")
    return Score(_number(stored["accuracy"]), _number(stored["mean_nll"]))


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{value!r} is no number")
    return float(value)


def settled(wish: Literal["auto", "model", "blend"], blend: Blend | None, run: Path) -> Literal["model", "blend"]:
    """What a language model's run answers with.

    Args:
        wish: `classifier` of its configuration.
        blend: its blend; None where it has none.
        run: the run folder, for the message.

    Raises:
        RunFolderError: the blend is wished for, and there is none.
    """
    if blend is None and wish == "blend":
        raise RunFolderError(
            f"{run}: has no blend of its language model and its baseline: it was trained without its baseline, without "
            "validation products, or by an earlier version. Ask its model, or train it again."
        )
    return "blend" if blend is not None and (wish == "blend" or (wish == "auto" and blend.gained)) else "model"


def fit(
    model: Rows,
    baseline: Rows,
    targets: NDArray[np.integer],
    labels: Labels,
    clusters: NDArray[np.integer] | None = None,
) -> tuple[Blend, Calibration]:
    """Fit the weight on validation rows, then temperatures and thresholds of the blend on the same rows.

    Args:
        model: (N, C) the language model's natural logarithms, calibrated; N > 0.
        baseline: (N, C) the baseline's, calibrated.
        targets: (N,) true label positions, each in [0, C).
        labels: the C labels with their taxonomy.
        clusters: as for `Calibration.fit`.

    Raises:
        InputError: shapes that do not fit, no row, or a target out of range.
    """
    if model.shape != baseline.shape or model.ndim != 2 or targets.shape != model.shape[:1]:
        raise InputError(f"{targets.size} targets, but a model of {model.shape} and a baseline of {baseline.shape}.")
    if not targets.size:
        raise InputError("A blend needs validation products to be fitted on.")
    weight = fit_weight(model, baseline, targets)
    joined = combine(model, baseline, weight)
    calibration = Calibration.fit(joined, targets, labels=labels, clusters=clusters)
    scores = (Score.of(each, targets) for each in (model, baseline, calibration.log_probs(joined)))
    return Blend(weight, int(targets.size), *scores), calibration


def fit_weight(model: Rows, baseline: Rows, targets: NDArray[np.integer], seed: int = 0) -> float:
    """The weight of the model, in [0, 1], with the least mean negative log-likelihood.

    The likelihood is concave in the weight (a linear function less a log-sum-exp of linear ones), so a bounded scalar
    search finds the one optimum; the ends, which it never touches, are asked apart.

    Args:
        model: (N, C) calibrated natural logarithms, N > 0.
        baseline: (N, C) calibrated natural logarithms.
        targets: (N,) true label positions.
        seed: of the rows that are sampled where there are more than one weight needs.
    """
    from scipy.optimize import minimize_scalar

    enough = max(1, MAX_CELLS // model.shape[1])
    if len(targets) > enough:
        some = np.random.default_rng(seed).choice(len(targets), enough, replace=False)
        model, baseline, targets = model[some], baseline[some], targets[some]

    def mean_nll(weight: float) -> float:
        return float(nll(np.maximum(combine(model, baseline, weight), LOWEST), targets).mean())

    found = float(minimize_scalar(mean_nll, bounds=(0, 1), method="bounded", options={"xatol": 1e-4}).x)
    return min((1.0, 0.0, found), key=mean_nll)


def combine(model: Rows, baseline: Rows, weight: float) -> NDArray[np.float32]:
    """(N, C) natural logarithms of the blend; each row's exponentials sum to 1.

    Args:
        model: (N, C) calibrated natural logarithms; -inf is one too.
        baseline: (N, C) likewise.
        weight: of the model, in [0, 1].
    """
    if weight in (0, 1):  # and not 0 times -inf
        return np.asarray(model if weight else baseline, np.float32)
    share = np.float32(weight)
    joined = np.maximum(model, np.float32(LOWEST)) * share
    joined += np.maximum(baseline, np.float32(LOWEST)) * (1 - share)
    return log_softmax(joined, np.float32(1))


@dataclass(frozen=True, slots=True)
class BlendScorer:
    """A language model and its baseline, asked together; a `classifier.Scorer`."""

    model: Classifier
    baseline: Classifier
    blend: Blend

    def log_probs(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(N, C) natural logarithms; each row's exponentials sum to 1. Who has no weight is not asked."""
        return self.start(texts)()

    def start(self, texts: Sequence[str]) -> Callable[[], NDArray[np.float32]]:
        """Begin with the model; what comes back asks the baseline, while a GPU may still be at work, and joins both."""
        if self.blend.weight in (0, 1):
            only = self.model if self.blend.weight else self.baseline
            asked = only.start_log_probs(texts)
            return lambda: only.calibration.log_probs(asked())
        model = self.model.start_log_probs(texts)

        def joined() -> NDArray[np.float32]:
            baseline = self.baseline.log_probs(texts)
            return self.join(model(), baseline)

        return joined

    def warm(self) -> None:
        """Let the model do what the first texts would have to wait for."""
        self.model.warm()

    def join(self, model: Rows, baseline: Rows) -> NDArray[np.float32]:
        """What `log_probs` gives, from (N, C) uncalibrated natural logarithms of both that are known already."""
        calibrated = self.model.calibration.log_probs(model), self.baseline.calibration.log_probs(baseline)
        return combine(*calibrated, self.blend.weight)
