"""Answers without padding, from merged adapters, beside those of transformers and PEFT."""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from shelfwise.config import LoraSettings, parse
from shelfwise.errors import ConfigError, CorruptArtifactError
from shelfwise.modeling import adapters, backbone, hardware
from shelfwise.modeling.backbone import LoadSettings
from shelfwise.modeling.engine import Engine
from shelfwise.modeling.loading import Parts, load_engine
from shelfwise.modeling.packed.inference import Inference
from shelfwise.modeling.packed.linear import Fp8, Frozen
from shelfwise.prompts import PromptFormat
from support.catalogue import LABELS
from support.runs import write_base_model

NAMES = ["Oil", "Aloe face gel with rose and a very long name of many words", "Basmati long grain", "word " * 50]


def adapted(engine, objective="head"):
    """The engine's model with adapters that change its answers."""
    model = adapters.attach(engine.model, LoraSettings(dropout=0.0), objective)
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name or "score.modules_to_save" in name:
                parameter.normal_(std=0.2)
    return replace(engine, model=model.eval())


@pytest.mark.parametrize(
    ("dtype", "fp8", "margin"), [("fp32", False, 1e-5), ("bf16", False, 0.02), ("bf16", True, 0.1)]
)
@pytest.mark.parametrize("architecture", ["llama", "falcon"])
def test_answers_without_padding_are_those_of_transformers(architecture, dtype, fp8, margin, make_engine):
    engine = make_engine(architecture)
    wanted = engine.log_probs(NAMES)
    model = copy.deepcopy(engine.model)
    inference = Inference.of(model, dtype={"fp32": torch.float32, "bf16": torch.bfloat16}[dtype], fp8=fp8)
    assert inference is not None
    assert isinstance(inference.packed.calm[0].out.base, Fp8) is fp8
    fast = replace(engine, inference=inference)
    np.testing.assert_allclose(fast.log_probs(NAMES), wanted, atol=margin)
    alone = np.concatenate([fast.log_probs([name]) for name in NAMES])
    np.testing.assert_allclose(alone, wanted, atol=margin)


def test_few_names_are_answered_as_many_are_and_by_several_threads_at_once(make_engine):
    engine = make_engine("llama")
    inference = Inference.of(copy.deepcopy(engine.model), dtype=torch.float32)
    assert inference is not None
    rows = engine.encoder.encode([name for name in NAMES * 30 if len(name) < 100])
    many = inference.log_probs(rows, scale=1)  # halved batches are never few
    assert not inference.recorded
    cuts = [slice(i, i + size) for size in (1, 2, 5, 17) for i in range(0, 40, size)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda cut: inference.log_probs(rows[cut]), cuts))
    assert inference.recorded
    for cut, scores in zip(cuts, found, strict=True):
        torch.testing.assert_close(scores, many[cut], atol=1e-5, rtol=0)


def test_a_full_memory_halves_the_batches_and_small_ones_are_not_halved(make_engine, monkeypatch):
    engine = make_engine("llama")
    inference = Inference.of(copy.deepcopy(engine.model), dtype=torch.float32)
    assert inference is not None
    fast, wanted = replace(engine, inference=inference), engine.log_probs(NAMES)
    plain, asked = Inference.log_probs, []

    def full(self, rows, scale=0):
        asked.append(scale)
        if scale < wall:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return plain(self, rows, scale)

    monkeypatch.setattr(Inference, "log_probs", full)
    wall = 2
    np.testing.assert_allclose(fast.log_probs(NAMES), wanted, atol=1e-5)
    assert asked == [0, 1, 2]
    wall = 99
    with pytest.raises(torch.OutOfMemoryError):
        fast.log_probs(NAMES)


