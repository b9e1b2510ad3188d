"""Exported runs: they load in plain transformers, answer as the run does, and are refused when they do not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from shelfwise import artifact, cli
from shelfwise.classifier import Classifier
from shelfwise.modeling import merging
from shelfwise.pipelines.export import PARITY, export
from support.runs import LABELS, train_small, write_base_model, write_catalogue

NAMES = ["Coconut hair oil 3 kg", "Basmati long grain", "A thing never seen before", "Aloe face gel"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Trains each combination once."""
    folder = tmp_path_factory.mktemp("export")
    catalogue = write_catalogue(folder / "catalogue.csv")
    bases = {
        architecture: write_base_model(architecture, folder / architecture) for architecture in ("llama", "falcon")
    }

    def make(architecture: str, method: str, objective: str = "head", **changes: Any) -> Path:
        run = folder / "-".join([architecture, method, objective, *sorted(changes)])
        if not (run / artifact.MANIFEST).is_file():
            options = {"method": method, "objective": objective, "baseline": False, **changes}
            train_small(catalogue, run, model=str(bases[architecture]), **options)
        return run

    return make


@pytest.mark.parametrize("method", ["full", "lora", "qlora"])
@pytest.mark.parametrize("architecture", ["llama", "falcon"])
def test_an_exported_head_answers_in_plain_transformers_as_the_run_does(
    made: Any, tmp_path: Path, architecture: str, method: str
) -> None:
    run, out = made(architecture, method), tmp_path / "plain"
    exported = export(run, out, device="cpu")
    assert all(found.flipped == 0 for found in exported.comparisons)
    model = AutoModelForSequenceClassification.from_pretrained(out)
    tokenizer = AutoTokenizer.from_pretrained(out)
    assert [model.config.id2label[i] for i in range(len(LABELS))] == list(LABELS.names)
    assert "quantization_config" not in json.loads((out / "config.json").read_text())
    assert not [path.name for path in out.iterdir() if "adapter" in path.name or path.suffix in (".bin", ".pt")]
    expected = Classifier.load(run, device="cpu").log_probs(NAMES)
    for name, row in zip(NAMES, expected, strict=True):
        logits = model(**tokenizer(f"{name} ->:", return_tensors="pt")).logits[0]
        np.testing.assert_allclose(torch.log_softmax(logits, -1).detach().numpy(), row, atol=1e-3)


@pytest.mark.parametrize(("architecture", "method"), [("llama", "qlora"), ("falcon", "lora"), ("llama", "full")])
def test_an_exported_completion_model_answers_in_plain_transformers_as_the_run_does(
    made: Any, tmp_path: Path, architecture: str, method: str
) -> None:
    run, out = made(architecture, method, "completion"), tmp_path / "plain"
    export(run, out, device="cpu")
    model = AutoModelForCausalLM.from_pretrained(out)
    scorer = Classifier.load(run, device="cpu").scorer
    encoder = scorer.encoder  # type: ignore[attr-defined]
    expected = scorer.log_probs(NAMES)
    for name, row in zip(NAMES, expected, strict=True):
        prompt = encoder.encode([name])[0]
        sums = []
        for completion in encoder.completions(LABELS.names):
            logits = model(input_ids=torch.tensor([[*prompt, *completion]])).logits[0]
            steps = torch.log_softmax(logits[len(prompt) - 1 : -1].float(), -1)
            sums.append(float(steps[range(len(completion)), completion].sum().detach()))
        found = torch.log_softmax(torch.tensor(sums), -1).numpy()
        np.testing.assert_allclose(found, row, atol=2e-3)


def test_the_proof_is_written_and_compares_all_four_ways_on_validation_names(made: Any, tmp_path: Path) -> None:
    exported = export(made("llama", "lora"), tmp_path / "plain", device="cpu")
    stored = json.loads((tmp_path / "plain" / PARITY).read_text(encoding="utf-8"))
    assert [(found["first"], found["second"]) for found in stored["comparisons"]] == [
        ("run", "merged"),
        ("merged", "reloaded"),
        ("run", "reloaded"),
        ("in a batch", "alone"),
    ]
    assert (stored["names_of"], stored["dtype"], stored["margin"]) == ("validation", "fp32", 1e-3)
    assert stored["names"] == exported.names > 5
    assert all(found["largest_difference"] < 1e-3 for found in stored["comparisons"])


def test_weights_are_cast_once_to_the_dtype_that_is_asked_for(made: Any, tmp_path: Path) -> None:
    exported = export(made("llama", "lora"), tmp_path / "plain", dtype="bf16", device="cpu")
    assert (exported.dtype, exported.margin) == ("bf16", 2e-2)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "plain", dtype="auto")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


def test_a_model_that_answers_otherwise_is_not_exported(
    made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = merging.merged

    def turned(*args: Any) -> Any:
        model = real(*args)
        with torch.no_grad():
            model.score.weight.copy_(model.score.weight.flip(0))
        return model

    monkeypatch.setattr(merging, "merged", turned)
    assert cli.run(["export", str(made("llama", "lora")), "--out", str(tmp_path / "plain"), "--device", "cpu"]) == 1
    said = capsys.readouterr().err
    assert "not exported" in said
    assert "get another type (run against merged)" in said
    assert list(tmp_path.iterdir()) == []


def test_the_command_prints_the_proof(made: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    products = tmp_path / "mine.csv"
    products.write_text("product\n" + "\n".join(NAMES) + "\n", encoding="utf-8")
    run, out = made("falcon", "lora"), tmp_path / "plain"
    call = ["export", str(run), "--out", str(out), "--names", str(products), "--device", "cpu"]
    assert cli.run(call) == 0
    said = capsys.readouterr().out
    assert "fp32, proven on 4 names (mine.csv)" in said
    assert "run against merged: 4 names, probabilities differ by at most" in said
    assert "vllm serve" in (out / "README.md").read_text(encoding="utf-8")
    assert cli.run(call) == 2
    assert "exists and is not empty" in capsys.readouterr().err


def test_a_baseline_cannot_be_exported(made: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    catalogue = write_catalogue(tmp_path / "catalogue.csv")
    train_small(catalogue, tmp_path / "run", model="baseline")
    assert cli.run(["export", str(tmp_path / "run"), "--out", str(tmp_path / "plain")]) == 2
    assert "no language model to export" in capsys.readouterr().err
