"""Wishes that don't go together are told before a model is loaded."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig

from shelfwise.config import parse
from shelfwise.errors import ConfigError, MissingPackageError
from shelfwise.modeling import registry
from shelfwise.modeling.batching import Item
from shelfwise.pipelines import finetune

ITEMS = [Item([1, 2, 3], 0, 3)] * 4
SHAPE = LlamaConfig(
    vocab_size=100, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, num_labels=4
)


def settled(values: dict[str, Any], folder: Path | None = Path("base")) -> Any:
    config = parse({"model": "base", **values}, "test")
    resolved = registry.ResolvedModel("base", folder, "", None)
    return finetune.settle(config, resolved, SHAPE, ITEMS, torch.device("cpu"), "fp32")


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"method": "lora", "training": {"optimizer": "adamw_bf16"}}, "adamw_bf16 is for --method full"),
        ({"method": "full", "training": {"optimizer": "adamw_bf16", "precision": "fp32"}}, "Use adamw, or a"),
        ({"method": "full", "training": {"optimizer": "adamw_bf16"}}, "Use adamw, or a"),  # fp32 on this CPU
    ],
)
def test_optimisers_that_do_not_fit_are_refused(values: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        settled(values)


def test_bf16_weights_go_with_bf16_arithmetic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finetune, "stochastic_rounding_adamw", lambda: torch.optim.AdamW)
    config, choice = settled({"method": "full", "training": {"optimizer": "adamw_bf16", "precision": "bf16"}})
    assert (config.training.optimizer, config.training.precision, choice.optimizer) == (
        "adamw_bf16",
        "bf16",
        "adamw_bf16",
    )


def test_a_missing_package_is_told_before_a_run_is_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchao.optim", None)
    with pytest.raises(MissingPackageError, match="needs torchao: pip install"):
        settled({"method": "full", "training": {"optimizer": "adamw_bf16", "precision": "bf16"}})


def test_fresh_weights_take_no_adapter() -> None:
    with pytest.raises(ConfigError, match="nothing for an adapter to adapt"):
        settled({"method": "lora"}, folder=None)
