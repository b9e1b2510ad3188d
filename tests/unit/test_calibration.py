from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import binom

from shelfwise import artifact, metrics
from shelfwise.calibration import Calibration
from shelfwise.errors import CorruptArtifactError, InputError
from shelfwise.labels import Labels, Taxonomy
from shelfwise.recalibration import fit_temperature
from shelfwise.records import LEVELS
from shelfwise.thresholds import NEVER, Shelves
from support import promises

PLAIN = Shelves.of(Labels(tuple("abcdef")))
TAXONOMY = Taxonomy(
    {
        "a": (("Food", "Staples", 9), ("Drinks", "Hot", 1)),  # no tree: seen under two categories
        "b": (("Food", "Staples", 5),),
        "c": (("Food", "Other", 5),),
        "d": (("Drinks", "Other", 5), ("Food", "Staples", 5)),  # sub-category "Other" stands under two categories
        "e": (("Drinks", "", 5),),
    }
)
SHELVES = Shelves.of(Labels(tuple("abcdef"), TAXONOMY))


def accepted_by(calibration: Calibration, probabilities: NDArray[np.floating], shelves: Shelves) -> NDArray[np.bool_]:
    return calibration.decide(probabilities, shelves).level == LEVELS.index("type")


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


def test_the_temperature_is_the_one_that_an_independent_optimiser_finds() -> None:
    """LBFGS on the cross-entropy, as in the code published with Guo et al. (github.com/gpleiss/temperature_scaling)."""
    for seed, distortion in enumerate((0.3, 1.0, 2.5)):
        log_probs, targets = honest_log_probs(400, seed)
        scores, truth = torch.tensor(log_probs / distortion, dtype=torch.float64), torch.from_numpy(targets)
        temperature = torch.nn.Parameter(torch.ones(1, dtype=torch.float64))
        optimiser = torch.optim.LBFGS([temperature], lr=0.1, max_iter=500, line_search_fn="strong_wolfe")

        def closure(
            scores: torch.Tensor = scores,
            truth: torch.Tensor = truth,
            temperature: torch.Tensor = temperature,
            optimiser: torch.optim.Optimizer = optimiser,
        ) -> torch.Tensor:
            optimiser.zero_grad()
            loss = torch.nn.functional.cross_entropy(scores / temperature, truth)
            loss.backward()
            return loss

        optimiser.step(closure)
        assert fit_temperature(log_probs / distortion, targets) == pytest.approx(temperature.item(), rel=1e-3)


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
    taken = accepted_by(calibration, probabilities, PLAIN)
    assert taken.mean() > 0.3
    assert (probabilities.argmax(1) == truth)[taken].mean() >= 0.9


def test_an_answer_is_accepted_at_the_threshold_itself() -> None:
    rows = np.zeros((3, 6))
    rows[:, 2] = (0.7499, 0.75, 1.0)
    assert accepted_by(Calibration(threshold=0.75), rows, PLAIN).tolist() == [False, True, True]


def test_a_types_own_threshold_goes_before_its_categorys_and_that_before_the_one_of_all() -> None:
    calibration = Calibration(threshold=0.5, by_type={"a": 0.9, "f": 0.8}, by_category={"Food": 0.7, "Unheard": 0.6})
    # "d" counts for the first of its equally frequent paths; "f" is in no category.
    assert calibration.thresholds(SHELVES.labels).tolist() == [0.9, 0.7, 0.7, 0.5, 0.5, 0.8]


