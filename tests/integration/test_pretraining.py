"""Names read before labels are learned, and heads that begin with the labels' own texts."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig

from shelfwise import artifact, cli
from shelfwise import config as configs
from shelfwise.classifier import Classifier
from shelfwise.config import parse
from shelfwise.errors import CorruptArtifactError, InterruptedRunError
from shelfwise.modeling import head_init, registry
from shelfwise.modeling.encoding import Encoder, load_tokenizer
from shelfwise.pipelines import finetune
from shelfwise.pipelines.pretraining import Pretraining, items_of, texts_of
from shelfwise.pipelines.run import Hooks, Prepared, prepare
from shelfwise.pipelines.train import train
from shelfwise.prompts import PromptFormat
from support import together
from support.runs import EXAMPLES, write_base_model, write_catalogue

NAMES = [f"{text} no {number}" for number, (text, _) in enumerate(EXAMPLES[:12])]


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The usual rows, with brands; every tenth has no type."""
    path = write_catalogue(tmp_path_factory.mktemp("data") / "catalogue.csv")
    with path.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    with path.open("w", newline="", encoding="utf-8") as stream:
        table = csv.DictWriter(stream, ["product", "brand", "type"])
        table.writeheader()
        for number, row in enumerate(rows):
            kind = "" if number % 10 == 0 else row["type"]
            table.writerow({"product": row["product"], "brand": f"Brand{number % 3}", "type": kind})
    return path


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bases")
    return {name: write_base_model(name, folder / name) for name in ("llama", "falcon")}


def values_of(catalogue: Path, base: Path, method: str = "full", objective: str = "head", **training: Any) -> dict:
    return {
        "catalogue": str(catalogue), "model": str(base), "method": method, "objective": objective,
        "lora": {"r": 4, "dropout": 0.0}, "baseline": False, "split": {"test_size": 0.3, "validation_size": 0.2},
        "training": {"epochs": 1, "batch_size": 16, "micro_batch_size": 8, "learning_rate": 5e-3, "precision": "fp32",
                     "pretraining_epochs": 2, **training},
    }  # fmt: skip


def trained(values: dict, out: Path, **more: Any) -> tuple[list[Any], list[str]]:
    """A run's reports and notes."""
    reports: list[Any] = []
    notes: list[str] = []
    train(parse(values, "test"), out, device="cpu", hooks=Hooks(report=reports.append, note=notes.append), **more)
    return reports, notes


@pytest.fixture(scope="module")
def prepared(catalogue: Path, bases: dict[str, Path]) -> Prepared:
    return prepare(parse(values_of(catalogue, bases["llama"]), "test"))


def test_what_is_read_are_all_names_with_their_brands_but_the_held_out_ones(prepared: Prepared) -> None:
    texts = texts_of(prepared)
    parts = prepared.splits.parts(prepared.catalogue)
    unlabelled = [product for product in prepared.catalogue.products if product.label is None]
    assert unlabelled
    assert len(texts) == len(parts.train) + len(unlabelled)
    assert sorted(texts) == sorted(f"{p.brand} {p.name}" for p in [*parts.train, *unlabelled])
    held_out = {product.name for product in (*parts.validation, *parts.test)}
    assert held_out
    assert not held_out & {text.split(" ", 1)[1] for text in texts}


def test_every_token_of_a_name_but_the_first_is_a_target_and_so_is_its_end(
    prepared: Prepared, bases: dict[str, Path]
) -> None:
    encoder = Encoder(load_tokenizer(bases["llama"]), PromptFormat())
    eos = encoder.tokenizer.eos_token_id
    first = items_of(prepared, encoder)[0]
    assert (first.prompt_length, first.input_ids[-1], first.input_ids.count(eos)) == (1, eos, 1)
    assert first.input_ids[:-1] == encoder.tokenizer(texts_of(prepared)[0])["input_ids"]
    long = encoder.plain(["rice " * 500])[0]
    assert (len(long), long[-1]) == (encoder.max_length, eos)


