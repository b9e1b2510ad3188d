"""Draws of rows: each of as many rows, repeatable, and bounded in number and in memory."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import f1_score

from shelfwise import resampling
from shelfwise.errors import InputError
from shelfwise.resampling import F1Figures, Resamples, draws_for, draws_of


def counts(resamples: Resamples) -> np.ndarray:
    return np.concatenate(list(resamples.blocks()), axis=1)


def test_each_draw_has_as_many_rows_as_there_are_and_every_row_is_drawn_alike() -> None:
    drawn = counts(Resamples.draw(40, 2000))
    assert drawn.shape == (40, 2000)
    assert (drawn.sum(0) == 40).all()
    assert drawn.mean(1) == pytest.approx(np.ones(40), abs=0.1)
    assert drawn.var() == pytest.approx(1 - 1 / 40, abs=0.02)  # multinomial


def test_a_seed_draws_the_same_rows_again_and_another_seed_others() -> None:
    assert np.array_equal(counts(Resamples.draw(30, 20, seed=1)), counts(Resamples.draw(30, 20, seed=1)))
    assert not np.array_equal(counts(Resamples.draw(30, 20, seed=1)), counts(Resamples.draw(30, 20, seed=2)))


def test_blocks_that_are_not_kept_are_drawn_again_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Resamples.draw(50, 30)
    monkeypatch.setattr(resampling, "KEPT", 0)
    monkeypatch.setattr(resampling, "BLOCK", 50 * 7)
    fresh = Resamples.draw(50, 30)
    assert (len(kept.kept), len(fresh.kept)) == (1, 0)
    assert [block.shape[1] for block in fresh.blocks()] == [7, 7, 7, 7, 2]
    assert np.array_equal(counts(fresh), counts(fresh))
    assert np.array_equal(counts(fresh), counts(kept))


def test_very_many_rows_are_drawn_less_often() -> None:
    assert draws_for(5_511) == 1000
    assert draws_for(400_000) == 500
    assert draws_for(50_000_000) == 200
    assert draws_for(50_000_000, 10) == 10


def test_no_rows_and_no_draws_are_refused() -> None:
    for n, draws in ((0, 10), (10, 0)):
        with pytest.raises(InputError, match="needs rows and draws"):
            Resamples.draw(n, draws)


def test_the_f1s_of_a_draw_are_those_of_scikit_learn_on_its_rows() -> None:
    random = np.random.default_rng(0)
    truth, answers = random.choice([0, 3, 4, 9], 60), random.choice([0, 3, 5, 9], 60)
    resamples = Resamples.draw(60, 25)
    macro, weighted = draws_of(resamples, F1Figures.of(truth, answers))
    for i, drawn in enumerate(counts(resamples).T):
        rows = np.repeat(np.arange(60), drawn)
        for found, average in ((macro, "macro"), (weighted, "weighted")):
            expected = f1_score(truth[rows], answers[rows], average=average, zero_division=0)
            assert found[i] == pytest.approx(expected)