def test_the_deepest_sure_level_sums_over_a_taxonomy_that_is_no_tree() -> None:
    calibration = Calibration(threshold=0.6, sub_category_threshold=0.75, category_threshold=0.8)
    rows = np.array(
        [
            [0.7, 0.3, 0.0, 0.0, 0.0, 0.0],  # the type
            [0.4, 0.4, 0.0, 0.1, 0.1, 0.0],  # Food > Staples: a and b
            [0.4, 0.0, 0.4, 0.1, 0.1, 0.0],  # Food: a and c; the two sub-categories named "Other" are not one
            [0.0, 0.0, 0.2, 0.3, 0.5, 0.0],  # Drinks: e has no sub-category; the most probable sub-category has 0.3
            [0.2, 0.1, 0.1, 0.1, 0.0, 0.5],  # f is in no category
        ]
    )
    found = calibration.decide(rows, SHELVES)
    assert [LEVELS[level] for level in found.level] == ["type", "sub_category", "category", "category", ""]
    paths = [SHELVES.path(level, node) for level, node in zip(found.level.tolist(), found.node.tolist(), strict=True)]
    assert paths == [("Food", "Staples", "a"), ("Food", "Staples"), ("Food",), ("Drinks",), ()]
    # Targets: b for a is a wrong type; a and b share the node; e is no Food; 6 is a type that the run doesn't know.
    assert SHELVES.right(found, np.array([1, 0, 1, 3, 5])).tolist() == [False, True, True, True, False]
    assert SHELVES.right(found, np.array([0, 2, 4, 6, 6])).tolist() == [True, False, False, False, False]


def test_a_level_above_may_name_another_branch_than_the_best_type() -> None:
    found = Calibration(category_threshold=0.6).decide(np.array([[0.0, 0.3, 0.3, 0.0, 0.4, 0.0]]), SHELVES)
    assert SHELVES.path(int(found.level[0]), int(found.node[0])) == ("Food",)  # although e, of Drinks, comes first


def test_without_a_taxonomy_there_is_no_level_above() -> None:
    log_probs, targets = honest_log_probs(3000)
    fitted = Calibration.fit(log_probs, targets, labels=PLAIN.labels)
    assert (fitted.sub_category_threshold, fitted.category_threshold, fitted.by_category) == (NEVER, NEVER, {})
    assert set(fitted.decide(fitted.probabilities(log_probs), PLAIN).level) == {0, 3}
    assert fitted.decide(np.zeros((0, 6)), SHELVES).level.size == 0


def test_levels_are_fitted_on_the_rows_that_are_left_over_below_them() -> None:
    log_probs, targets = honest_log_probs(4000)
    fitted = Calibration.fit(log_probs, targets, 0.9, SHELVES.labels)
    decided = fitted.decide(fitted.probabilities(log_probs), SHELVES)
    right = SHELVES.right(decided, targets)
    for level in range(3):
        taken = decided.level == level
        assert taken.sum() >= 30
        assert right[taken].mean() >= 0.9


def test_the_promise_is_kept_at_the_stated_rate_in_worlds_of_known_truth() -> None:
    """In each world some types are surer than right; the true precision of what is accepted is known.

    `benchmarks/thresholds.py` draws more of them.
    """
    random = np.random.default_rng(7)
    draws, promise, found = 80, 0.9, []
    for _ in range(draws):
        bias = random.normal(0, 1, promises.C)
        validation = promises.draw(random, bias, 1200)
        fitted = Calibration.fit(validation.log_probs, validation.targets, promise, promises.SHELVES.labels)
        found.append(promises.outcome(fitted, promises.draw(random, bias, 4000)))
    for level in range(3):
        precisions = [each.precision[level] for each in found if each.precision[level] is not None]
        assert len(precisions) > draws / 4  # something was accepted often enough to be broken
        assert sum(precision < promise for precision in precisions) <= most_broken(draws), LEVELS[level]
    types = [precision for each in found for precision in each.of_types]
    assert len(types) > draws  # each world has types with a threshold of their own
    assert sum(precision < promise for precision in types) <= most_broken(len(types))


def test_the_measure_of_the_worlds_can_tell_a_broken_promise() -> None:
    random = np.random.default_rng(7)
    broken = 0
    for _ in range(20):
        bias = random.normal(0, 1, promises.C)
        validation = promises.draw(random, bias, 1200)
        fitted = Calibration.fit(validation.log_probs, validation.targets, 0.9, promises.SHELVES.labels)
        careless = replace(fitted, threshold=fitted.threshold - 0.1, by_type={}, by_category={})
        precision = promises.outcome(careless, promises.draw(random, bias, 4000)).precision[0]
        broken += precision is not None and precision < 0.9
    assert broken > most_broken(20)


def most_broken(tried: int) -> int:
    """What 99 of 100 simulations stay at or under when the promise breaks in 5% of what is tried."""
    return int(binom.ppf(0.99, tried, 0.05))


