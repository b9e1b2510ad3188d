"""The blend of a language model and its baseline: its weight, its numbers, its file."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from shelfwise import artifact, blend
from shelfwise.blend import Blend, BlendScorer, Score, combine, fit, fit_weight, settled
from shelfwise.calibration import Calibration
from shelfwise.classifier import Classifier
from shelfwise.errors import CorruptArtifactError, InputError, RunFolderError
from shelfwise.labels import Labels
from shelfwise.thresholds import NEVER

LABELS = Labels(tuple(f"type {i}" for i in range(8)))
BLEND = Blend(0.6, 400, Score(0.7, 0.9), Score(0.72, 0.95), Score(0.78, 0.7))
Rows = NDArray[np.float32]


def log_softmax(scores: NDArray[np.float64]) -> Rows:
    return (scores - np.log(np.exp(scores).sum(1, keepdims=True))).astype(np.float32)


def world(rows: int, of_model: float, of_baseline: float, seed: int = 0) -> tuple[Rows, Rows, NDArray[np.int64]]:
    """Two experts who each see the truth through noise of their own; how much each sees is given.

    Each one's log-probabilities are the exact posterior given what it sees, and given both the exact posterior is the
    product of the two. So the blend that is right before its own temperature weighs both alike.
    """
    random = np.random.default_rng(seed)
    targets = random.integers(len(LABELS), size=rows)
    truth = np.eye(len(LABELS))[targets]
    seen = []
    for strength in (of_model, of_baseline):
        # Of unit noise around `strength` at the true label, the log-likelihood ratio of a label is strength * what
        # is seen of it.
        seen.append(log_softmax(strength * (strength * truth + random.normal(size=truth.shape))))
    return seen[0], seen[1], targets


def accuracy(log_probs: Rows, targets: NDArray[np.int64]) -> float:
    return float((log_probs.argmax(1) == targets).mean())


def test_two_that_know_different_things_are_weighed_alike_and_beat_either_on_new_rows() -> None:
    model, baseline, targets = world(4000, 1.6, 1.6)
    found, calibration = fit(model, baseline, targets, LABELS)
    assert found.weight == pytest.approx(0.5, abs=0.05)
    assert found.gained
    new = world(4000, 1.6, 1.6, seed=1)
    together = calibration.log_probs(combine(new[0], new[1], found.weight))
    best = max(accuracy(new[0], new[2]), accuracy(new[1], new[2]))
    assert accuracy(together, new[2]) > best + 0.05
    # Two who know different things are surer together: the temperature of the blend says so.
    assert calibration.temperature == pytest.approx(0.5, abs=0.05)
    exact = new[0] + new[1]
    np.testing.assert_allclose(np.exp(together), np.exp(log_softmax(exact.astype(np.float64))), atol=0.05)


def test_the_weight_is_the_best_of_a_fine_grid() -> None:
    model, baseline, targets = world(1500, 2.0, 1.0, seed=3)
    model = (model * 1.7).astype(np.float32)  # overconfident: it deserves less weight than its knowledge says
    model -= np.log(np.exp(model).sum(1, keepdims=True))

    def mean_nll(weight: float) -> float:
        return float(-combine(model, baseline, weight)[np.arange(len(targets)), targets].mean())

    grid = np.linspace(0, 1, 201)
    best = grid[np.argmin([mean_nll(float(weight)) for weight in grid])]
    assert 0.1 < best < 0.9
    assert fit_weight(model, baseline, targets) == pytest.approx(best, abs=0.006)


def test_who_knows_nothing_gets_no_weight() -> None:
    model, _, targets = world(2000, 1.5, 0)
    misled = np.roll(model, 1, axis=1)  # sure of a wrong label
    assert fit_weight(model, misled, targets) == 1.0
    assert fit_weight(misled, model, targets) == 0.0
    found, _ = fit(model, misled, targets, LABELS)
    assert found.weight == 1
    assert not found.gained  # it is the model itself
    other, _ = fit(misled, model, targets, LABELS)
    assert other.gained


def test_the_ends_are_the_one_or_the_other_bit_for_bit_even_where_the_other_rules_out_everything() -> None:
    model, baseline, _ = world(20, 1, 1)
    void = np.full_like(model, -np.inf)
    np.testing.assert_array_equal(combine(model, void, 1), model)
    np.testing.assert_array_equal(combine(void, baseline, 0), baseline)


@pytest.mark.parametrize("weight", [0.001, 0.3, 0.999])
def test_a_probability_of_zero_leaves_finite_shares_that_sum_to_one(weight: float) -> None:
    model = np.array([[0, -np.inf, -np.inf], [-np.inf, 0, -np.inf], [np.log(0.5), np.log(0.5), -np.inf]], np.float32)
    baseline = np.log(np.array([[0.2, 0.3, 0.5], [1e-30, 0.5, 0.5], [1, 1, 1]], np.float32) / [[1], [1], [3]])
    found = combine(model, baseline.astype(np.float32), weight)
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
    np.testing.assert_allclose(np.exp(found).sum(1), 1, atol=1e-5)
    if weight > 0.1:
        assert found.argmax(1).tolist() == [0, 1, 0]
        assert np.exp(found[0, 1:]).max() < 1e-12  # ruled out by one, ruled out


def test_a_single_row_that_one_rules_out_does_not_decide_over_the_weight() -> None:
    model, baseline, targets = world(3000, 1.6, 1.6)
    spoilt = model.copy()
    spoilt[0, targets[0]] = -np.inf
    assert np.isfinite(fit_weight(spoilt, baseline, targets))
    assert fit_weight(spoilt, baseline, targets) == pytest.approx(fit_weight(model, baseline, targets), abs=0.1)
    found, _ = fit(spoilt, baseline, targets, LABELS)
    assert np.isfinite(found.model.mean_nll)


def test_more_rows_than_a_weight_needs_are_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    model, baseline, targets = world(4000, 1.6, 1.6)
    whole = fit_weight(model, baseline, targets)
    asked: list[int] = []
    real = combine

    def counted(of_model: Rows, of_baseline: Rows, weight: float) -> Rows:
        asked.append(len(of_model))
        return real(of_model, of_baseline, weight)

    monkeypatch.setattr(blend, "combine", counted)
    monkeypatch.setattr(blend, "MAX_CELLS", 2000 * len(LABELS))
    assert fit_weight(model, baseline, targets) == pytest.approx(whole, abs=0.05)
    assert set(asked) == {2000}


def test_the_fit_tells_what_each_gets_right_and_calibrates_the_blend_as_any_classifier() -> None:
    model, baseline, targets = world(3000, 2.0, 2.0)
    found, calibration = fit(model, baseline, targets, LABELS)
    assert (found.rows, calibration.rows) == (3000, 3000)
    assert found.model.accuracy == accuracy(model, targets)
    assert found.baseline.accuracy == accuracy(baseline, targets)
    together = calibration.log_probs(combine(model, baseline, found.weight))
    assert found.blend.accuracy == accuracy(together, targets)
    assert found.blend.mean_nll == pytest.approx(float(-together[np.arange(3000), targets].mean()), abs=1e-6)
    assert found.blend.mean_nll < min(found.model.mean_nll, found.baseline.mean_nll)
    assert calibration.threshold < NEVER
    assert f"weighs the language model {found.weight:.2f}" in found.told
    assert f"{found.blend.accuracy:.1%}" in found.told


@pytest.mark.parametrize(
    ("model", "baseline", "targets", "message"),
    [
        ((3, 8), (2, 8), 3, "3 targets, but a model of"),
        ((3, 8), (3, 8), 2, "2 targets, but a model of"),
        ((0, 8), (0, 8), 0, "needs validation products"),
    ],
)
def test_what_does_not_fit_together_is_no_blend(model: Any, baseline: Any, targets: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        fit(np.zeros(model, np.float32), np.zeros(baseline, np.float32), np.zeros(targets, np.int64), LABELS)


def test_it_is_no_gain_to_lose_accuracy_or_likelihood_against_the_model() -> None:
    assert BLEND.gained
    assert replace(BLEND, blend=BLEND.model).gained  # as good as the model, and the baseline has its say
    assert not replace(BLEND, blend=Score(0.699, 0.7)).gained
    assert not replace(BLEND, blend=Score(0.78, 0.91)).gained
    assert not replace(BLEND, weight=1.0).gained


def test_the_run_answers_with_what_its_configuration_wishes_or_with_the_better_one(tmp_path: Path) -> None:
    worse = replace(BLEND, blend=Score(0.6, 0.7))
    assert [settled("auto", each, tmp_path) for each in (BLEND, worse, None)] == ["blend", "model", "model"]
    assert [settled("model", each, tmp_path) for each in (BLEND, worse, None)] == ["model", "model", "model"]
    assert [settled("blend", each, tmp_path) for each in (BLEND, worse)] == ["blend", "blend"]
    with pytest.raises(RunFolderError, match=r"has no blend.*train it again"):
        settled("blend", None, tmp_path)


def test_a_saved_blend_comes_back_the_same(tmp_path: Path) -> None:
    model, baseline, targets = world(500, 1, 2)
    found, _ = fit(model, baseline, targets, LABELS)
    artifact.write_json(tmp_path / "blend.json", found.to_json())
    assert Blend.load(tmp_path / "blend.json") == found


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"weight": -0.01},
        {"weight": 1.01},
        {"weight": float("nan")},
        {"weight": "half"},
        {"weight": True},
        {"rows": 0},
        {"rows": 3.5},
        {"extra": 1},
        {"model": {"accuracy": 2, "mean_nll": 1}},
        {"model": {"accuracy": 0.5, "mean_nll": float("inf")}},
        {"model": {"accuracy": 0.5}},
        {"blend": 0.9},
    ],
)
def test_a_blend_with_impossible_numbers_is_corrupt(tmp_path: Path, change: dict[str, object]) -> None:
    path = tmp_path / "blend.json"
    path.write_text(json.dumps({**BLEND.to_json(), **change}))
    with pytest.raises(
        CorruptArtifactError, match=r"blend\.json: not a readable blend .* Copy the run folder whole again"
    ):
        Blend.load(path)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"format": 1}'])
def test_a_blend_that_is_none_is_corrupt(tmp_path: Path, text: str) -> None:
    (tmp_path / "blend.json").write_text(text)
    with pytest.raises(CorruptArtifactError, match="not a readable blend"):
        Blend.load(tmp_path / "blend.json")


class Fixed:
    """Gives every text the same shares, and counts what it is asked."""

    def __init__(self, shares: Sequence[float]) -> None:
        self.shares = np.log(np.array(shares, np.float32))
        self.asked = 0

    def log_probs(self, texts: Sequence[str]) -> Rows:
        self.asked += len(texts)
        return np.tile(self.shares, (len(texts), 1))


def scorer(weight: float) -> tuple[BlendScorer, Fixed, Fixed]:
    labels = Labels(("a", "b", "c"))
    model, baseline = Fixed([0.7, 0.2, 0.1]), Fixed([0.1, 0.6, 0.3])
    parts = [
        Classifier(name, labels, each, Calibration(temperature=temperature), ("product",))
        for name, each, temperature in (("m", model, 2.0), ("baseline", baseline, 0.5))
    ]
    return BlendScorer(parts[0], parts[1], replace(BLEND, weight=weight)), model, baseline


def test_the_scorer_weighs_what_both_say_after_their_own_calibration() -> None:
    both, model, baseline = scorer(0.25)
    of_model = np.array([0.7, 0.2, 0.1]) ** (1 / 2)
    of_baseline = np.array([0.1, 0.6, 0.3]) ** (1 / 0.5)
    expected = (of_model / of_model.sum()) ** 0.25 * (of_baseline / of_baseline.sum()) ** 0.75
    found = both.log_probs(["x", "y"])
    np.testing.assert_allclose(np.exp(found), np.tile(expected / expected.sum(), (2, 1)), rtol=1e-5)
    np.testing.assert_array_equal(both.join(model.log_probs(["x", "y"]), baseline.log_probs(["x", "y"])), found)


@pytest.mark.parametrize(("weight", "asked"), [(1.0, (1, 0)), (0.0, (0, 1)), (0.5, (1, 1))])
def test_who_has_no_weight_is_not_asked(weight: float, asked: tuple[int, int]) -> None:
    both, model, baseline = scorer(weight)
    found = both.log_probs(["x"])
    assert (model.asked, baseline.asked) == asked
    np.testing.assert_array_equal(found, both.join(model.log_probs(["x"]), baseline.log_probs(["x"])))


class Started(Fixed):
    """A model on a GPU: it is begun with, and waited for later."""

    def __init__(self, shares: Sequence[float], log: list[str]) -> None:
        super().__init__(shares)
        self.log = log

    def start(self, texts: Sequence[str]) -> Callable[[], Rows]:
        self.log.append("model begins")

        def wait() -> Rows:
            self.log.append("model is waited for")
            return self.log_probs(texts)

        return wait

    def warm(self) -> None:
        self.log.append("model is warm")


def test_the_baseline_answers_while_the_model_is_at_work() -> None:
    both, _, baseline = scorer(0.5)
    expected, log = both.log_probs(["x"]), list[str]()
    told = baseline.log_probs
    baseline.log_probs = lambda texts: log.append("baseline") or told(texts)  # type: ignore[method-assign]
    model = replace(both.model, scorer=Started([0.7, 0.2, 0.1], log))
    joined = replace(both, model=model).start(["x"])
    assert log == ["model begins"]
    np.testing.assert_array_equal(joined(), expected)
    assert log == ["model begins", "baseline", "model is waited for"]


def test_a_blend_warms_its_model() -> None:
    both, _, _ = scorer(0.5)
    log: list[str] = []
    blend = replace(both, model=replace(both.model, scorer=Started([0.7, 0.2, 0.1], log)))
    replace(both.model, scorer=blend).warm()
    both.baseline.warm()  # nothing to do
    assert log == ["model is warm"]
