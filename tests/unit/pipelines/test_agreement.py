"""What `predict` writes and what `evaluate` measures are the same answers."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pyarrow import parquet

from shelfwise import artifact, metrics
from shelfwise.calibration import Calibration
from shelfwise.classifier import Classifier
from shelfwise.data.catalogue import read_catalogue
from shelfwise.pipelines import insights, scoring
from shelfwise.pipelines.asking import answer
from shelfwise.pipelines.evaluate import evaluate
from shelfwise.pipelines.predict import predict
from shelfwise.records import LEVELS
from support import evaluations

# Thresholds that give answers at every level: of the type, of what is above it, of nothing.
DECIDING = Calibration(
    temperature=0.7,
    threshold=0.68,
    promise=0.8,
    by_type={"Rice": 0.7, "Green Tea": 0.69},
    by_category={"Beauty": 0.685},
    sub_category_threshold=0.672,
    category_threshold=0.7,
)


# The same confidences told by two temperatures; at entropies of 0.6 to 0.8 they lie close to the one above.
BY_ENTROPY = replace(DECIDING, sure_temperature=0.9, unsure_temperature=0.65)


@pytest.fixture(scope="module", params=[DECIDING, BY_ENTROPY], ids=["one temperature", "two temperatures"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("agreement")
    catalogue = evaluations.write_catalogue(folder / "catalogue.csv")
    run = evaluations.lay_out(folder / "run", catalogue)
    artifact.write_json(run / artifact.CALIBRATION, Calibration.to_json_all({"baseline": request.param}))
    artifact.write_manifest(run, {})
    return run


def test_predicting_and_evaluating_give_every_row_the_same_answer_decision_and_level(run: Path, tmp_path: Path) -> None:
    evaluated = evaluate(run, out=tmp_path / "evaluation")
    table = parquet.read_table(tmp_path / "evaluation" / "predictions.parquet").to_pylist()
    products = evaluations.rows()
    asked = evaluations.write_catalogue(tmp_path / "asked.csv", [products[row["id"]] for row in table])
    predict(run, asked, tmp_path / "answers.jsonl")
    answers = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(answers) == len(table) == evaluated.facts.rows
    for told, measured in zip(answers, table, strict=True):
        for name in ("predicted_type", "decision", "level"):
            assert told[name] == measured[name], name
        assert told["confidence"] == pytest.approx(measured["confidence"], abs=1e-4)
    accepted = sum(told["decision"] == "accept" for told in answers)
    assert accepted == evaluated.subject.decisions.accepted  # type: ignore[union-attr]
    assert len({told["level"] for told in answers}) == 4  # else the test shows little


def test_the_sure_path_that_predict_writes_is_right_where_evaluate_counts_it_as_right(
    run: Path, tmp_path: Path
) -> None:
    products = read_catalogue(run.parent / "catalogue.csv").labelled
    classifier = Classifier.load(run)
    rows = scoring.Rows.of(products, classifier.labels, None)
    measured = answer(classifier, "baseline", rows)
    predict(run, run.parent / "catalogue.csv", tmp_path / "answers.csv")
    with (tmp_path / "answers.csv").open(newline="", encoding="utf-8-sig") as stream:
        told = list(csv.DictReader(stream))
    assert [row["level"] for row in told] == [LEVELS[level] for level in measured.level.tolist()]
    for row, product, right in zip(told, products, measured.sure_right.tolist(), strict=True):
        true = " > ".join(classifier.labels.taxonomy.path(product.label or ""))
        sure = row["sure_path"]
        assert right == bool(sure and (true == sure or true.startswith(f"{sure} > "))), product.name


def test_a_rows_answer_does_not_depend_on_its_neighbours(run: Path) -> None:
    texts = sorted({product.text for product in read_catalogue(run.parent / "catalogue.csv").labelled})
    classifier = Classifier.load(run)
    together = classifier.predict(texts)
    assert together == [classifier.predict([text])[0] for text in texts]
    assert together == list(reversed(classifier.predict(texts[::-1])))


def test_the_error_before_calibration_is_that_of_the_scorers_own_probabilities(run: Path) -> None:
    products = read_catalogue(run.parent / "catalogue.csv").labelled
    classifier = Classifier.load(run)
    rows = scoring.Rows.of(products, classifier.labels, None)
    measured = answer(classifier, "baseline", rows)
    plain = answer(replace(classifier, calibration=Calibration()), "baseline", rows)
    assert measured.raw_confidence is not None
    np.testing.assert_allclose(measured.raw_confidence, plain.confidence, atol=1e-6)
    assert not np.allclose(measured.confidence, plain.confidence, atol=0.01)
    drawn = insights.curve(measured, rows)
    assert drawn.before == metrics.reliability(measured.raw_confidence, measured.correct(rows))
    assert insights.curve(scoring.majority(rows), rows).before == ()


def test_a_report_holds_the_error_before_and_after(run: Path, tmp_path: Path) -> None:
    evaluated = evaluate(run, out=tmp_path / "evaluation")
    majority, baseline = evaluated.standings
    assert majority.ece_before is None
    assert baseline.ece_before is not None
    assert 0 <= baseline.ece_before <= 1
    assert baseline.ece_before != baseline.scores.ece
    assert "before calibration" in (tmp_path / "evaluation" / "report.html").read_text(encoding="utf-8")
