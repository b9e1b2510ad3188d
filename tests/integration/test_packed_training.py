"""Training without padding gives the losses, the weights and the answers of training with it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from shelfwise import artifact
from shelfwise.classifier import Classifier
from support.runs import train_small, write_base_model, write_catalogue

NAMES = ["Basmati Rice 5 kg", "Green Tea 25 bags", "Dish Soap"]
CASES = [
    ("llama", "full", "head"),
    ("falcon", "full", "completion"),
    ("llama", "lora", "completion"),
    ("falcon", "lora", "head"),
    ("llama", "qlora", "head"),
    ("falcon", "qlora", "head"),
]


def losses(run: Path) -> list[float]:
    lines = (run / artifact.METRICS).read_text(encoding="utf-8").splitlines()
    return [entry["loss"] for entry in map(json.loads, lines) if "loss" in entry]


@pytest.mark.slow
@pytest.mark.parametrize(("architecture", "method", "objective"), CASES)
def test_packed_training_is_padded_training(tmp_path: Path, architecture: str, method: str, objective: str) -> None:
    catalogue = write_catalogue(tmp_path / "catalogue.csv")
    base = write_base_model(architecture, tmp_path / "base")
    # Without dropout: its masks are drawn in another order.
    wish = {"model": str(base), "method": method, "objective": objective, "lora": {"dropout": 0.0}}
    runs = {}
    for name, packed in (("padded", False), ("packed", True)):
        training = {"packed": packed, "max_steps": 6, "batch_size": 16, "micro_batch_size": 8}
        runs[name] = train_small(catalogue, tmp_path / name, **wish, training=training).folder
    assert len(losses(runs["padded"])) == 6
    np.testing.assert_allclose(losses(runs["packed"]), losses(runs["padded"]), rtol=2e-4)
    answers = [Classifier.load(run).log_probs(NAMES) for run in runs.values()]
    np.testing.assert_allclose(answers[1], answers[0], atol=5e-3)
