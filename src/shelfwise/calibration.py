"""What a confidence promises: one temperature for the probabilities, one threshold for accepting an answer.

Both are fitted on validation rows. The temperature (Guo et al. 2017) makes probabilities honest on average; the
threshold turns a promise ("accepted answers are right 95 times in 100") into the confidence that keeps it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shelfwise.errors import CorruptArtifactError, InputError
from shelfwise.records import Decision

FORMAT = 1
PROMISE = 0.95
NEVER = 1.01  # a threshold above every probability: no answer is accepted
MIN_SUPPORT = 30  # validation rows that a threshold must rest on
TEMPERATURES = (0.02, 50.0)  # the search's bounds; SVM margins fit near 0.2, language models between 0.8 and 2
MAX_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Calibration:
    """Turns a scorer's log-probabilities into probabilities, and a confidence into a decision."""

    temperature: float = 1.0
    promise: float = PROMISE  # the precision that accepted answers are to have
    threshold: float = NEVER  # confidences at or above it are accepted
    rows: int = 0  # validation rows that both were fitted on
    accepted: int = 0  # of them, at or above the threshold
    precision: float = 0.0  # share of the accepted that are right
    precision_low: float = 0.0  # its lower 95% confidence bound; at or above the promise when anything is accepted

    def __post_init__(self) -> None:
        if not 0 < self.temperature < float("inf"):
            raise InputError(f"A temperature is a number above 0, not {self.temperature}.")
        if not 0 < self.promise < 1:
            raise InputError(f"A promised precision lies between 0 and 1, not {self.promise}.")
        if not 0 <= self.threshold <= NEVER:
            raise InputError(f"A threshold lies between 0 and {NEVER}, not {self.threshold}.")

    @classmethod
    def fit(
        cls, log_probs: NDArray[np.floating], targets: NDArray[np.integer], promise: float = PROMISE
    ) -> Calibration:
        """Fit temperature and threshold on validation rows.

        Args:
            log_probs: (N, C) natural logarithms, uncalibrated.
            targets: (N,) true label positions, each in [0, C).
            promise: the precision that accepted answers are to have.

        Returns:
            The calibration; with no rows the temperature is 1 and nothing is accepted.

        Raises:
            InputError: shapes that do not fit, or a target out of range.
        """
        true = np.asarray(targets, np.int64)
        if log_probs.ndim != 2 or true.shape != log_probs.shape[:1]:
            raise InputError(f"{true.size} targets, but log-probabilities of shape {log_probs.shape}.")
        if not true.size:
            return cls(promise=promise)
        if true.min() < 0 or true.max() >= log_probs.shape[1]:
            raise InputError("Calibration needs targets among the classifier's own labels.")
        temperature = fit_temperature(log_probs, true)
        probabilities = np.exp(_log_softmax(log_probs, temperature))
        confidence = probabilities.max(axis=1)
        threshold, accepted, right = fit_threshold(confidence, log_probs.argmax(axis=1) == true, promise)
        return cls(
            temperature=temperature,
            promise=promise,
            threshold=threshold,
            rows=int(true.size),
            accepted=accepted,
            precision=right / accepted if accepted else 0.0,
            precision_low=float(lower_bound(right, accepted)) if accepted else 0.0,
        )

    def log_probs(self, log_probs: NDArray[np.floating]) -> NDArray[np.float32]:
        """(N, C) calibrated natural logarithms from uncalibrated ones."""
        return _log_softmax(log_probs, self.temperature)

    def probabilities(self, log_probs: NDArray[np.floating]) -> NDArray[np.float32]:
        """(N, C) calibrated probabilities from uncalibrated natural logarithms; each row sums to 1."""
        return np.exp(self.log_probs(log_probs))

    def accepts(self, confidence: float) -> bool:
        """Whether an answer of this calibrated confidence keeps the promise."""
        return confidence >= self.threshold

    def decide(self, confidence: float) -> Decision:
        """What becomes of an answer of this calibrated confidence."""
        return "accept" if self.accepts(confidence) else "review"

    def to_json(self) -> dict[str, float]:
        """One classifier's entry in `calibration.json`."""
        return asdict(self)

    @staticmethod
    def to_json_all(calibrations: Mapping[str, Calibration]) -> dict[str, object]:
        """What `calibration.json` holds: the entries of "model" and "baseline", as far as the run has them."""
        return {"format": FORMAT, **{name: calibration.to_json() for name, calibration in calibrations.items()}}

    @classmethod
    def load_all(cls, path: Path) -> dict[str, Calibration]:
        """Read `calibration.json`.

        Returns:
            Calibrations by the name of what they calibrate: "model", "baseline".

        Raises:
            CorruptArtifactError: the file can't be read, or holds numbers that no calibration has.
        """
        try:
            if path.stat().st_size > MAX_BYTES:
                raise ValueError(f"larger than {MAX_BYTES:,} bytes")
            stored = json.loads(path.read_text(encoding="utf-8"))
            if stored.pop("format") != FORMAT:
                raise ValueError(f"not of format {FORMAT}")
            return {str(name): cls._of(entry) for name, entry in stored.items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, InputError) as error:
            raise CorruptArtifactError(f"{path}: not a readable calibration ({error}). Copy the run again.") from error

    @classmethod
    def _of(cls, entry: Mapping[str, object]) -> Calibration:
        """One entry of `calibration.json`; ValueError or TypeError for what is no number, or no field of ours."""
        unknown = set(entry) ^ {field.name for field in fields(cls)}
        if unknown:
            raise ValueError(f"missing or unknown: {', '.join(sorted(unknown))}")

        def number(key: str) -> float:
            value = entry[key]
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise TypeError(f"{key} is {value!r}, no number")
            return float(value)

        return cls(
            temperature=number("temperature"),
            promise=number("promise"),
            threshold=number("threshold"),
            rows=int(number("rows")),
            accepted=int(number("accepted")),
            precision=number("precision"),
            precision_low=number("precision_low"),
        )


