"""The cascade: who is asked for what, and that its promise is held against the truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shelfwise import artifact, cli
from shelfwise import config as configs
from shelfwise.blend import BlendScorer
from shelfwise.calibration import Calibration
from shelfwise.classifier import Classifier
from shelfwise.config import Columns
from shelfwise.data.catalogue import read_catalogue
from shelfwise.data.split import Splits
from shelfwise.errors import InputError
from shelfwise.labels import Labels
from shelfwise.pipelines.cascade import Cascade, measure, measure_run
from shelfwise.pipelines.predict_job import Job, Settings
from shelfwise.records import Product
from support import evaluations
from support.predictions import LABELS, FakeScorer
from support.runs import train_small, write_base_model, write_catalogue


@dataclass
class Expert:
    """Always sure of tea."""

    asked: list[str] = field(default_factory=list)

    def log_probs(self, texts: Sequence[str]) -> np.ndarray[Any, np.dtype[np.float32]]:
        self.asked.extend(texts)
        return np.log(np.tile(np.array([0.01, 0.01, 0.98], np.float32), (len(texts), 1)))


def cascade(expert: Expert, threshold: float = 0.8) -> Cascade:
    return Cascade(
        Classifier("cheap", LABELS, FakeScorer(), Calibration(threshold=threshold), ("product",)),
        Classifier("dear", LABELS, expert, Calibration(threshold=0.9), ("product",)),
    )


def test_only_what_the_first_does_not_accept_goes_to_the_second() -> None:
    expert = Expert()
    answers = cascade(expert).start(["tea a", "odd unsure", "soap b", "tea unsure"], 2)()
    assert expert.asked == ["odd unsure", "tea unsure"]
    assert [answer.model for answer in answers] == ["cheap", "dear", "cheap", "dear"]
    assert [answer.prediction.label for answer in answers] == ["Tea, Green", "Tea, Green", "Shampoo", "Tea, Green"]
    assert {len(answer.prediction.top_k) for answer in answers} == {2}


def test_a_second_that_is_not_needed_is_not_asked() -> None:
    expert = Expert()
    cascade(expert).start(["tea a"], 1)()
    assert expert.asked == []


def test_the_output_says_who_answered(tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    source.write_text("product\ntea a\nodd unsure\ntea a\n", encoding="utf-8")
    settings = Settings("cascade", "cpu", "auto", 1, Columns(), 8, False, False)
    job = Job(Path("no-run"), settings, cascade(Expert()), iter(range(9)).__next__)
    summary = job.predict(source, tmp_path / "out.csv", None)
    lines = (tmp_path / "out.csv").read_text(encoding="utf-8").splitlines()
    assert [line.rpartition(",")[2] for line in lines] == ["model", "cheap", "dear", "cheap"]
    assert (summary.model, dict(summary.by_model)) == ("cheap then dear", {"cheap": 2, "dear": 1})


def product(number: int, text: str, label: str) -> Product:
    return Product(number, f"in.csv:{number + 2}", text, label, text=text)


def test_the_report_counts_what_is_saved_and_holds_the_promise_against_the_truth() -> None:
    rows = [("tea a", "Tea, Green"), ("odd b", "Shampoo"), ("tea unsure", "Tea, Green"), ("odd unsure", "Mystery")]
    report = measure(cascade(Expert()), [product(i, *row) for i, row in enumerate(rows)])
    assert (report.rows, report.right, report.answered_by_first, report.saving) == (4, 2, 2, 0.5)
    assert (report.by_first.accepted, report.by_first.right) == (2, 1)
    assert (report.by_then.accepted, report.by_then.right) == (2, 1)
    assert (report.together.precision, report.promise, report.kept) == (0.5, 0.95, False)
    assert report.together.interval.low < 0.5 < report.together.interval.high


def test_nothing_accepted_breaks_no_promise() -> None:
    nobody = Cascade(
        *(Classifier(name, LABELS, FakeScorer(), Calibration(), ("product",)) for name in ("cheap", "dear"))
    )
    report = measure(nobody, [product(0, "tea", "Tea, Green")])
    assert (report.together.accepted, report.saving, report.kept) == (0, 0.0, True)


@pytest.mark.parametrize("products", [[], [Product(0, "in.csv:2", "tea", None, text="tea")]])
def test_products_without_types_measure_nothing(products: list[Product]) -> None:
    with pytest.raises(InputError, match="on products with inventory types"):
        measure(cascade(Expert()), products)


def test_classifiers_of_different_types_are_no_cascade() -> None:
    first = Classifier("cheap", LABELS, FakeScorer(), Calibration(), ("product",))
    other = Classifier("dear", Labels(("Tea", "Soap")), FakeScorer(), Calibration(), ("product",))
    with pytest.raises(InputError, match="the same types"):
        Cascade(first, other)


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_catalogue(tmp_path_factory.mktemp("data") / "catalogue.csv")


def test_a_trained_run_keeps_its_promise_on_test_as_a_cascade(catalogue: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    base = write_base_model("llama", tmp_path / "llama")
    train_small(catalogue, run, model=str(base), split={"test_size": 0.4, "validation_size": 0.2})
    assert measure_run(run, device="cpu").rows == 48
    loaded = Cascade.load(run, device="cpu")
    # So few validation rows can't prove a promise, so no threshold was fitted. This one is beneath the baseline's rows.
    opened = replace(loaded, first=replace(loaded.first, calibration=Calibration(0.2, threshold=0.5)))
    config = configs.load(run / artifact.CONFIG)
    source = read_catalogue(catalogue, config.columns, config.text_columns)
    report = measure(opened, Splits.load(run / artifact.SPLIT).parts(source).test)
    assert report.saving > 0
    assert report.kept
    out = tmp_path / "out.csv"
    call = ["predict", str(run), str(catalogue), "--out", str(out), "--cascade", "--device", "cpu"]
    assert cli.run(call) == 0
    said = {line.rpartition(",")[2] for line in out.read_text(encoding="utf-8").splitlines()[1:]}
    assert said <= {"baseline", "llama full head", "llama full head + baseline"}
    assert cli.run([*call, "--force", "--baseline"]) == 2


def test_of_a_run_that_answers_with_a_blend_the_blend_gets_the_rest_and_the_baseline_is_held_once(
    tmp_path: Path,
) -> None:
    source = evaluations.write_catalogue(tmp_path / "products.csv")
    both = evaluations.lay_out(tmp_path / "both", source, model="tiny-llama", blend=evaluations.weighed())
    alone = evaluations.lay_out(
        tmp_path / "alone", source, model="tiny-llama", blend=evaluations.weighed(), classifier="model"
    )
    with evaluations.answering():
        found = Cascade.load(both)
        assert found.name == "baseline then tiny-llama lora head + baseline"
        assert isinstance(found.then.scorer, BlendScorer)
        assert found.then.scorer.baseline is found.first
        assert Cascade.load(alone).name == "baseline then tiny-llama lora head"
        assert measure_run(both).rows == 44


def test_a_baseline_has_no_model_for_the_rest(catalogue: Path, tmp_path: Path, capsys: Any) -> None:
    train_small(catalogue, tmp_path / "run", model="baseline")
    call = ["predict", str(tmp_path / "run"), str(catalogue), "--out", str(tmp_path / "out.csv"), "--cascade"]
    assert cli.run(call) == 2
    assert "no language model for the rest of a cascade" in capsys.readouterr().err
    assert not (tmp_path / "out.csv").exists()
