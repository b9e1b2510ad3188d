from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from shelfwise.modeling import backbone, tiny
from shelfwise.modeling.encoding import Encoder
from shelfwise.modeling.engine import Engine
from shelfwise.prompts import PromptFormat
from support.catalogue import EXAMPLES, LABELS


@pytest.fixture(scope="session")
def encoders() -> dict[str, Encoder]:
    prompts = PromptFormat()
    texts = [prompts.labelled(text, label) for text, label in EXAMPLES]
    return {arch: Encoder(tiny.tokenizer_for(arch, texts), prompts) for arch in ("llama", "falcon")}


@pytest.fixture
def make_engine(encoders: dict[str, Encoder]) -> Callable[..., Engine]:
    def make(
        architecture: str, objective: Any = "head", *, dropout: float = 0.0, seed: int = 0, layers: int = 2
    ) -> Engine:
        encoder = encoders[architecture]
        settings = backbone.LoadSettings(objective, "full", len(LABELS), torch.device("cpu"), "fp32", dropout=dropout)
        torch.manual_seed(seed)
        config = tiny.config_for(architecture, encoder.tokenizer)
        config.num_hidden_layers, config.hidden_size, config.intermediate_size = layers, 64, 128
        model = backbone.fresh(config, settings, encoder.tokenizer.pad_token_id)
        return Engine.of(model, encoder, objective, LABELS, settings.device, settings.precision)

    return make
