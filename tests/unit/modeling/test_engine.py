from __future__ import annotations

import numpy as np
import pytest
import torch

from shelfwise.modeling.batching import pad

NAMES = ["Oil", "Aloe face gel with rose and a very long name of many words", "Basmati long grain", "Serum with oil"]


@pytest.mark.parametrize("objective", ["head", "completion"])
@pytest.mark.parametrize("architecture", ["llama", "falcon"])
def test_a_name_gets_the_same_answer_alone_and_in_a_batch(architecture, objective, make_engine):
    engine = make_engine(architecture, objective)
    together = engine.log_probs(NAMES)
    alone = np.concatenate([engine.log_probs([name]) for name in NAMES])
    np.testing.assert_allclose(together, alone, atol=2e-5)


@pytest.mark.parametrize("architecture", ["llama", "falcon"])
def test_leaving_the_mask_out_changes_nothing(architecture, make_engine):
    engine = make_engine(architecture)
    rows = engine.encoder.encode(NAMES)
    ids = pad(rows, engine.encoder.tokenizer.pad_token_id)
    mask = pad([[1] * len(row) for row in rows], 0)
    with torch.no_grad():
        bare = engine.model(input_ids=ids, use_cache=False).logits
        masked = engine.model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    torch.testing.assert_close(bare, masked, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_scoring_leaves_the_model_in_the_mode_it_was_in(training, make_engine):
    engine = make_engine("llama", dropout=0.5)
    engine.model.train(training)
    first, second = engine.log_probs(NAMES), engine.log_probs(NAMES)
    np.testing.assert_array_equal(first, second)  # no dropout while scoring
    assert engine.model.training is training


def test_no_names_give_no_rows(make_engine):
    assert make_engine("llama").log_probs([]).shape == (0, 5)


@pytest.mark.parametrize("objective", ["head", "completion"])
def test_a_full_memory_halves_the_batches_and_loses_nothing(objective, make_engine, monkeypatch):
    engine = make_engine("llama", objective)
    wanted = engine.log_probs(NAMES)
    plain, sizes = type(engine)._score, []

    def full(self, rows):
        sizes.append(len(rows))
        if len(rows) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return plain(self, rows)

    monkeypatch.setattr(type(engine), "_score", full)
    np.testing.assert_allclose(engine.log_probs(NAMES), wanted, atol=2e-5)
    assert sizes == [4, 2, 1, 1, 1, 1]
    assert engine.shrinkage.halvings == 2  # later calls begin with the smaller batches


def test_a_row_that_does_not_fit_alone_and_other_errors_are_raised(make_engine, monkeypatch):
    engine = make_engine("llama")
    for error in (torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("something else")):
        monkeypatch.setattr(type(engine), "_score", lambda self, rows, error=error: (_ for _ in ()).throw(error))
        with pytest.raises(RuntimeError, match=str(error)):
            engine.log_probs(NAMES)
