from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from shelfwise.config import LoraSettings
from shelfwise.modeling import adapters
from shelfwise.modeling.adapters import RateSettings, parameter_groups

LINEAR_MAPS = {"llama": 7, "falcon": 4}


def rates(model, decay=0.5):
    groups = parameter_groups(model, RateSettings(1.0, 0.1, decay))
    found = {}
    for group in groups:
        found.setdefault(group["name"], set()).add(group["lr"])
    return found


@pytest.mark.parametrize("architecture", ["llama", "falcon"])
def test_each_layer_of_a_fully_trained_model_learns_at_its_rate(architecture, make_engine):
    model = make_engine(architecture).model  # 2 layers
    assert rates(model) == {"layer 0": {0.5}, "layer 1": {1.0}, "embeddings": {0.25}, "top": {1.0}}


@pytest.mark.parametrize("architecture", ["llama", "falcon"])
def test_an_adapter_learns_at_the_rate_of_its_layer(architecture, make_engine):
    model = adapters.attach(make_engine(architecture).model, LoraSettings(r=4), "head")
    assert rates(model) == {"layer 0": {0.5}, "layer 1": {1.0}, "top": {1.0}}


@pytest.mark.parametrize("architecture", ["llama", "falcon"])
def test_every_trainable_parameter_is_in_one_group_and_norms_are_not_decayed(architecture, make_engine):
    model = make_engine(architecture).model
    groups = parameter_groups(model, RateSettings(1.0, 0.1, 0.9))
    grouped = [id(p) for group in groups for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in model.parameters())
    for group in groups:
        assert all((p.ndim > 1) == (group["weight_decay"] > 0) for p in group["params"])


@pytest.mark.parametrize("objective", ["head", "completion"])
@pytest.mark.parametrize("architecture", ["llama", "falcon"])
def test_all_linear_layers_and_nothing_else_get_adapters(architecture, objective, make_engine):
    model = adapters.attach(make_engine(architecture, objective).model, LoraSettings(r=4), objective)
    adapted = [name for name, _ in model.named_parameters() if "lora_A" in name]
    assert len(adapted) == 2 * LINEAR_MAPS[architecture]
    trained = {name for name, p in model.named_parameters() if p.requires_grad and "lora_" not in name}
    assert all("score" in name for name in trained)
    assert bool(trained) == (objective == "head")


@pytest.mark.parametrize("architecture", ["llama", "falcon"])
def test_adapter_and_head_survive_saving_and_loading_in_plain_peft(architecture, make_engine, tmp_path):
    from peft import PeftModel

    engine = make_engine(architecture)
    engine.model.save_pretrained(tmp_path / "base")
    model = adapters.attach(engine.model, LoraSettings(r=4, dropout=0.0), "head")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
            assert "lora_B" not in name or parameter.abs().sum() > 0
    ids = torch.tensor([engine.encoder.encode(["Coconut hair oil"])[0]])
    model.eval()
    expected = model(input_ids=ids).logits
    model.save_pretrained(tmp_path / "adapter")
    base = AutoModelForSequenceClassification.from_pretrained(tmp_path / "base")
    again = PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    torch.testing.assert_close(again(input_ids=ids).logits, expected)