def _log_softmax(log_probs: NDArray[np.floating], temperature: float) -> NDArray[np.float32]:
    scaled: NDArray[np.float32] = np.asarray(log_probs, np.float32) / np.float32(temperature)
    scaled -= scaled.max(axis=1, keepdims=True, initial=-np.inf)
    scaled -= np.log(np.exp(scaled).sum(axis=1, keepdims=True))
    return scaled


def fit_temperature(log_probs: NDArray[np.floating], targets: NDArray[np.integer]) -> float:
    """The temperature with the least mean negative log-likelihood, within `TEMPERATURES`.

    The likelihood has one optimum in 1/T (it is concave there), so a bounded scalar search finds it.

    Args:
        log_probs: (N, C) natural logarithms, N > 0.
        targets: (N,) true label positions.
    """
    from scipy.optimize import minimize_scalar

    rows = np.arange(len(targets))

    def nll(log_temperature: float) -> float:
        return float(-_log_softmax(log_probs, float(np.exp(log_temperature)))[rows, targets].mean(dtype=np.float64))

    low, high = np.log(TEMPERATURES)
    return float(np.exp(minimize_scalar(nll, bounds=(low, high), method="bounded", options={"xatol": 1e-4}).x))


def lower_bound(right: NDArray[np.integer] | int, n: NDArray[np.integer] | int) -> NDArray[np.float64]:
    """Clopper and Pearson's (1934) one-sided lower 95% bound of a share; 0 where nothing is right."""
    from scipy.stats import beta

    bound = beta.ppf(0.05, right, np.asarray(n) - right + 1)
    return np.where(np.asarray(right) > 0, bound, 0.0)


def fit_threshold(
    confidence: NDArray[np.floating], correct: NDArray[np.bool_], promise: float
) -> tuple[float, int, int]:
    """The smallest confidence at which answers still keep the promise.

    The bound is looked up at every confidence, so it is no strict guarantee; measured, it comes close to one. In 300
    bootstrap draws each of 150, 500 and 2,000 validation rows (the baseline on BigBasket), the true precision at the
    threshold fell short of a promise of 0.90 or 0.95 in 2 to 5% of the draws, and of 0.98 in up to 8%.

    Args:
        confidence: (N,) calibrated probabilities of the answers.
        correct: (N,) whether they are right.
        promise: the precision that the accepted answers' lower 95% bound must reach, on `MIN_SUPPORT` rows or more.

    Returns:
        The threshold, the number of rows at or above it, and how many of those are right; (NEVER, 0, 0) when no
        threshold keeps the promise.
    """
    order = np.argsort(-confidence, kind="stable")
    ranked = confidence[order]
    right = np.cumsum(correct[order], dtype=np.int64)
    accepted = np.arange(1, len(ranked) + 1)
    # Rows of equal confidence are accepted together or not at all.
    last_of_its_value = np.append(ranked[1:] != ranked[:-1], True)
    keeps = last_of_its_value & (accepted >= MIN_SUPPORT) & (lower_bound(right, accepted) >= promise)
    if not keeps.any():
        return NEVER, 0, 0
    position = int(np.flatnonzero(keeps)[-1])
    return float(ranked[position]), int(accepted[position]), int(right[position])
