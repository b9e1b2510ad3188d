"""A language model can judge the labels: trained on the other folds, asked for one, and nothing is left behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shelfwise.cli import run as shelfwise
from shelfwise.config import Columns, TrainConfig, parse
from shelfwise.data.catalogue import read_catalogue
from shelfwise.data.names import name_key
from shelfwise.errors import InterruptedRunError, ModelNotFoundError
from shelfwise.pipelines import finetune as finetuning
from shelfwise.pipelines.label_audit import audit_labels
from shelfwise.pipelines.model_judge import ModelJudge
from shelfwise.pipelines.run import Hooks, Prepared
from support import evaluations, runs


def judge_of(catalogue: Path, workplace: Path, **changes: Any) -> ModelJudge:
    config = parse({"model": "tiny-llama", **changes}, "test")
    return ModelJudge(config, read_catalogue(catalogue), workplace, "cpu", Hooks())


@pytest.mark.slow
def test_a_tiny_model_judges_two_folds_and_the_file_is_a_catalogue(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = runs.write_catalogue(tmp_path / "catalogue.csv"), tmp_path / "new" / "found.csv"
    config = tmp_path / "recipe.yaml"
    config.write_text("training: {batch_size: 16, learning_rate: 0.005, epochs: 4}\n")
    call = ["audit-labels", str(source), "--out", str(out), "--model", "tiny-llama", "--config", str(config)]
    assert shelfwise([*call, "--folds", "2", "--precision", "fp32", "--device", "cpu", "--json"]) == 0
    printed = capsys.readouterr()
    found = json.loads(printed.out)
    assert (found["judge"], found["folds"], found["rows"], found["unjudged"]) == ("tiny-llama", 2, 120, 0)
    assert found["agreement"] > 0.6  # five types, each with words of its own
    assert "fold 2 of 2" in printed.err
    suspects = found["probable_label_errors"] + found["conflicting_names"]
    assert out.read_text(encoding="utf-8-sig").count("\n") == 1 + suspects
    assert sorted(path.name for path in out.parent.iterdir()) == ["found.csv"]


def test_the_part_to_choose_by_shares_no_name_with_what_is_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [*evaluations.rows(), *((name.upper(), *rest) for name, *rest in evaluations.rows()[::3])]
    source = evaluations.write_catalogue(tmp_path / "catalogue.csv", lines)  # type: ignore[arg-type]
    products = read_catalogue(source).labelled
    seen: list[Prepared] = []

    def stop(config: TrainConfig, prepared: Prepared, *_: object, **__: object) -> None:
        seen.append(prepared)
        raise InterruptedRunError("")

    monkeypatch.setattr(finetuning, "finetune", stop)
    for size in (0.2, 0):
        judge = judge_of(source, tmp_path, split={"validation_size": size})
        with pytest.raises(KeyboardInterrupt):
            judge.judge(products[:200], products[200:], evaluations_labels(source))
    with_validation, without = seen
    names = [
        {name_key(product.name) for product in part} for part in (with_validation.train, with_validation.validation)
    ]
    assert names[1]
    assert not names[0] & names[1]
    assert len(with_validation.train) + len(with_validation.validation) == len(without.train) == 200
    assert without.validation == ()


def evaluations_labels(source: Path) -> Any:
    from shelfwise.labels import Labels

    return Labels.of(read_catalogue(source).labelled)


@pytest.mark.parametrize("error", [InterruptedRunError("Go on with: shelfwise train --resume"), KeyboardInterrupt()])
def test_an_interrupted_audit_leaves_nothing_and_does_not_tell_to_resume(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = evaluations.write_catalogue(tmp_path / "catalogue.csv")

    def begun(config: TrainConfig, prepared: Prepared, out: Path, **_: object) -> None:
        out.mkdir()
        (out / "half").write_text("written")
        raise error

    monkeypatch.setattr(finetuning, "finetune", begun)
    call = ["audit-labels", str(source), "--out", str(tmp_path / "found.csv"), "--model", "tiny-llama"]
    assert shelfwise(call) == 1
    says = capsys.readouterr().err
    assert "interrupted" in says
    assert "resume" not in says
    assert [path.name for path in tmp_path.iterdir()] == ["catalogue.csv"]


def test_an_unknown_model_is_refused_before_the_catalogue_is_read(tmp_path: Path) -> None:
    config = parse({"model": "tiny-lama"}, "test")
    with pytest.raises(ModelNotFoundError, match="Did you mean 'tiny-llama'"):
        audit_labels(tmp_path / "none.csv", Columns(), ("product",), out=tmp_path / "found.csv", config=config)


@pytest.mark.parametrize("option", [["--epochs", "2"], ["--precision", "bf16"]])
def test_a_models_options_without_a_model_are_refused(
    option: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = evaluations.write_catalogue(tmp_path / "catalogue.csv")
    assert shelfwise(["audit-labels", str(source), "--out", str(tmp_path / "found.csv"), *option]) == 2
    assert "name one with --model" in capsys.readouterr().err


def test_the_columns_of_the_configuration_are_used_where_the_command_names_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = evaluations.write_catalogue(tmp_path / "catalogue.csv")
    source.write_text(source.read_text().replace("product,", "sku,", 1))
    config = tmp_path / "recipe.yaml"
    config.write_text("model: baseline\ncolumns: {product: sku}\ntext_columns: [brand, product]\n")
    call = ["audit-labels", str(source), "--out", str(tmp_path / "found.csv"), "--folds", "2", "--json"]
    assert shelfwise([*call, "--config", str(config)]) == 0
    assert json.loads(capsys.readouterr().out)["judge"] == "the baseline"
    assert shelfwise(call) == 2  # without it, no column is recognised as the names


def test_what_the_judge_says_lands_at_the_rows_it_was_asked_for(tmp_path: Path) -> None:
    from shelfwise.pipelines.out_of_fold import Judgement, out_of_fold

    products = read_catalogue(evaluations.write_catalogue(tmp_path / "catalogue.csv")).labelled

    class Oracle:
        name = "oracle"

        def judge(self, rest: Any, held: Any, labels: Any) -> Judgement:
            scored = np.full((len(held), len(labels)), 0.01 / (len(labels) - 1))
            scored[np.arange(len(held)), [labels.index(product.label) for product in held]] = 0.99
            return Judgement(np.log(scored).astype(np.float32), np.arange(1, len(labels)))

    judged = out_of_fold(products, folds=4, seed=0, judge=Oracle())
    assert (judged.suggestions == judged.targets).all()
    assert (judged.judged == (judged.targets > 0)).all()  # the first label was not learned
