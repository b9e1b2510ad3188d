"""What perturbed names cost a classifier, and how it is told."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from shelfwise.calibration import Calibration
from shelfwise.classifier import Classifier
from shelfwise.cli import run as shelfwise
from shelfwise.data.perturb import KINDS
from shelfwise.labels import Labels
from shelfwise.pipelines.asking import Panel
from shelfwise.pipelines.evaluation import Evaluation
from shelfwise.pipelines.robustness import TITLES, drop_interval, perturbed_text, robustness
from shelfwise.pipelines.scoring import Rows
from shelfwise.records import Product
from support import evaluations


@dataclass(frozen=True)
class LowerCaseReader:
    """Knows "tea" and "rice" in lower case only; "Tea" and all else are rice."""

    def log_probs(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return np.log([[0.9, 0.1] if "tea" in text else [0.1, 0.9] for text in texts]).astype(np.float32)


def products(n: int) -> list[Product]:
    """`n` teas with a brand in lower case, and `n` rices."""
    names = [("Tea", f"amber tea no{i}") for i in range(n)] + [("Rice", f"amber rice no{i}") for i in range(n)]
    return [Product(i, f"c.csv:{i + 2}", name, label, "amber", text=name) for i, (label, name) in enumerate(names)]


def ask(n: int) -> tuple[Classifier, Rows]:
    labels = Labels(("Tea", "Rice"))
    return Classifier("reader", labels, LowerCaseReader(), Calibration(), ("product",)), Rows.of(
        products(n), labels, None
    )


def test_the_loss_of_each_kind_is_that_of_a_classifier_whose_weakness_is_known() -> None:
    classifier, rows = ask(30)
    panel = Panel((("model", classifier),))
    (found,) = robustness(panel, panel.answer(rows), rows)
    drops = {drop.perturbation: drop for drop in found.drops}
    assert (drops["case"].n, drops["case"].before) == (60, 1.0)
    assert drops["case"].after == 0.5  # no tea is told by its capitals, every rice is
    assert drops["case"].drop == 0.5
    assert drops["case"].interval.low > 0.3
    assert (drops["dropped_brand"].n, drops["dropped_brand"].drop) == (60, 0.0)
    assert "dropped_size" not in drops  # applies to no name here
    assert [type_.label for type_ in found.worst_types] == ["Tea"]
    assert found.worst_types[0].before == 1.0


def test_a_brand_that_is_read_as_a_column_is_dropped_from_there_too() -> None:
    product = Product(0, "c.csv:2", "Green Tea", "Tea", brand="Amber", text="Amber Green Tea")
    assert perturbed_text(product, "dropped_brand", 0, ("brand", "product")) == "Green Tea"
    assert perturbed_text(replace(product, text="Green Tea"), "dropped_brand", 0, ("product",)) is None
    assert perturbed_text(product, "dropped_size", 0, ("brand", "product")) is None


def test_the_interval_of_a_loss_is_newcombes_worked_example() -> None:
    # Newcombe 1998, table II: 36 right twice, 12 right before only, 2 right after only; method 10.
    before = np.array([1] * 36 + [1] * 12 + [0] * 2, np.bool_)
    after = np.array([1] * 36 + [0] * 12 + [1] * 2, np.bool_)
    interval = drop_interval(before, after)
    assert (round(interval.low, 4), round(interval.high, 4)) == (0.0569, 0.3404)


def test_the_interval_of_a_loss_holds_the_true_loss_as_often_as_it_says() -> None:
    draw, held, rounds = np.random.default_rng(0), 0, 1500
    for _ in range(rounds):
        both, lost, won, _neither = draw.multinomial(150, [0.6, 0.1, 0.04, 0.26])
        before = np.array([True] * (both + lost) + [False] * (150 - both - lost))
        after = np.array([True] * both + [False] * lost + [True] * won + [False] * (150 - both - lost - won))
        interval = drop_interval(before, after)
        held += interval.low <= 0.06 <= interval.high
    assert 0.935 <= held / rounds <= 0.975


def test_equal_answers_have_an_interval_about_zero() -> None:
    same = np.array([random.Random(i).random() < 0.7 for i in range(50)])
    interval = drop_interval(same, same)
    assert interval.low < 0 < interval.high


def test_evaluate_tells_losses_in_report_page_and_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    catalogue = evaluations.write_catalogue(tmp_path / "catalogue.csv")
    run = evaluations.lay_out(tmp_path / "run", catalogue, model="tiny-llama")
    with evaluations.answering():
        assert shelfwise(["evaluate", str(run), "--perturb"]) == 0
    printed = capsys.readouterr().out
    assert TITLES["dropped_size"] in printed
    stored = json.loads((run / "evaluation" / "report.json").read_text())
    assert [each["kind"] for each in stored["robustness"]] == ["baseline", "model"]
    model = Evaluation.load(run / "evaluation").robustness[1]
    assert {drop.perturbation for drop in model.drops} == set(KINDS)
    assert next(drop for drop in model.drops if drop.perturbation == "case").drop > 0.2  # it reads "Rice", not "RICE"
    page = (run / "evaluation" / "report.html").read_text()
    assert TITLES["hinglish"] in page


def test_evaluate_without_perturb_says_nothing_of_it(tmp_path: Path) -> None:
    run = evaluations.lay_out(tmp_path / "run", evaluations.write_catalogue(tmp_path / "catalogue.csv"))
    assert shelfwise(["evaluate", str(run)]) == 0
    assert Evaluation.load(run / "evaluation").robustness == ()
    assert TITLES["hinglish"] not in (run / "evaluation" / "report.html").read_text()
