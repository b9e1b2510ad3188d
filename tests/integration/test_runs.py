"""Every architecture, objective and method that runs on a CPU: train, save, load, and the answers are the same."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from shelfwise import artifact
from shelfwise import config as configs
from shelfwise.classifier import Classifier
from shelfwise.errors import CorruptArtifactError, InterruptedRunError, RunFolderError
from shelfwise.modeling.engine import Engine
from shelfwise.pipelines import finetune
from shelfwise.pipelines.run import Hooks
from shelfwise.pipelines.train import train
from support.runs import LABELS, train_small, write_base_model, write_catalogue

NAMES = ["Coconut hair oil 3 kg", "Basmati long grain", "A thing never seen before", "Aloe face gel </s>"]
CLASSES = {"head": AutoModelForSequenceClassification, "completion": AutoModelForCausalLM}


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory):
    return write_catalogue(tmp_path_factory.mktemp("data") / "catalogue.csv")


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bases")
    return {arch: write_base_model(arch, folder / arch) for arch in ("llama", "falcon")}


@pytest.fixture
def answers(monkeypatch):
    """What the trained model answered in memory, just before it was saved."""
    kept = {}
    save = finetune._save

    def remember(engine: Engine, config, out):
        kept["log_probs"] = engine.log_probs(NAMES)
        save(engine, config, out)

    monkeypatch.setattr(finetune, "_save", remember)
    return kept


@pytest.mark.parametrize("method", ["full", "lora", "qlora"])
@pytest.mark.parametrize("objective", ["head", "completion"])
@pytest.mark.parametrize("architecture", ["llama", "falcon"])
def test_a_reloaded_run_answers_as_the_trained_one_did(
    architecture, objective, method, catalogue, bases, answers, tmp_path
):
    run = train_small(
        catalogue,
        tmp_path / "run",
        model=str(bases[architecture]),
        method=method,
        objective=objective,
        baseline=False,
    )
    again = Classifier.load(tmp_path / "run")
    np.testing.assert_allclose(again.log_probs(NAMES), answers["log_probs"], atol=1e-5)
    assert again.labels.names == LABELS.names
    assert {p.label for p in again.predict(NAMES)} <= set(LABELS.names)
    totals = again.probabilities(NAMES).sum(axis=1)
    np.testing.assert_allclose(totals, 1, atol=1e-5)
    _loads_in_plain_libraries(tmp_path / "run", run.config, again, bases[architecture])
    pickles = [p for p in (tmp_path / "run").rglob("*") if p.suffix in (".bin", ".pt", ".pth", ".pkl")]
    assert pickles == []


def _loads_in_plain_libraries(run, config, classifier, base):
    """The model as transformers or PEFT load it themselves gives the logits that ours gives."""
    tokenizer = AutoTokenizer.from_pretrained(run / "tokenizer")
    cls = CLASSES[config.objective]
    if config.method == "full":
        model = cls.from_pretrained(run / "model")
    elif config.method == "lora":
        from peft import PeftModel

        extra = {"num_labels": len(LABELS)} if config.objective == "head" else {}
        model = PeftModel.from_pretrained(cls.from_pretrained(base, **extra), run / "adapter")
    else:
        return  # a quantised base is loaded through bitsandbytes' configuration, as the run itself was above
    model.eval()
    text = "Coconut hair oil 3 kg"
    ids = tokenizer(f"{text} ->:", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        ours = classifier.scorer.model(input_ids=ids, use_cache=False).logits
        torch.testing.assert_close(model(input_ids=ids).logits, ours, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("model", ["tiny-llama", "tiny-falcon"])
def test_built_in_models_train_with_their_baseline_and_a_complete_run_folder(model, catalogue, tmp_path):
    train_small(catalogue, tmp_path / "run", model=model)
    names = {path.name for path in (tmp_path / "run").iterdir()}
    expected = {
        "manifest.json", "config.yaml", "labels.json", "prompt.json", "split.json", "leakage.json", "calibration.json",
        "metrics.jsonl", "model", "tokenizer", "baseline", "blend.json", "checkpoints", "README.md",
    }  # fmt: skip
    assert names == expected
    manifest = artifact.read_manifest(tmp_path / "run")
    assert manifest["method"] == "full"
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert any("loss" in line for line in lines)
    assert any("eval_macro_f1" in line for line in lines)
    assert "tiny" in (tmp_path / "run" / "README.md").read_text()
    for which in ("model", "baseline", "blend"):
        assert Classifier.load(tmp_path / "run", which=which).predict(["Basmati long grain"])[0].label in LABELS


def test_the_resolved_configuration_repeats_the_run(catalogue, tmp_path):
    train_small(catalogue, tmp_path / "one", model="tiny-falcon", baseline=False)
    config = configs.load(tmp_path / "one" / "config.yaml")
    train(config, tmp_path / "two", device="cpu")
    one, two = (Classifier.load(tmp_path / name).log_probs(NAMES) for name in ("one", "two"))
    np.testing.assert_array_equal(one, two)


def test_a_run_stopped_by_a_signal_goes_on_to_the_same_end(catalogue, tmp_path):
    import os
    import signal

    train_small(catalogue, tmp_path / "whole", model="tiny-llama", baseline=False)
    config = configs.load(tmp_path / "whole" / "config.yaml")
    notes = []

    def interrupt(progress):
        if progress.step == 4:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(InterruptedRunError, match=r"checkpoint-5.*train --resume --out"):
        train(config, tmp_path / "broken", device="cpu", hooks=Hooks(report=interrupt, note=notes.append))
    assert any("SIGTERM" in note for note in notes)
    with pytest.raises(RunFolderError, match="did not end"):
        Classifier.load(tmp_path / "broken")
    with pytest.raises(RunFolderError, match="--resume"):
        train(config, tmp_path / "broken", device="cpu")

    train(None, tmp_path / "broken", resume=True, device="cpu")
    whole, broken = (Classifier.load(tmp_path / name).log_probs(NAMES) for name in ("whole", "broken"))
    np.testing.assert_array_equal(whole, broken)


def test_the_training_time_of_a_resumed_run_is_that_of_all_its_legs(catalogue, tmp_path):
    run = tmp_path / "run"
    spent = run / "checkpoints" / "training_time.json"

    def interrupt(progress):
        if progress.step == 2:
            raise KeyboardInterrupt

    config = {"catalogue": str(catalogue), "model": "tiny-llama", "baseline": False, "training": {"batch_size": 32}}
    with pytest.raises(InterruptedRunError):
        train(configs.parse(config, "test"), run, device="cpu", hooks=Hooks(report=interrupt))
    assert json.loads(spent.read_text())["seconds"] > 0
    spent.write_text('{"seconds": 1000}')
    kept = []

    def validated(progress):
        if "eval_loss" in progress.values:  # what a kill would leave
            kept.append(json.loads(spent.read_text())["seconds"])

    train(None, run, resume=True, device="cpu", hooks=Hooks(report=validated))
    assert 1000 < kept[0] < kept[-1] < artifact.read_manifest(run)["train_seconds"] < 1100


def test_a_run_stopped_after_its_last_step_makes_no_further_one(catalogue, tmp_path):
    """The steps end in the middle of an epoch, and what comes after them was lost."""
    train_small(catalogue, tmp_path / "run", model="tiny-llama", baseline=False, training={"max_steps": 3})
    before = Classifier.load(tmp_path / "run").log_probs(NAMES)
    assert artifact.read_manifest(tmp_path / "run")["steps"] == 3
    (tmp_path / "run" / artifact.MANIFEST).unlink()
    steps = []
    report = Hooks(report=lambda progress: steps.append(progress.step))
    assert train(None, tmp_path / "run", resume=True, device="cpu", hooks=report).steps == 3
    assert not [step for step in steps if step > 3]
    assert artifact.read_manifest(tmp_path / "run")["steps"] == 3
    np.testing.assert_array_equal(Classifier.load(tmp_path / "run").log_probs(NAMES), before)


def test_a_run_of_the_baseline_alone_is_a_classifier_too(catalogue, tmp_path):
    train_small(catalogue, tmp_path / "run", model="baseline")
    predicted = Classifier.load(tmp_path / "run").predict(["Coconut hair oil"])[0]
    assert predicted.label == "Hair Oil"


def test_a_damaged_run_is_refused(catalogue, tmp_path):
    train_small(catalogue, tmp_path / "run", model="baseline")
    path = tmp_path / "run" / "labels.json"
    path.write_text(path.read_text().replace("Rice Flour", "Rice Fl0ur"))
    with pytest.raises(CorruptArtifactError, match=r"labels\.json"):
        Classifier.load(tmp_path / "run")


def test_training_into_a_folder_with_something_in_it_is_refused(catalogue, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").touch()
    with pytest.raises(RunFolderError, match="not empty"):
        train_small(catalogue, tmp_path / "run", model="tiny-llama")
