"""`shelfwise train` as a parser: what it hands to the pipeline, and what it prints where."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from shelfwise import cli
from shelfwise.config import TrainConfig
from shelfwise.errors import InterruptedRunError, TrainingError
from shelfwise.modeling.job import TrainProgress
from shelfwise.pipelines.run import Hooks, TrainedRun

CONFIG = """
model: falcon-7b
method: lora
text_columns: [brand, product]
columns: {type: shelf}
lora: {r: 4, dropout: 0.2}
training: {epochs: 9, batch_size: 64, layer_decay: 0.9, gradient_checkpointing: true}
trackers: [mlflow]
"""


class Pipeline:
    """Stands in for `pipelines.train.train` and keeps what it was called with."""

    error: Exception | None = None
    config: TrainConfig | None
    options: dict[str, Any]

    def train(self, config: TrainConfig | None, out: Path, *, hooks: Hooks, **options: Any) -> TrainedRun:
        self.config, self.options = config, {"out": out, **options}
        hooks.note("4 products to train on")
        hooks.report(TrainProgress(1, 2, 0.5, {"loss": 1.5}))
        values = {"eval_accuracy": 0.5, "eval_macro_f1": 0.25, "eval_loss": 1.0}
        hooks.report(TrainProgress(2, 2, 1.0, values))
        if self.error is not None:
            raise self.error
        return TrainedRun(out, config or TrainConfig(), 2, 1.25, 0.25, None, 4)


@pytest.fixture
def pipeline(monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    stub = Pipeline()
    monkeypatch.setattr("shelfwise.pipelines.train.train", stub.train)
    monkeypatch.setattr("shelfwise.pipelines.trackers.require", lambda names, where: None)  # as if installed
    return stub


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "recipe.yaml").write_text(CONFIG, encoding="utf-8")
    return tmp_path / "recipe.yaml"


def value_of(config: TrainConfig | None, key: str) -> object:
    found: Any = config
    for part in key.split("."):
        found = getattr(found, part)
    return found


@pytest.mark.parametrize(
    ("words", "key", "value"),
    [
        ("--model smollm2-135m", "model", "smollm2-135m"),
        ("--method full", "method", "full"),
        ("--classifier blend", "classifier", "blend"),
        ("--objective completion", "objective", "completion"),
        ("--text-columns product", "text_columns", ("product",)),
        ("--type kind", "columns.type", "kind"),
        ("--brand maker", "columns.brand", "maker"),
        ("--strategy random", "split.strategy", "random"),
        ("--split old.json", "split.file", Path("old.json")),
        ("--epochs 2.5", "training.epochs", 2.5),
        ("--max-steps 7", "training.max_steps", 7),
        ("--batch-size 32", "training.batch_size", 32),
        ("--micro-batch-size 8", "training.micro_batch_size", 8),
        ("--learning-rate 1e-3", "training.learning_rate", 1e-3),
        ("--layer-decay 0.8", "training.layer_decay", 0.8),
        ("--weight-decay 0", "training.weight_decay", 0.0),
        ("--lora-r 32", "lora.r", 32),
        ("--precision fp16", "training.precision", "fp16"),
        ("--gradient-checkpointing", "training.gradient_checkpointing", True),
        ("--no-gradient-checkpointing", "training.gradient_checkpointing", False),
        ("--best-metric loss", "training.best_metric", "loss"),
        ("--patience 3", "training.patience", 3),
        ("--seed 0", "training.seed", 0),
        ("--tracker wandb --tracker tensorboard", "trackers", ("wandb", "tensorboard")),
    ],
)
def test_an_option_overrides_the_configuration_file_and_nothing_else_of_it(
    words: str, key: str, value: object, config: Path, pipeline: Pipeline
) -> None:
    assert cli.run(["train", "c.csv", "--config", str(config), "--out", "run"]) == 0
    before = pipeline.config
    assert before is not None
    assert cli.run(["train", "c.csv", "--config", str(config), "--out", "run", *words.split()]) == 0
    assert value_of(pipeline.config, key) == value
    top = key.split(".")[0]
    assert pipeline.config is not None
    assert pipeline.config.model_dump(exclude={top}) == before.model_dump(exclude={top})
    if "." in key:
        section, name = value_of(pipeline.config, top), key.split(".")[1]
        assert section.model_dump(exclude={name}) == value_of(before, top).model_dump(exclude={name})  # type: ignore[attr-defined]


def test_without_options_the_file_holds_and_without_a_file_the_defaults(config: Path, pipeline: Pipeline) -> None:
    assert cli.run(["train", "c.csv", "--config", str(config), "--out", "run"]) == 0
    assert pipeline.config is not None
    assert (pipeline.config.lora.r, pipeline.config.training.epochs, pipeline.config.trackers) == (4, 9, ("mlflow",))
    assert pipeline.config.columns.type == "shelf"
    assert cli.run(["train", "c.csv", "--out", "run"]) == 0
    assert pipeline.config == TrainConfig(catalogue=Path("c.csv"))
    assert pipeline.options.items() >= {"out": Path("run"), "resume": False, "device": "auto"}.items()


def test_a_resumed_run_is_asked_for_without_a_configuration(
    pipeline: Pipeline, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["train", "--resume", "--out", "run", "--device", "cpu"]) == 0
    assert pipeline.config is None
    assert pipeline.options.items() >= {"out": Path("run"), "resume": True, "device": "cpu"}.items()
    for option in ("--no-gradient-checkpointing", "--seed=0", "--epochs=3", "--tracker=wandb"):
        assert cli.run(["train", "--resume", "--out", "run", option]) == 2
        assert "keeps its own configuration" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--model baseline --method lora --epochs 3", "--method, --epochs: only a language model has that"),
        ("--model baseline --lora-r 8", "--lora-r: only a language model has that"),
        ("--model baseline --no-gradient-checkpointing --seed 0", "--gradient-checkpointing, --seed: only a"),
        ("--model baseline --classifier model", "--classifier: only a language model has that"),
        ("--model baseline --classifier blend", "name one as model, or leave it out"),
        ("--split old.json --strategy random", "--strategy: the split is read from old.json"),
    ],
)
def test_an_option_that_would_change_nothing_is_refused(
    words: str, message: str, pipeline: Pipeline, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["train", "c.csv", "--out", "run", *words.split()]) == 2
    assert message in capsys.readouterr().err
    assert not hasattr(pipeline, "config")


def test_a_recipe_of_a_language_model_can_be_had_as_a_baseline(config: Path, pipeline: Pipeline) -> None:
    words = ["--config", str(config), "--model", "baseline", "--method", "auto", "--tracker", "wandb"]
    assert cli.run(["train", "c.csv", "--out", "run", *words]) == 0
    assert pipeline.config is not None
    assert pipeline.config.model == "baseline"


def test_progress_goes_to_standard_error_and_the_result_to_standard_output(
    pipeline: Pipeline, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["train", "c.csv", "--out", "run"]) == 0
    said = capsys.readouterr()
    assert said.out.splitlines() == ["Run folder: run  (2 steps in 1 s)", "Next: shelfwise evaluate run"]
    assert said.err.splitlines() == [
        "4 products to train on",
        "  step 2: validation accuracy 0.500, macro-F1 0.250, loss 1.000",
    ]


def test_json_is_one_document_on_standard_output(pipeline: Pipeline, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["train", "c.csv", "--out", "run", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["run"], document["steps"], document["train_rows"]) == ("run", 2, 4)
    assert document["validation"] == 0.25


@pytest.mark.parametrize("error", [TrainingError("the loss is NaN"), InterruptedRunError("Stopped.")])
def test_work_that_fails_is_status_1(error: Exception, pipeline: Pipeline, capsys: pytest.CaptureFixture[str]) -> None:
    pipeline.error = error
    assert cli.run(["train", "c.csv", "--out", "run"]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.endswith(f"error: {error}\n")


def test_a_call_without_a_run_folder_is_status_2(pipeline: Pipeline) -> None:
    assert cli.run(["train", "c.csv"]) == 2
