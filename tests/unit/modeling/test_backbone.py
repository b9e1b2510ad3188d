from __future__ import annotations

import json

import pytest
import torch

from shelfwise.config import LoraSettings
from shelfwise.errors import CorruptArtifactError
from shelfwise.modeling import adapters, backbone
from shelfwise.modeling.batching import pad
from shelfwise.modeling.engine import Engine
from support.catalogue import LABELS

CPU = torch.device("cpu")


@pytest.fixture
def folder(make_engine, tmp_path):
    def save(architecture, objective="completion"):
        engine = make_engine(architecture, objective)
        engine.model.save_pretrained(tmp_path / architecture)
        return engine.encoder, tmp_path / architecture

    return save


def settings(method, objective="head", **changes):
    return backbone.LoadSettings(objective, method, len(LABELS), CPU, "fp32", **changes)


def gradient_norm(model, ids):
    model.train()
    model.zero_grad()
    model(input_ids=ids, use_cache=False).logits.square().sum().backward()
    gradients = [p.grad for p in model.parameters() if p.requires_grad]
    assert all(gradient is not None for gradient in gradients)
    return float(torch.stack([g.norm() for g in gradients]).norm())


@pytest.mark.parametrize("architecture", ["llama", "falcon"])
def test_four_bit_gradients_are_the_same_before_and_after_an_evaluation(architecture, folder):
    # bitsandbytes 0.50 drops them on CPUs with AVX512-BF16: see backbone.differentiate_on_cpu.
    encoder, path = folder(architecture)
    torch.manual_seed(0)
    model = adapters.attach(
        backbone.load(path, settings("qlora"), encoder.tokenizer.pad_token_id), LoraSettings(r=4, dropout=0.0), "head"
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    ids = pad(encoder.encode(["Coconut hair oil", "Sona rice"]), encoder.tokenizer.pad_token_id)
    assert any(type(module).__name__ == "Linear4bit" for module in model.modules())
    before = gradient_norm(model, ids)
    Engine.of(model, encoder, "head", LABELS, CPU, "fp32").log_probs(["Coconut hair oil"])
    assert before > 0
    assert gradient_norm(model, ids) == pytest.approx(before, rel=1e-5)


@pytest.mark.parametrize("architecture", ["llama", "falcon"])
def test_qlora_quantises_the_layers_and_neither_head_nor_embeddings(architecture, folder):
    encoder, path = folder(architecture)
    model = backbone.load(path, settings("qlora"), encoder.tokenizer.pad_token_id)
    kinds = {name: type(m).__name__ for name, m in model.named_modules() if isinstance(m, torch.nn.Linear)}
    quantised = {name for name, kind in kinds.items() if kind == "Linear4bit"}
    assert len(quantised) == 2 * {"llama": 7, "falcon": 4}[architecture]
    assert kinds["score"] == "Linear"
    one = dict(model.named_modules())[min(quantised)]
    assert one.weight.quant_type == "nf4"
    assert one.weight.quant_state.nested  # double quantisation
    assert model.score.weight.dtype == torch.float32


@pytest.mark.parametrize("architecture", ["llama", "falcon"])
def test_gradient_checkpointing_changes_no_gradient_under_adapters(architecture, folder):
    encoder, path = folder(architecture)
    ids = pad(encoder.encode(["Coconut hair oil", "Sona rice"]), encoder.tokenizer.pad_token_id)
    norms = []
    for checkpointing in (False, True):
        model = backbone.load(path, settings("lora"), encoder.tokenizer.pad_token_id)
        if checkpointing:
            backbone.enable_gradient_checkpointing(model)
        torch.manual_seed(0)
        model = adapters.attach(model, LoraSettings(r=4, dropout=0.0), "head")
        torch.manual_seed(1)
        model.get_base_model().score.modules_to_save["default"].weight.data.normal_()
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.data.normal_(generator=torch.Generator().manual_seed(2))
        norms.append(gradient_norm(model, ids))
    assert norms[0] > 0
    assert norms[1] == pytest.approx(norms[0], rel=1e-5)


def test_a_pad_token_is_set_where_the_configuration_has_none(folder):
    encoder, path = folder("llama")
    model = backbone.load(path, settings("full"), encoder.tokenizer.pad_token_id)
    assert model.config.pad_token_id == encoder.tokenizer.pad_token_id
    assert model.config.num_labels == len(LABELS)


def test_weights_trained_in_full_are_fp32_masters_and_frozen_ones_low_precision():
    low = backbone.LoadSettings("head", "full", 2, CPU, "bf16")
    assert low.dtype == torch.float32
    assert backbone.LoadSettings("head", "lora", 2, CPU, "bf16").dtype == torch.bfloat16
    assert backbone.LoadSettings("head", "full", 2, CPU, "bf16", bf16_weights=True).dtype == torch.bfloat16


def test_a_folder_without_weights_is_reported(tmp_path, folder):
    encoder, path = folder("llama")
    (path / "model.safetensors").unlink()
    with pytest.raises(CorruptArtifactError, match=str(path)):
        backbone.load(path, settings("full"), encoder.tokenizer.pad_token_id)


def test_a_configuration_of_another_shape_than_the_weights_is_reported(folder):
    encoder, path = folder("llama")
    values = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**values, "intermediate_size": values["intermediate_size"] + 8}))
    with pytest.raises(CorruptArtifactError, match=r"llama: its weights have other shapes than its config\.json"):
        backbone.load(path, settings("full"), encoder.tokenizer.pad_token_id)