def test_without_validation_rows_nothing_is_changed_and_nothing_accepted() -> None:
    calibration = Calibration.fit(np.zeros((0, 4), np.float32), np.zeros(0, np.int64))
    assert calibration == Calibration(temperature=1.0, threshold=NEVER)


def test_answers_that_are_all_right_give_a_finite_temperature() -> None:
    log_probs, _ = honest_log_probs(100)
    calibration = Calibration.fit(log_probs, log_probs.argmax(1))
    assert calibration.temperature > 0
    assert calibration.accepted == 100


def test_a_saved_calibration_comes_back_the_same(tmp_path: Path) -> None:
    log_probs, targets = honest_log_probs(2000)
    model = Calibration.fit(log_probs, targets, 0.8, SHELVES.labels)
    fitted = {"model": model, "baseline": Calibration.fit(log_probs * 3, targets)}
    artifact.write_json(tmp_path / "calibration.json", Calibration.to_json_all(fitted))
    loaded = Calibration.load_all(tmp_path / "calibration.json")
    assert loaded == fitted
    assert fitted["model"].by_type
    assert fitted["model"].by_category
    assert fitted["model"].category_threshold < NEVER
    probabilities = fitted["model"].probabilities(log_probs)
    assert np.array_equal(loaded["model"].probabilities(log_probs), probabilities)
    before, after = (found["model"].decide(probabilities, SHELVES) for found in (fitted, loaded))
    assert np.array_equal(before.level, after.level)
    assert np.array_equal(before.node, after.node)
    assert accepted_by(loaded["baseline"], loaded["baseline"].probabilities(log_probs * 3), PLAIN).sum() == (
        fitted["baseline"].accepted
    )


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
        {"by_type": {"a": 2}},
        {"by_type": {"a": "high"}},
        {"by_category": [0.5]},
        {"category_threshold": -1},
        {"rows": 10**400},
        {"sure_temperature": 1.5},
        {"sure_temperature": 0, "unsure_temperature": 1},
        {"sure_temperature": "warm", "unsure_temperature": 1},
    ],
)
def test_a_calibration_with_impossible_numbers_is_corrupt(tmp_path: Path, change: dict[str, object]) -> None:
    path = tmp_path / "calibration.json"
    path.write_text(json.dumps({"format": 2, "model": {**Calibration().to_json(), **change}}))
    with pytest.raises(CorruptArtifactError, match=r"calibration\.json: not a readable calibration"):
        Calibration.load_all(path)


def test_a_calibration_of_format_1_still_loads_and_means_the_same(tmp_path: Path) -> None:
    entry = Calibration(temperature=0.18, threshold=0.9, by_type={"a": 0.95}).to_json()
    del entry["sure_temperature"], entry["unsure_temperature"]
    (tmp_path / "calibration.json").write_text(json.dumps({"format": 1, "baseline": entry}))
    (loaded,) = Calibration.load_all(tmp_path / "calibration.json").values()
    assert loaded == Calibration(temperature=0.18, threshold=0.9, by_type={"a": 0.95})
    log_probs, _ = honest_log_probs(50)
    expected = torch.log_softmax(torch.from_numpy(log_probs) / 0.18, dim=1).numpy()
    np.testing.assert_allclose(loaded.log_probs(log_probs), expected, atol=1e-4)


def test_two_temperatures_are_saved_and_come_back(tmp_path: Path) -> None:
    fitted = Calibration(temperature=1.2, sure_temperature=1.5, unsure_temperature=0.8)
    artifact.write_json(tmp_path / "calibration.json", Calibration.to_json_all({"model": fitted}))
    loaded = Calibration.load_all(tmp_path / "calibration.json")["model"]
    assert loaded == fitted
    log_probs, _ = honest_log_probs(50)
    assert np.array_equal(loaded.log_probs(log_probs), fitted.log_probs(log_probs))
    assert not np.allclose(loaded.log_probs(log_probs), Calibration(temperature=1.2).log_probs(log_probs), atol=0.01)


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
    with pytest.raises(InputError, match="2 labels"):
        Calibration.fit(log_probs, targets, labels=Labels(("a", "b")))
