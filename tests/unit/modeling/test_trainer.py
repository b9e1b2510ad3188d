from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from shelfwise import storage
from shelfwise.config import LoraSettings, TrainingConfig
from shelfwise.errors import CorruptArtifactError, TrainingError
from shelfwise.modeling import adapters, checkpoint
from shelfwise.modeling.batching import StepSampler
from shelfwise.modeling.engine import Engine
from shelfwise.modeling.job import Job, Validation
from shelfwise.modeling.packed.model import PackedModel
from shelfwise.modeling.trainer import ShelfwiseTrainer
from support.catalogue import EXAMPLES, LABELS, items_for

HELD_OUT = EXAMPLES[::7]


def job_for(engine, folder, **changes):
    values = {"epochs": 2, "batch_size": 20, "dropout": 0.1, "checkpoints_kept": 9, **changes}
    return Job(
        items=items_for(engine),
        validation=Validation([text for text, _ in HELD_OUT], [LABELS.index(label) for _, label in HELD_OUT]),
        config=TrainingConfig(**values),
        micro_batch_size=5,
        learning_rate=2e-3,
        precision="fp32",
        checkpoints=folder,
    )


def with_losses(job, into):
    def report(progress):
        if "loss" in progress.values:
            into[progress.step] = progress.values["loss"]

    return Job(**{name: getattr(job, name) for name in job.__dataclass_fields__ if name != "report"}, report=report)


def adapted(engine):
    model = adapters.attach(engine.model, LoraSettings(r=4, dropout=0.1), engine.objective)
    return Engine(model, engine.encoder, engine.objective, engine.labels, engine.device, engine.precision, engine.tree)


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("objective", ["head", "completion"])
@pytest.mark.parametrize("architecture", ["llama", "falcon"])
def test_a_resumed_run_has_the_losses_of_an_unbroken_one(architecture, objective, method, make_engine, tmp_path):
    def engine():
        made = make_engine(architecture, objective, dropout=0.1)
        return adapted(made) if method == "lora" else made

    whole: dict[int, float] = {}
    first = engine()
    ShelfwiseTrainer(first, with_losses(job_for(first, tmp_path), whole)).train()

    rest: dict[int, float] = {}
    second = engine()
    torch.manual_seed(99)  # whatever the random state is, the checkpoint's counts
    trainer = ShelfwiseTrainer(second, with_losses(job_for(second, tmp_path), rest))
    trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-6"))

    assert sorted(whole) == list(range(1, 13))
    assert sorted(rest) == list(range(7, 13))
    assert rest == {step: whole[step] for step in rest}
    text = [text for text, _ in HELD_OUT]
    np.testing.assert_array_equal(first.log_probs(text), second.log_probs(text))


def test_stopping_in_the_middle_of_an_epoch_and_going_on_changes_nothing(make_engine, tmp_path):
    whole: dict[int, float] = {}
    first = make_engine("llama", dropout=0.1)
    ShelfwiseTrainer(first, with_losses(job_for(first, tmp_path / "whole"), whole)).train()

    losses: dict[int, float] = {}
    second = make_engine("llama", dropout=0.1)
    job = with_losses(job_for(second, tmp_path / "broken"), losses)
    report = job.report

    def stop_at_four(progress):
        report(progress)
        if progress.step == 3:
            job.stop.requested = True

    object.__setattr__(job, "report", stop_at_four)
    ShelfwiseTrainer(second, job).train()
    kept = checkpoint.latest(tmp_path / "broken")
    assert kept is not None
    assert kept.name == "checkpoint-4"

    third = make_engine("llama", dropout=0.1)
    ShelfwiseTrainer(third, with_losses(job_for(third, tmp_path / "broken"), losses)).train(
        resume_from_checkpoint=str(kept)
    )
    assert losses == whole


def test_a_loss_that_is_no_number_ends_the_run_and_names_the_step(make_engine, tmp_path):
    engine = make_engine("llama")
    job = job_for(engine, tmp_path)

    def poison(progress):
        if progress.step == 7:
            with torch.no_grad():
                next(engine.model.parameters()).fill_(float("nan"))

    object.__setattr__(job, "report", poison)
    with pytest.raises(TrainingError, match=r"at step 8 of 12"):
        ShelfwiseTrainer(engine, job).train()
    assert [path.name for path in checkpoint.complete(tmp_path)] == ["checkpoint-6"]