@pytest.mark.parametrize("architecture", ["llama", "falcon"])
def test_merged_adapters_answer_as_apart(architecture, make_engine):
    engine = adapted(make_engine(architecture))
    bare = make_engine(architecture).log_probs(NAMES)
    wanted = engine.log_probs(NAMES)
    assert np.abs(wanted - bare).max() > 0.01  # the adapters say something
    merged = adapters.merge(engine.model, torch.float32)
    assert not any("lora" in name for name, _ in merged.named_parameters())
    np.testing.assert_allclose(replace(engine, model=merged).log_probs(NAMES), wanted, atol=1e-4)


@pytest.mark.parametrize("architecture", ["llama", "falcon"])
def test_adapters_of_a_quantised_base_are_merged_into_what_it_stands_for(architecture, encoders, tmp_path):
    encoder, path = encoders[architecture], write_base_model(architecture, tmp_path / "base")
    settings = LoadSettings("head", "qlora", len(LABELS), torch.device("cpu"), "fp32", trainable=False)
    torch.manual_seed(0)
    base = backbone.load(path, settings, encoder.tokenizer.pad_token_id)
    engine = adapted(Engine.of(base, encoder, "head", LABELS, settings.device, "fp32"))
    wanted = engine.log_probs(NAMES)
    inference = Inference.of(adapters.merge(engine.model, torch.float32), dtype=torch.float32)
    assert inference is not None
    assert isinstance(inference.packed.calm[0].out.base, Frozen)
    np.testing.assert_allclose(replace(engine, inference=inference).log_probs(NAMES), wanted, atol=1e-3)


def test_adapters_may_also_stay_apart(make_engine):
    engine = adapted(make_engine("llama"))
    wanted = engine.log_probs(NAMES)
    inference = Inference.of(engine.model, dtype=torch.float32)
    assert inference is not None
    np.testing.assert_allclose(replace(engine, inference=inference).log_probs(NAMES), wanted, atol=1e-4)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_merged_weight_that_is_no_number_is_refused(make_engine, value):
    engine = adapted(make_engine("llama"))
    broken = next(p for name, p in engine.model.named_parameters() if "lora_B" in name)
    broken.data[0, 0] = value
    with pytest.raises(CorruptArtifactError, match="no numbers"):
        adapters.merge(engine.model, torch.float32)


def test_fp8_is_refused_where_there_is_none():
    config = parse({"catalogue": "c.csv", "model": "tiny-llama"}, "test")
    nowhere = Parts(Path("model"), Path("adapter"), Path("tokenizer"))
    with pytest.raises(ConfigError, match="fp8: needs a GPU"):
        load_engine(config, LABELS, PromptFormat(), nowhere, device="cpu", precision="fp8")


def test_a_causal_model_without_a_head_is_left_to_transformers(make_engine):
    assert Inference.of(make_engine("llama", "completion").model, dtype=torch.float32) is None


@pytest.mark.parametrize(
    ("trained", "native", "asked", "wanted"),
    [
        ("bf16", False, "auto", "fp32"),
        ("bf16", True, "auto", "bf16"),
        ("bf16", False, "bf16", "bf16"),
        ("fp16", True, "auto", "fp32"),
        ("fp32", True, "auto", "fp32"),
    ],
)
def test_a_cpu_answers_in_the_precision_of_the_run_where_it_has_it(
    trained, native, asked, wanted, encoders, tmp_path, monkeypatch
):
    monkeypatch.setattr(hardware, "native_bf16", lambda: native)
    path = write_base_model("llama", tmp_path / "base")
    encoders["llama"].tokenizer.save_pretrained(tmp_path / "tokenizer")
    settings = LoadSettings("head", "full", len(LABELS), torch.device("cpu"), "fp32")
    backbone.load(path, settings, encoders["llama"].tokenizer.pad_token_id).save_pretrained(tmp_path / "model")
    values = {"catalogue": "c.csv", "model": "tiny-llama", "method": "full", "training": {"precision": trained}}
    parts = Parts(tmp_path / "model", tmp_path / "none", tmp_path / "tokenizer")
    engine = load_engine(parse(values, "test"), LABELS, PromptFormat(), parts, device="cpu", precision=asked)
    assert engine.precision == wanted
