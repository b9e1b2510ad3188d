"""What a confidence promises: temperatures for the probabilities, and thresholds for accepting an answer.

All are fitted on validation rows. Temperatures (`recalibration`) make probabilities honest on average; a threshold
turns a promise ("accepted answers are right 95 times in 100") into the confidence that keeps it. Where the type is not
sure enough, its sub-category or its category may be.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shelfwise import recalibration
from shelfwise.errors import COPY_AGAIN, CorruptArtifactError, InputError
from shelfwise.labels import Labels
from shelfwise.recalibration import Temperatures
from shelfwise.records import LEVELS
from shelfwise.thresholds import NEVER, Decided, Shelves, fit_groups, fit_threshold

FORMAT = 2  # 1 had one temperature only, and is read too
PROMISE = 0.95
MAX_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class Calibration:
    """Turns a scorer's log-probabilities into probabilities, and a confidence into a decision."""

    temperature: float = 1.0  # of all rows, where there are no other two
    promise: float = PROMISE  # the precision that accepted answers are to have
    threshold: float = NEVER  # confidences at or above it are accepted, unless type or category have their own
    rows: int = 0  # validation rows that all was fitted on
    accepted: int = 0  # of them, at or above `threshold`
    precision: float = 0.0  # share of the accepted that are right
    precision_low: float = 0.0  # its lower 95% confidence bound; at or above the promise when anything is accepted
    by_type: Mapping[str, float] = field(default_factory=dict)  # own thresholds, none below `threshold`
    by_category: Mapping[str, float] = field(default_factory=dict)  # of its types that have none of their own
    sub_category_threshold: float = NEVER  # of a sub-category's probability, where the type is not accepted
    category_threshold: float = NEVER  # of a category's, where neither type nor sub-category are
    sure_temperature: float | None = None  # of rows that are certain, where two did better than one
    unsure_temperature: float | None = None  # and of rows where every label is as likely

    def __post_init__(self) -> None:
        _ = self.temperatures  # which refuses those that are none
        if not 0 < self.promise < 1:
            raise InputError(f"A promised precision lies between 0 and 1, not {self.promise}.")
        levels = (self.threshold, self.sub_category_threshold, self.category_threshold)
        for threshold in (*levels, *self.by_type.values(), *self.by_category.values()):
            if not 0 <= threshold <= NEVER:
                raise InputError(f"A threshold lies between 0 and {NEVER}, not {threshold}.")

    @classmethod
    def fit(
        cls,
        log_probs: NDArray[np.floating],
        targets: NDArray[np.integer],
        promise: float = PROMISE,
        labels: Labels | None = None,
        clusters: NDArray[np.integer] | None = None,
    ) -> Calibration:
        """Fit temperatures and thresholds on validation rows.

        Args:
            log_probs: (N, C) natural logarithms, uncalibrated.
            targets: (N,) true label positions, each in [0, C).
            promise: the precision that accepted answers are to have, at each level.
            labels: the C labels with their taxonomy; None: one threshold for all types, and no level above them.
            clusters: (N,) the cluster of each row, where whole clusters were held out, as brands are; None where rows
                were held out one by one.

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
        if clusters is not None and clusters.shape != true.shape:
            raise InputError(f"{true.size} targets, but the clusters of {clusters.size} rows.")
        if true.min() < 0 or true.max() >= log_probs.shape[1]:
            raise InputError("Calibration needs targets among the classifier's own labels.")
        if labels is not None and len(labels) != log_probs.shape[1]:
            raise InputError(f"{len(labels)} labels, but log-probabilities of shape {log_probs.shape}.")
        temperatures = recalibration.fit(log_probs, true)
        probabilities = np.exp(temperatures.apply(log_probs))
        answered = probabilities.argmax(axis=1)
        found = fit_threshold(probabilities.max(axis=1), answered == true, promise, clusters)
        fitted = cls(
            temperature=temperatures.all,
            sure_temperature=temperatures.sure,
            unsure_temperature=temperatures.unsure,
            promise=promise,
            threshold=found.confidence,
            rows=int(true.size),
            accepted=found.accepted,
            precision=found.right / max(found.accepted, 1),
            precision_low=found.low,
        )
        if labels is None:
            return fitted
        shelves = Shelves.of(labels)
        fitted = fitted._with_own_thresholds(probabilities, true, shelves, clusters)
        return fitted._with_levels(probabilities, true, shelves, clusters)

    def _with_own_thresholds(
        self,
        probabilities: NDArray[np.float32],
        targets: NDArray[np.int64],
        shelves: Shelves,
        clusters: NDArray[np.integer] | None,
    ) -> Calibration:
        """This calibration with the thresholds of those types and categories whose rows show one."""
        answered, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
        groups = (answered, shelves.categories.of_label[answered])
        types, categories = (
            fit_groups(confidence, answered == targets, group, self.promise, self.threshold, clusters)
            for group in groups
        )
        by_type = {shelves.labels[position]: threshold for position, threshold in types.items()}
        return replace(self, by_type=by_type, by_category=shelves.categories.named(categories))

    def _with_levels(
        self,
        probabilities: NDArray[np.float32],
        targets: NDArray[np.int64],
        shelves: Shelves,
        clusters: NDArray[np.integer] | None,
    ) -> Calibration:
        """This calibration with a threshold for each level above the type, fitted on the rows left over below it.

        Fitted on all rows, the sure types would vouch for sub-categories that nobody asks for: the promise has to hold
        among the very rows that are accepted at the level.
        """
        left = self.decide(probabilities, shelves).level != LEVELS.index("type")
        found = []
        for nodes in shelves.above:
            node, share = nodes.best(probabilities[left])
            right = (node >= 0) & (nodes.of_label[targets[left]] == node)
            threshold = fit_threshold(
                share, right, self.promise, None if clusters is None else clusters[left]
            ).confidence
            found.append(threshold)
            left[left] = share < threshold
        return replace(self, sub_category_threshold=found[0], category_threshold=found[1])

    @property
    def temperatures(self) -> Temperatures:
        """How log-probabilities are tempered."""
        return Temperatures(self.temperature, self.sure_temperature, self.unsure_temperature)

    def log_probs(self, log_probs: NDArray[np.floating]) -> NDArray[np.float32]:
        """(N, C) calibrated natural logarithms from uncalibrated ones."""
        return self.temperatures.apply(log_probs)

    def probabilities(self, log_probs: NDArray[np.floating]) -> NDArray[np.float32]:
        """(N, C) calibrated probabilities from uncalibrated natural logarithms; each row sums to 1."""
        return np.exp(self.log_probs(log_probs))

    def thresholds(self, labels: Labels) -> NDArray[np.float64]:
        """(C,) the confidence from which each label is accepted: its own, else its category's, else that of all."""
        categories = [labels.taxonomy.category(name) or "" for name in labels]
        return np.array(
            [
                self.by_type.get(name, self.by_category.get(category, self.threshold))
                for name, category in zip(labels, categories, strict=True)
            ]
        )

    def decide(
        self, probabilities: NDArray[np.floating], shelves: Shelves, thresholds: NDArray[np.float64] | None = None
    ) -> Decided:
        """The deepest level at which each answer keeps the promise.

        Args:
            probabilities: (N, C) calibrated.
            shelves: of the C labels.
            thresholds: (C,) what `thresholds` gives for these labels, where it is known already.
        """
        if thresholds is None:
            thresholds = self.thresholds(shelves.labels)
        node = probabilities.argmax(axis=1)
        confidence = probabilities.max(axis=1, initial=0)
        level = np.zeros(len(node), np.int64)
        left = np.flatnonzero(confidence < thresholds[node])
        for depth, nodes in enumerate(shelves.above, 1):
            level[left] = depth
            node[left], share = nodes.best(probabilities[left])
            left = left[share < (self.sub_category_threshold, self.category_threshold)[depth - 1]]
        level[left], node[left] = LEVELS.index(""), -1
        return Decided(level, node)

    def to_json(self) -> dict[str, object]:
        """One classifier's entry in `calibration.json`."""
        return asdict(self)

    @staticmethod
    def to_json_all(calibrations: Mapping[str, Calibration]) -> dict[str, object]:
        """What `calibration.json` holds: the entries of "model", "baseline" and "blend", as far as there are."""
        return {"format": FORMAT, **{name: calibration.to_json() for name, calibration in calibrations.items()}}

    @classmethod
    def load_all(cls, path: Path) -> dict[str, Calibration]:
        """Read `calibration.json`.

        Returns:
            Calibrations by the name of what they calibrate: "model", "baseline", "blend".

        Raises:
            CorruptArtifactError: the file can't be read, or holds numbers that no calibration has.
        """
        try:
            if path.stat().st_size > MAX_BYTES:
                raise ValueError(f"larger than {MAX_BYTES:,} bytes")
            stored = json.loads(path.read_text(encoding="utf-8"))
            if stored.pop("format") not in (1, FORMAT):
                raise ValueError(f"not of format 1 or {FORMAT}")
            return {str(name): cls._of(entry) for name, entry in stored.items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, InputError) as error:
            raise CorruptArtifactError(f"{path}: not a readable calibration ({error}). {COPY_AGAIN}") from error

    @classmethod
    def _of(cls, entry: Mapping[str, object]) -> Calibration:
        """One entry of `calibration.json`; ValueError or TypeError for what is no number, or no field of ours."""
        entry = {"sure_temperature": None, "unsure_temperature": None, **entry}  # format 1 has neither
        unknown = set(entry) ^ {field.name for field in fields(cls)}
        if unknown:
            raise ValueError(f"missing or unknown: {', '.join(sorted(unknown))}")
        return cls(
            temperature=_number(entry["temperature"]),
            promise=_number(entry["promise"]),
            threshold=_number(entry["threshold"]),
            rows=int(_number(entry["rows"])),
            accepted=int(_number(entry["accepted"])),
            precision=_number(entry["precision"]),
            precision_low=_number(entry["precision_low"]),
            by_type=_numbers(entry["by_type"]),
            by_category=_numbers(entry["by_category"]),
            sub_category_threshold=_number(entry["sub_category_threshold"]),
            category_threshold=_number(entry["category_threshold"]),
            sure_temperature=_number_or_none(entry["sure_temperature"]),
            unsure_temperature=_number_or_none(entry["unsure_temperature"]),
        )


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{value!r} is no number")
    return float(value)


def _number_or_none(value: object) -> float | None:
    return None if value is None else _number(value)


def _numbers(value: object) -> dict[str, float]:
    if not isinstance(value, dict):
        raise TypeError(f"{value!r} is no table of thresholds")
    return {str(name): _number(number) for name, number in value.items()}
