"""Two temperatures, by how unsure a row is, where validation says that they help."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize

from shelfwise import metrics, recalibration
from shelfwise.errors import InputError
from shelfwise.recalibration import Temperatures, entropy, fit, fit_two

TWO = Temperatures(1.2, 1.5, 0.8)


def honest(rows: int, seed: int = 0, labels: int = 12) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Log-probabilities of rows that are sure and rows that are not, and targets drawn from these probabilities."""
    random = np.random.default_rng(seed)
    logits = random.normal(size=(rows, labels)) * random.uniform(0.2, 6, (rows, 1))
    log_probs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    targets = (random.random((rows, 1)) > np.exp(log_probs).cumsum(1)).sum(1)
    return log_probs.astype(np.float32), np.minimum(targets, labels - 1)


def overdone(log_probs: NDArray[np.float32]) -> NDArray[np.float32]:
    """The same answers, said too surely where they are sure and too timidly where they are not."""
    shares = entropy(log_probs, 1.0)[:, None]
    return recalibration.log_softmax(log_probs, 1 / (1.6 - 1.2 * shares))


def test_two_temperatures_are_taken_where_one_can_not_undo_what_is_wrong() -> None:
    log_probs, targets = honest(3000)
    said = overdone(log_probs)
    found = fit(said, targets)
    assert found.sure is not None
    assert found.unsure is not None
    assert found.sure > 1.2 > 1 > found.unsure
    new, truth = honest(6000, seed=1)
    one = Temperatures(found.all)
    before, after = (metrics.scores(each.apply(overdone(new)), truth) for each in (one, found))
    assert after.mean_nll < before.mean_nll - 0.005
    assert after.ece < before.ece - 0.01
    assert after.ece < 0.025
    assert after.accuracy == before.accuracy


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
def test_one_temperature_is_kept_where_it_is_enough(temperature: float) -> None:
    kept = 0
    for seed in range(6):
        log_probs, targets = honest(1500, seed)
        found = fit(log_probs / temperature, targets)
        kept += found.sure is None
        assert found.all == pytest.approx(1 / temperature, rel=0.12)
    assert kept >= 4  # a gain of more than a standard error comes by chance in at most one of six


def test_few_rows_get_one_temperature() -> None:
    log_probs, targets = honest(recalibration.MIN_ROWS - 1)
    assert fit(overdone(log_probs), targets).sure is None


def test_the_two_are_those_that_an_independent_optimiser_finds() -> None:
    log_probs, targets = honest(1500)
    said = overdone(log_probs).astype(np.float64)
    temperature = 1.1
    tempered = np.exp(said / temperature)
    tempered /= tempered.sum(1, keepdims=True)
    shares = -(tempered * np.log(tempered)).sum(1) / np.log(said.shape[1])

    def loss(pair: NDArray[np.float64]) -> float:
        scaled = said * ((1 - shares) / pair[0] + shares / pair[1])[:, None]
        return float(np.mean(np.log(np.exp(scaled).sum(1)) - scaled[np.arange(len(targets)), targets]))

    best = minimize(loss, [1.0, 1.0], method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-10}).x
    found = fit_two(said.astype(np.float32), targets, temperature)
    assert (found.sure, found.unsure) == pytest.approx(tuple(best), rel=2e-3)


def test_the_order_of_the_labels_stays_and_each_row_sums_to_one() -> None:
    log_probs, _ = honest(500)
    for temperatures in (TWO, Temperatures(0.02, 0.02, 50.0), Temperatures(1.0, 50.0, 0.02)):
        tempered = temperatures.apply(log_probs)
        assert tempered.dtype == np.float32
        np.testing.assert_allclose(np.exp(tempered).sum(1), 1, atol=1e-5)
        assert (tempered.argmax(1) == log_probs.argmax(1)).all()
    assert (np.argsort(-TWO.apply(log_probs), kind="stable") == np.argsort(-log_probs, kind="stable")).all()


def test_a_row_gets_the_same_numbers_alone_as_among_others() -> None:
    log_probs, _ = honest(300)
    together = TWO.apply(log_probs)
    alone = np.concatenate([TWO.apply(log_probs[i : i + 1]) for i in range(len(log_probs))])
    assert np.array_equal(together, alone)
    assert np.array_equal(together[::-1], TWO.apply(log_probs[::-1]))


def test_entropy_runs_from_certain_to_no_idea_and_stands_a_label_that_can_not_be() -> None:
    rows = np.log(np.array([[1.0, 1e-30, 1e-30, 1e-30], [0.25] * 4, [0.5, 0.5, 1e-30, 1e-30]])).astype(np.float32)
    np.testing.assert_allclose(entropy(rows, 1.0), [0, 1, 0.5], atol=1e-6)
    with np.errstate(divide="ignore"):
        impossible = np.log(np.array([[0.6, 0.4, 0.0], [1.0, 0.0, 0.0]])).astype(np.float32)
    assert np.isfinite(np.exp(TWO.apply(impossible))).all()
    found = fit_two(np.repeat(impossible, 50, axis=0), np.zeros(100, np.int64), 1.0)
    assert np.isfinite([found.sure, found.unsure]).all()  # type: ignore[list-item]
    assert Temperatures(1.0, 1.0, 1.0).apply(rows[:0]).shape == (0, 4)


def test_equal_temperatures_do_what_one_does() -> None:
    log_probs, _ = honest(200)
    one, two = Temperatures(1.3), Temperatures(0.9, 1.3, 1.3)
    np.testing.assert_allclose(one.apply(log_probs), two.apply(log_probs), atol=1e-4)


@pytest.mark.parametrize("wrong", [(0.0, None, None), (1.0, 1.0, None), (1.0, -1.0, 1.0), (float("nan"), None, None)])
def test_impossible_temperatures_are_refused(wrong: tuple[float, float | None, float | None]) -> None:
    with pytest.raises(InputError, match="temperature"):
        Temperatures(*wrong)
