"""A run whose memory is full goes on in smaller micro-batches, says so, and can be resumed with them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaForSequenceClassification

from shelfwise import artifact, processes
from shelfwise import config as configs
from shelfwise.errors import WorkError
from shelfwise.pipelines import shrinking
from shelfwise.pipelines.run import Hooks
from shelfwise.pipelines.train import train
from support.runs import write_catalogue

TRAINING = {"max_steps": 3, "batch_size": 16, "micro_batch_size": 16, "learning_rate": 5e-3, "precision": "fp32"}


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_catalogue(tmp_path_factory.mktemp("data") / "catalogue.csv")


def hold(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    """Let training passes of more rows fail as a full GPU does."""
    plain: Callable[..., Any] = LlamaForSequenceClassification.forward

    def forward(self: Any, input_ids: torch.Tensor, **rest: Any) -> Any:
        if self.training and len(input_ids) > rows:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return plain(self, input_ids=input_ids, **rest)

    monkeypatch.setattr(LlamaForSequenceClassification, "forward", forward)


def config(catalogue: Path, **training: Any) -> configs.TrainConfig:
    values = {"catalogue": str(catalogue), "model": "tiny-llama", "method": "full", "baseline": False}
    return configs.parse({**values, "training": {**TRAINING, **training}}, "test")


def test_the_run_ends_well_and_its_configuration_holds_the_micro_batch_that_fitted(
    catalogue: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes: list[str] = []
    hold(monkeypatch, 4)
    run = train(config(catalogue), tmp_path / "run", device="cpu", hooks=Hooks(note=notes.append))
    assert run.steps == 3
    assert run.config.training.micro_batch_size == 4
    saved = configs.load(tmp_path / "run" / artifact.CONFIG)
    assert (saved.training.micro_batch_size, saved.training.batch_size) == (4, 16)
    said = [line for line in notes if "the memory was full" in line]
    assert ["micro-batches of 8" in said[0], "micro-batches of 4" in said[1]] == [True, True]
    artifact.read_manifest(tmp_path / "run")


def test_a_stopped_run_is_resumed_with_the_micro_batch_that_fitted(
    catalogue: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from shelfwise.pipelines import finetune

    def fail(*_: object) -> None:
        raise WorkError("stopped before it was saved")

    with monkeypatch.context() as patch:
        hold(patch, 8)
        patch.setattr(finetune, "_save", fail)
        with pytest.raises(WorkError, match="stopped"):
            train(config(catalogue), tmp_path / "run", device="cpu")
    notes: list[str] = []
    run = train(None, tmp_path / "run", resume=True, device="cpu", hooks=Hooks(note=notes.append))
    assert run.config.training.micro_batch_size == 8
    assert any("in micro-batches of 8" in line for line in notes)
    assert configs.load(tmp_path / "run" / artifact.CONFIG).split.file is None


def test_at_a_micro_batch_of_one_the_error_says_what_else_takes_less(
    catalogue: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold(monkeypatch, 0)
    with pytest.raises(WorkError, match=r"full, even at a micro-batch of 1\. What takes less: --gradient-checkpoint"):
        train(config(catalogue, micro_batch_size=2), tmp_path / "run", device="cpu")


def test_the_error_leaves_out_what_the_run_does_already(monkeypatch: pytest.MonkeyPatch) -> None:
    changes = {"gradient_checkpointing": True, "micro_batch_size": 16}
    base = configs.parse({"model": "llama2-7b", "method": "qlora", "training": changes}, "test")
    message = str(shrinking.out_of_memory(base, 16))
    assert "not for its rows alone. What takes less: a smaller base model." in message
    assert message.endswith("shelfwise plan --model llama2-7b")
    monkeypatch.setattr(processes, "count", lambda: 2)
    assert "of 16 on each of 2 processes. What takes less: a smaller --micro-b" in str(
        shrinking.out_of_memory(base, 16)
    )
    full = base.model_copy(update={"method": "full"})
    assert "--method lora, --method qlora" in str(shrinking.out_of_memory(full, 1))