def test_early_stopping_ends_a_run_that_no_longer_gains_and_the_best_weights_are_kept(make_engine, tmp_path):
    engine = make_engine("falcon")
    trainer = ShelfwiseTrainer(engine, job_for(engine, tmp_path, epochs=40, patience=2))
    trainer.train()
    assert trainer.state.global_step < trainer.job.steps
    assert trainer.evaluate()["eval_macro_f1"] == trainer.state.best_metric


def test_training_learns_with_rates_that_decay_by_layer(make_engine, tmp_path):
    engine = make_engine("llama")
    trainer = ShelfwiseTrainer(engine, job_for(engine, tmp_path, epochs=8, layer_decay=0.8))
    trainer.train()
    assert trainer.state.best_metric > 0.9


def test_the_step_does_not_depend_on_the_micro_batch(make_engine, tmp_path):
    losses = {}
    for micro in (4, 20):
        engine = make_engine("llama")
        job = job_for(engine, tmp_path / str(micro), epochs=1, dropout=0.0)
        object.__setattr__(job, "micro_batch_size", micro)
        losses[micro] = {}
        ShelfwiseTrainer(engine, with_losses(job, losses[micro])).train()
    assert len(losses[4]) == 6
    for step in losses[4]:
        assert losses[4][step] == pytest.approx(losses[20][step], rel=1e-3)


def test_a_packed_run_deals_its_rows_as_drawn(make_engine, tmp_path):
    """Without padding, rows of like length side by side would only make one micro-batch larger than the others."""
    engine = make_engine("llama")
    packed = PackedModel.of(engine.model, 64, dtype=torch.float32, compiled=False)
    job = job_for(engine, tmp_path)
    lengths = [len(item.input_ids) for item in job.items]
    for made, padded in ((engine, True), (replace(engine, packed=packed), False)):
        order = list(StepSampler(lengths, 20, 5, job.config.seed, padded=padded))
        assert list(ShelfwiseTrainer(made, job).sampler) == order


def test_a_checkpoint_holds_no_pickle_and_is_verified(make_engine, tmp_path):
    engine = make_engine("llama")
    ShelfwiseTrainer(engine, job_for(engine, tmp_path)).train()
    names = {path.name for path in (tmp_path / "checkpoint-6").iterdir()}
    assert {"manifest.json", "model.safetensors", "trainer_state.json", checkpoint.STATE_TENSORS} <= names
    assert not any(name.endswith((".bin", ".pt", ".pth", ".pkl")) for name in names)

    newest = tmp_path / "checkpoint-12" / checkpoint.STATE_VALUES
    newest.write_text(newest.read_text().replace("0", "1", 1))
    assert checkpoint.latest(tmp_path) == tmp_path / "checkpoint-6"
    (tmp_path / "checkpoint-6" / "model.safetensors").unlink()
    with pytest.raises(CorruptArtifactError, match="none of the 2"):
        checkpoint.latest(tmp_path)


def test_a_folder_without_a_manifest_is_no_checkpoint(tmp_path):
    (tmp_path / "checkpoint-3").mkdir()
    assert checkpoint.latest(tmp_path) is None


def test_old_checkpoints_go_and_the_best_and_the_newest_stay(tmp_path):
    for step in (1, 2, 3, 4):
        folder = checkpoint.folder_of(tmp_path, step)
        folder.mkdir()
        storage.write_manifest(folder, {"step": step})
    checkpoint.rotate(tmp_path, 2, best=tmp_path / "checkpoint-2")
    assert [path.name for path in checkpoint.complete(tmp_path)] == ["checkpoint-2", "checkpoint-4"]
    checkpoint.rotate(tmp_path, 1, best=tmp_path / "checkpoint-4")
    assert [path.name for path in checkpoint.complete(tmp_path)] == ["checkpoint-4"]


def test_the_training_state_file_is_plain_json(make_engine, tmp_path):
    engine = make_engine("llama")
    ShelfwiseTrainer(engine, job_for(engine, tmp_path)).train()
    values = json.loads((tmp_path / "checkpoint-6" / checkpoint.STATE_VALUES).read_text())
    assert set(values) == {"optimizer", "scheduler", "scaler", "numpy", "python"}
