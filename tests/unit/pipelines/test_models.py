"""What `shelfwise models` says of this machine."""

from __future__ import annotations

import pytest
import torch

from shelfwise.modeling import hardware
from shelfwise.modeling.memory import GIB
from shelfwise.pipelines.models import list_models


@pytest.mark.parametrize(
    ("device", "gib", "methods"),
    [
        ("cuda", 139, ("full", "lora", "qlora")),
        ("cuda", 79, ("full", "lora", "qlora")),  # in bf16 with stochastic rounding
        ("cpu", 79, ("lora", "qlora")),
        ("cuda", 24, ("lora", "qlora")),
        ("cuda", 8, ("qlora",)),
        ("cuda", 3, ()),
    ],
)
def test_methods_of_a_7b_model_follow_from_the_memory(
    device: str, gib: int, methods: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "resolve_device", lambda _: torch.device(device))
    monkeypatch.setattr(hardware, "free_memory", lambda _: gib * GIB)
    monkeypatch.setattr(hardware, "resolve_precision", lambda *_: "bf16")
    rows = {row.name: row for row in list_models().models}
    assert rows["llama2-7b"].methods == methods
    assert rows["tiny-llama"].methods == ("full",)
