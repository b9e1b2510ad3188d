from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from shelfwise import artifact, metrics
from shelfwise.calibration import NEVER, Calibration, fit_threshold, lower_bound
from shelfwise.errors import CorruptArtifactError, InputError


def honest_log_probs(rows: int, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Log-probabilities whose targets are drawn from those very probabilities: perfectly calibrated."""
    random = np.random.default_rng(seed)
    logits = random.normal(scale=3, size=(rows, 6))
    log_probs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    targets = (random.random((rows, 1)) > np.exp(log_probs).cumsum(1)).sum(1)
    return log_probs.astype(np.float32), np.minimum(targets, 5)


@pytest.mark.parametrize("temperature", [0.2, 1.0, 4.0])
def test_the_fitted_temperature_undoes_the_one_that_distorted(temperature: float) -> None:
    log_probs, targets = honest_log_probs(6000)
    fitted = Calibration.fit(log_probs / temperature, targets)
    assert fitted.temperature == pytest.approx(1 / temperature, rel=0.06)
    calibrated = metrics.scores(fitted.log_probs(log_probs / temperature), targets)
    assert calibrated.ece < 0.02
    assert calibrated.mean_nll == pytest.approx(metrics.scores(log_probs, targets).mean_nll, abs=0.005)


def test_probabilities_sum_to_one_and_keep_the_order() -> None:
    log_probs, _ = honest_log_probs(200)
    for temperature in (0.02, 0.5, 50):
        probabilities = Calibration(temperature=temperature).probabilities(log_probs)
        assert probabilities.dtype == np.float32
        assert np.allclose(probabilities.sum(1), 1, atol=1e-5)
        assert (probabilities.argmax(1) == log_probs.argmax(1)).all()
    assert Calibration().probabilities(log_probs[:0]).shape == (0, 6)


def test_the_promise_holds_on_new_rows() -> None:
    log_probs, targets = honest_log_probs(3000)
    calibration = Calibration.fit(log_probs, targets, promise=0.9)
    assert calibration.precision_low >= 0.9
    assert calibration.rows == 3000
    new, truth = honest_log_probs(3000, seed=1)
    probabilities = calibration.probabilities(new)
    taken = np.array([calibration.accepts(float(row.max())) for row in probabilities])
    assert taken.mean() > 0.3
    assert (probabilities.argmax(1) == truth)[taken].mean() >= 0.9


def test_the_threshold_is_the_smallest_that_keeps_the_promise() -> None:
    confidence = np.linspace(1, 0, 1000)
    correct = np.arange(1000) < 600
    threshold, accepted, right = fit_threshold(confidence, correct, 0.95)
    assert right == 600
    assert lower_bound(right, accepted) >= 0.95 > lower_bound(right, accepted + 1)
    assert threshold == confidence[accepted - 1]
    assert (confidence >= threshold).sum() == accepted


def test_rows_of_one_confidence_are_accepted_together_or_not_at_all() -> None:
    confidence = np.array([0.9] * 100 + [0.8] * 100)
    correct = np.array([True] * 100 + [True] * 50 + [False] * 50)
    assert fit_threshold(confidence, correct, 0.9) == (0.9, 100, 100)


@pytest.mark.parametrize(("right", "promise"), [(29, 0.5), (200, 0.999)])
def test_nothing_is_accepted_on_too_little_evidence(right: int, promise: float) -> None:
    threshold, accepted, _ = fit_threshold(np.linspace(0.9, 1, right), np.ones(right, bool), promise)
    assert (threshold, accepted) == (NEVER, 0)
    assert Calibration(threshold=threshold).decide(1.0) == "review"


def test_a_decision_is_taken_at_the_threshold_itself() -> None:
    calibration = Calibration(threshold=0.75)
    assert [calibration.decide(c) for c in (0.7499, 0.75, 1.0)] == ["review", "accept", "accept"]


def test_the_lower_bound_is_clopper_and_pearsons() -> None:
    from scipy.stats import binomtest

    for right, n in ((1, 30), (29, 30), (30, 30), (950, 1000)):
        expected = binomtest(right, n, alternative="greater").proportion_ci(0.95, method="exact").low
        assert float(lower_bound(right, n)) == pytest.approx(expected)
    assert lower_bound(0, 10) == 0


def test_without_validation_rows_nothing_is_changed_and_nothing_accepted() -> None:
    calibration = Calibration.fit(np.zeros((0, 4), np.float32), np.zeros(0, np.int64))
    assert calibration == Calibration(temperature=1.0, threshold=NEVER)


def test_answers_that_are_all_right_give_a_finite_temperature() -> None:
    log_probs, _ = honest_log_probs(100)
    calibration = Calibration.fit(log_probs, log_probs.argmax(1))
    assert calibration.temperature > 0
    assert calibration.accepted == 100


def test_a_saved_calibration_comes_back_the_same(tmp_path: Path) -> None:
    log_probs, targets = honest_log_probs(500)
    fitted = {"model": Calibration.fit(log_probs, targets, 0.8), "baseline": Calibration.fit(log_probs * 3, targets)}
    artifact.write_json(tmp_path / "calibration.json", Calibration.to_json_all(fitted))
    loaded = Calibration.load_all(tmp_path / "calibration.json")
    assert loaded == fitted
    assert np.array_equal(loaded["model"].probabilities(log_probs), fitted["model"].probabilities(log_probs))
    confidence = fitted["model"].probabilities(log_probs).max(1)
    assert sum(map(loaded["model"].accepts, confidence.tolist())) == fitted["model"].accepted


@pytest.mark.parametrize(
    "change",
    [
        {"temperature": 0},
        {"temperature": "hot"},
        {"temperature": True},
        {"temperature": float("inf")},
        {"threshold": 2},
        {"promise": 1},
        {"extra": 1},
    ],
)
def test_a_calibration_with_impossible_numbers_is_corrupt(tmp_path: Path, change: dict[str, object]) -> None:
    path = tmp_path / "calibration.json"
    path.write_text(json.dumps({"format": 1, "model": {**Calibration().to_json(), **change}}))
    with pytest.raises(CorruptArtifactError, match=r"calibration\.json: not a readable calibration"):
        Calibration.load_all(path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 9}', '{"format": 1, "model": 3}', "\x00"])
def test_a_file_that_is_no_calibration_is_corrupt(tmp_path: Path, text: str) -> None:
    path = tmp_path / "calibration.json"
    path.write_text(text)
    with pytest.raises(CorruptArtifactError):
        Calibration.load_all(path)


def test_targets_outside_the_labels_are_refused() -> None:
    log_probs, targets = honest_log_probs(10)
    with pytest.raises(InputError, match="own labels"):
        Calibration.fit(log_probs, targets + 6)
    with pytest.raises(InputError, match="10 targets"):
        Calibration.fit(log_probs[:5], targets)