@pytest.mark.parametrize(
    ("architecture", "method", "objective", "packed"),
    [
        ("llama", "full", "head", False),
        ("falcon", "full", "completion", True),
        ("falcon", "lora", "head", True),
        ("llama", "qlora", "completion", False),
    ],
)
def test_names_are_learned_first_and_the_run_goes_on_from_there(
    architecture: str, method: str, objective: str, packed: bool, catalogue: Path, bases: dict[str, Path],
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    kept: dict[str, Any] = {}
    keep = Pretraining.keep

    def remember(self: Pretraining, model: Any) -> None:
        keep(self, model)
        kept.update(load_file(self.folder / "weights" / "model.safetensors"))

    begun: dict[str, torch.Tensor] = {}
    optimise = finetune._optimise

    def look(engine: Any, job: Any, *rest: Any) -> Any:
        if job.checkpoints.parent.name != artifact.PRETRAINING:
            begun.update({n: p.detach().clone() for n, p in engine.model.named_parameters() if p.requires_grad})
        return optimise(engine, job, *rest)

    monkeypatch.setattr(Pretraining, "keep", remember)
    monkeypatch.setattr(finetune, "_optimise", look)
    run = tmp_path / "run"
    reports, notes = trained(values_of(catalogue, bases[architecture], method, objective, packed=packed), run)
    losses = [r.values["pretraining_loss"] for r in reports if "pretraining_loss" in r.values]
    vocabulary = load_tokenizer(bases[architecture]).vocab_size
    assert losses[0] == pytest.approx(math.log(vocabulary), rel=0.2)
    assert losses[-1] < 0.95 * losses[0]
    assert any("reading" in note and "2 times over" in note for note in notes)
    shared = set(kept) & set(begun)
    assert len(shared) > 5
    for name in shared:
        torch.testing.assert_close(begun[name], kept[name], rtol=0, atol=0)
    assert all("lm_head" in name for name in set(kept) - shared)
    assert not (run / artifact.PRETRAINING).exists()
    assert "after reading the catalogue's names 2 times" in (run / artifact.CARD).read_text(encoding="utf-8")
    lines = [json.loads(line) for line in (run / artifact.METRICS).read_text(encoding="utf-8").splitlines()]
    assert any("pretraining_loss" in line for line in lines)
    assert any("loss" in line for line in lines)
    again = Classifier.load(run, device="cpu").log_probs(NAMES)
    assert np.isfinite(again).all()


@pytest.mark.parametrize(("method", "stop"), [("full", "names"), ("lora", "names"), ("full", "labels")])
def test_a_stopped_run_goes_on_as_if_it_had_not_been_and_reads_nothing_twice(
    method: str, stop: str, catalogue: Path, bases: dict[str, Path], tmp_path: Path
) -> None:
    values = values_of(catalogue, bases["llama"], method)
    whole = tmp_path / "whole"
    trained(values, whole)
    broken = tmp_path / "broken"
    seen = 0

    def report(progress: Any) -> None:
        nonlocal seen
        reading = any(name.startswith("pretraining") for name in progress.values)
        if progress.step == 2 and reading == (stop == "names") and progress.values and not seen:
            seen = 1
            together.terminate()

    with pytest.raises(InterruptedRunError, match="Checkpoint kept"):
        train(parse(values, "test"), broken, device="cpu", hooks=Hooks(report=report))
    spent = broken / artifact.PRETRAINING / artifact.CHECKPOINTS / "training_time.json"
    spent.write_text('{"seconds": 1000}', encoding="utf-8")
    reports: list[Any] = []
    train(None, broken, resume=True, device="cpu", hooks=Hooks(report=reports.append))
    first = [r.step for r in reports if any(name.startswith("pretraining") for name in r.values)]
    assert (min(first) > 2) if stop == "names" else not first
    assert 1000 < artifact.read_manifest(broken)["train_seconds"] < 1100
    np.testing.assert_array_equal(
        Classifier.load(broken, device="cpu").log_probs(NAMES), Classifier.load(whole, device="cpu").log_probs(NAMES)
    )


def test_damaged_weights_of_the_names_are_told(catalogue: Path, bases: dict[str, Path], tmp_path: Path) -> None:
    values = values_of(catalogue, bases["llama"])
    run = tmp_path / "run"

    def report(progress: Any) -> None:
        if "loss" in progress.values:
            raise KeyboardInterrupt

    with pytest.raises(InterruptedRunError):
        train(parse(values, "test"), run, device="cpu", hooks=Hooks(report=report))
    (run / artifact.PRETRAINING / "weights" / "model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(CorruptArtifactError, match=r"pretraining.weights.model\.safetensors: .*another --out"):
        train(None, run, resume=True, device="cpu")


def test_few_steps_read_names_for_no_more_steps(catalogue: Path, bases: dict[str, Path], tmp_path: Path) -> None:
    reports, notes = trained(values_of(catalogue, bases["llama"], max_steps=2), tmp_path / "run")
    assert {r.steps for r in reports} == {2}
    assert any("names for 2 steps" in note for note in notes)


def test_what_is_done_where_nothing_is_said_is_what_was_measured(bases: dict[str, Path], prepared: Prepared) -> None:
    base = bases["llama"]
    spec = registry.MODELS["smollm2-135m"]
    found = {}
    for name, resolved in {
        "smollm2-135m": registry.ResolvedModel("smollm2-135m", base, "", spec),
        "a folder": registry.ResolvedModel(str(base), base, "", None),
        "tiny-llama": registry.ResolvedModel("tiny-llama", None, "", registry.MODELS["tiny-llama"]),
    }.items():
        for method in ("full", "lora"):
            if name == "tiny-llama" and method == "lora":
                continue
            config = parse(values_of(Path("unused"), base, method, pretraining_epochs=None), "test")
            encoder = Encoder(load_tokenizer(base), PromptFormat())
            items = finetune.encode_items(encoder, "head", prepared)
            shape = AutoConfig.from_pretrained(base)
            settled, _ = finetune.settle(config, resolved, shape, items, torch.device("cpu"), "fp32")
            found[name, method] = (settled.training.pretraining_epochs, settled.training.head_init)
    assert found == {
        ("smollm2-135m", "full"): (2, "labels"),
        ("smollm2-135m", "lora"): (0, "random"),
        ("a folder", "full"): (0, "labels"),
        ("a folder", "lora"): (0, "random"),
        ("tiny-llama", "full"): (0, "random"),
    }


@pytest.mark.parametrize(("architecture", "method"), [("llama", "full"), ("falcon", "lora")])
def test_a_head_begins_with_the_directions_of_its_labels_texts(
    architecture: str, method: str, catalogue: Path, bases: dict[str, Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    found: dict[str, Any] = {}
    init = finetune.init_from_labels

    def look(engine: Any) -> None:
        init(engine)
        states = head_init._last_states(engine)
        states, weight = states.detach(), head_init.head_of(engine.model).weight.detach()
        found["trains"] = head_init.head_of(engine.model).weight.requires_grad
        found["own"] = ((states - states.mean(dim=0)) @ weight.T).argmax(dim=1).tolist()
        found["spread"] = float(((states - states.mean(dim=0)) @ weight.T).std())
        found["norms"] = weight.norm(dim=1)
        ids = engine.encoder.encode(list(engine.labels.names))
        plain = engine.model.get_base_model() if hasattr(engine.model, "get_base_model") else engine.model
        alone = [getattr(plain, plain.base_model_prefix)(input_ids=torch.tensor([row]))[0][0, -1] for row in ids]
        found["alone"], found["states"] = torch.stack(alone).detach(), states

    monkeypatch.setattr(finetune, "init_from_labels", look)
    values = values_of(catalogue, bases[architecture], method, pretraining_epochs=0, max_steps=1, head_init="labels")
    trained(values, tmp_path / "run")
    assert found["trains"]
    assert found["own"] == list(range(len(found["own"])))  # each label's text is nearest to its own row
    assert found["spread"] == pytest.approx(head_init.SPREAD, rel=1e-4)
    assert found["norms"].std() == pytest.approx(0, abs=1e-5)
    torch.testing.assert_close(found["states"], found["alone"], rtol=1e-4, atol=1e-5)


def test_the_command_takes_the_option(catalogue: Path, bases: dict[str, Path], tmp_path: Path) -> None:
    run = tmp_path / "run"
    call = ["train", str(catalogue), "--out", str(run), "--model", str(bases["llama"]), "--method", "full"]
    assert cli.run([*call, "--max-steps", "1", "--pretraining-epochs", "1", "--device", "cpu"]) == 0
    assert configs.load(run / artifact.CONFIG).training.pretraining_epochs == 1
    assert cli.run([*call, "--pretraining-epochs", "-1", "--out", str(tmp_path / "other")]) == 2
