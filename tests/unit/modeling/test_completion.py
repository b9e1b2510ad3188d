"""Labels' probabilities by the likely tokens alone, beside all labels' tokens scored by transformers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from shelfwise.labels import Labels
from shelfwise.modeling import backbone, tiny
from shelfwise.modeling.encoding import Encoder
from shelfwise.modeling.engine import Engine
from shelfwise.modeling.packed import completion as module
from shelfwise.modeling.packed.completion import Chains, Completion
from shelfwise.prompts import PromptFormat

# Beginnings in common, types that begin others, commas, quotes, letters beyond ASCII.
TYPES = """Rice|Rice, Basmati|Rice & Flour|Rice & Flour, fine|Oil|Oil "extra"|Oil 'extra'|Crème|Crème brûlée|चावल
|चावल आटा|Face|Face wash|Face wash gel|A type of very many words indeed"""
LABELS = Labels(tuple(sorted(TYPES.replace("\n", "").split("|"))))
NAMES = ["Basmati long grain 5 kg", "Oil", "Aloe face gel with rose, a long name", "Crème 200 g", "word " * 40, "Oil"]


def engine_of(architecture: str, sharpness: float) -> Engine:
    """A model of fresh weights; the sharper it is, the surer is it of each token."""
    encoder = Encoder(tiny.tokenizer_for(architecture, [*NAMES, *LABELS.names]), PromptFormat())
    settings = backbone.LoadSettings("completion", "full", len(LABELS), torch.device("cpu"), "fp32")
    torch.manual_seed(0)
    model = backbone.fresh(tiny.config_for(architecture, encoder.tokenizer), settings, encoder.tokenizer.pad_token_id)
    model.get_output_embeddings().weight.data.mul_(sharpness)
    return Engine.of(model.eval(), encoder, "completion", LABELS, settings.device, settings.precision)


def completion_of(engine: Engine, tolerance: float) -> Completion:
    found = Completion.of(engine.model, engine.encoder.completions(LABELS.names), dtype=torch.float32)
    assert found is not None
    return replace(found, tolerance=tolerance)


@pytest.fixture
def counted(monkeypatch):
    """States that are asked for."""
    count, plain = [0], module.stack

    def stack(packed, ids, attend, keep):
        count[0] += len(ids if keep is None else keep)
        return plain(packed, ids, attend, keep)

    monkeypatch.setattr(module, "stack", stack)
    return count


@pytest.mark.parametrize("sharpness", [1, 10])
@pytest.mark.parametrize("architecture", ["llama", "falcon"])
def test_asked_for_everything_it_gives_what_the_whole_tree_gives(architecture, sharpness):
    engine = engine_of(architecture, sharpness)
    wanted = engine.log_probs(NAMES)
    found = replace(engine, inference=completion_of(engine, 0)).log_probs(NAMES)
    assert wanted.std() > 0.2 * sharpness
    np.testing.assert_allclose(found, wanted, atol=1e-4 * sharpness, rtol=1e-5)


@pytest.mark.parametrize("tolerance", [1e-4, 1e-2, 0.3])
@pytest.mark.parametrize("architecture", ["llama", "falcon"])
def test_what_is_left_out_changes_no_probability_by_more_than_the_tolerance(architecture, tolerance, counted):
    engine = engine_of(architecture, 10)
    wanted = np.exp(engine.log_probs(NAMES))
    log_probs = replace(engine, inference=completion_of(engine, tolerance)).log_probs(NAMES)
    found, some = np.exp(log_probs), counted[0]
    np.testing.assert_allclose(found, wanted, atol=tolerance + 1e-6)
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-5)
    assert np.isfinite(log_probs).all()
    replace(engine, inference=completion_of(engine, 0)).log_probs(NAMES)
    assert some < 0.9 * (counted[0] - some)


@pytest.mark.parametrize("names_at_once", [1, 2, 100])
def test_lots_batches_and_states_may_be_cut_anywhere(monkeypatch, names_at_once):
    """And what is kept is moved when more room is needed."""
    engine = engine_of("llama", 3)
    found = completion_of(engine, 1e-4)
    rows = engine.encoder.encode(NAMES)
    wanted = found.log_probs(rows)
    monkeypatch.setattr(module, "_STATES", 2)
    monkeypatch.setattr(module, "_SLOTS", 0)
    some = replace(found, names_at_once=names_at_once)
    torch.testing.assert_close(some.log_probs(rows, scale=4), wanted, atol=1e-4, rtol=1e-4)


def test_what_is_asked_next_does_not_depend_on_how_batches_were_cut():
    """So that answers that were written down on one machine say on another what to ask."""
    from dataclasses import dataclass, field

    @dataclass(frozen=True, slots=True)
    class Heard(Completion):
        asked: list = field(default_factory=list)

        def _wait(self, number, step, asked):
            self.asked.append((asked.names.tolist(), asked.chains.tolist()))
            return Completion._wait(self, number, step, asked)

    engine = engine_of("llama", 10)
    plain = completion_of(engine, 1e-2)
    rows = engine.encoder.encode([f"{name} {i}" for name in NAMES for i in range(20)])
    found = []
    for scale in (0, 4):
        heard = Heard(**{name: getattr(plain, name) for name in Completion.__dataclass_fields__})
        replace(heard, names_at_once=len(rows) << scale).log_probs(rows, scale)  # lots stay whole
        found.append(heard.asked)
    assert len(found[0]) > 2
    assert found[0] == found[1]


@pytest.mark.parametrize("architecture", ["llama", "falcon"])
def test_no_token_passes_twice(architecture, monkeypatch):
    """Asked for everything, a name and the tree behind it: each prefix once, whatever the order."""
    engine = engine_of(architecture, 10)
    found, names = completion_of(engine, 0), NAMES[:4]
    passed = 0
    plain = module.stack

    def stack(packed, ids, attend, keep):
        nonlocal passed
        passed += len(ids) if keep is None else 0
        return plain(packed, ids, attend, keep)

    monkeypatch.setattr(module, "stack", stack)
    found.log_probs(engine.encoder.encode(names))
    completions = engine.encoder.completions(LABELS.names)
    prefixes = {tuple(ids[:length]) for ids in completions for length in range(1, len(ids))}
    assert passed == len(names) * len(prefixes)


def test_a_row_that_tables_are_too_short_for_is_left_to_others():
    """A model in training has rotary tables for its longest row, not for the longest there could be."""
    from shelfwise.modeling.packed.model import PackedModel

    engine = engine_of("llama", 10)
    long = ["word " * 55]
    wanted = np.exp(engine.log_probs([*NAMES, *long]))
    packed = PackedModel.of(engine.model, 60, dtype=torch.float32)
    tokens = len(engine.encoder.encode(long)[0])
    assert tokens < 64 < tokens + max(map(len, engine.encoder.completions(LABELS.names)))
    found = np.exp(replace(engine, packed=packed).log_probs([*NAMES, *long]))
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_chains_are_cut_where_the_tree_branches():
    chains = Chains.of([[5, 6, 2], [5, 6, 7, 8, 2], [9, 3, 2]])
    assert chains.prefixes == [(), (5, 6), (9, 3), (5, 6, 7, 8)]
    assert chains.lengths.tolist() == [1, 2, 2, 2]
    own = np.split(chains.tokens, chains.begins[1:])
    assert [tokens.tolist() for tokens in own] == [[], [5, 6], [9, 3], [7, 8]]
    assert chains.above.tolist() == [[-1, -1]] * 3 + [[1, 1]]
    assert chains.offset.tolist() == [[-1, -1]] * 3 + [[0, 1]]
    assert chains.inner.tolist() == [False, True, False, False]
    asked = [
        list(zip(*(part[a:b].tolist() for part in (chains.state, chains.token, chains.target)), strict=True))
        for a, b in zip(chains.first, chains.first[1:], strict=False)
    ]
    assert asked == [
        [(0, 5, 1), (0, 9, 2)],
        [(0, 6, -1), (1, 2, 4), (1, 7, 3)],
        [(0, 3, -1), (1, 2, 6)],
        [(0, 8, -1), (1, 2, 5)],
    ]
    assert chains.labels.tolist() == [[1 / 3] * 3, [0.5, 0.5, 0], [0, 0, 1], [0, 1, 0]]


def test_a_model_in_training_is_asked_the_same_way(counted):
    """What validates a packed run: adapters as they stand, no dropout, and the model goes on training."""
    from shelfwise.config import LoraSettings
    from shelfwise.modeling import adapters
    from shelfwise.modeling.packed.model import PackedModel

    engine = engine_of("llama", 10)
    model = adapters.attach(engine.model, LoraSettings(dropout=0.5), "completion").train()
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.2)
    engine = replace(engine, model=model)
    wanted = np.exp(engine.log_probs(NAMES))
    packed = PackedModel.of(model, 60, dtype=torch.float32)
    found = np.exp(replace(engine, packed=packed).log_probs(NAMES))
    assert counted[0] > 0
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert model.training
    assert all(p.requires_grad for name, p in model.named_parameters() if "lora" in name)
