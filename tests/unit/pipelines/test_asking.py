"""A blend and its parts are asked together: each text is scored once by each, and the answers are those given alone."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from numpy.typing import NDArray

from shelfwise.blend import BlendScorer
from shelfwise.calibration import Calibration
from shelfwise.classifier import Classifier
from shelfwise.labels import Labels
from shelfwise.pipelines import asking
from shelfwise.pipelines.asking import Panel, answer
from shelfwise.pipelines.breakdown import without_brand
from shelfwise.pipelines.robustness import robustness
from shelfwise.pipelines.scoring import Rows
from shelfwise.records import Product
from support.evaluations import weighed

LABELS = Labels(("Rice", "Soap", "Tea"))


@dataclass
class ByLetters:
    """Gives each label a score by the letters of the text; another one for each `seed`."""

    seed: int
    asked: list[str] = field(default_factory=list)

    def log_probs(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.asked.extend(texts)
        scores = np.array([np.random.default_rng([self.seed, *text.encode()]).normal(size=3) for text in texts])
        return (scores - np.log(np.exp(scores).sum(1, keepdims=True))).astype(np.float32)


def panel() -> tuple[Panel, ByLetters, ByLetters]:
    model, baseline = ByLetters(1), ByLetters(2)
    columns = ("brand", "product")
    parts = [
        Classifier(name, LABELS, scorer, Calibration(temperature=0.7, threshold=0.6), columns)  # type: ignore[arg-type]
        for name, scorer in (("m", model), ("baseline", baseline))
    ]
    both = BlendScorer(parts[0], parts[1], weighed())
    blend = Classifier("m + baseline", LABELS, both, Calibration(temperature=0.5, threshold=0.7), columns)  # type: ignore[arg-type]
    return Panel((("baseline", parts[1]), ("model", parts[0]), ("blend", blend))), model, baseline


def rows(n: int) -> Rows:
    labels = itertools.cycle(LABELS.names)
    products = [
        Product(i, f"c.csv:{i + 2}", f"Thing no {i % 40}", label, "Amber", text=f"Amber Thing no {i % 40}")
        for i, label in zip(range(n), labels, strict=False)
    ]
    return Rows.of(products, LABELS, None)


def test_no_text_is_scored_twice_and_each_answers_as_it_does_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "CHUNK", 16)
    asked, model, baseline = panel()
    given = rows(60)
    found = asked.answer(given)
    assert sorted(model.asked) == sorted(baseline.asked) == sorted({product.text for product in given.products})
    assert [each.kind for each in found] == ["baseline", "model", "blend"]
    for each, (kind, classifier) in zip(found, asked.members, strict=True):
        alone = answer(classifier, kind, given)
        np.testing.assert_array_equal(each.ranked.answers, alone.ranked.answers)
        np.testing.assert_array_equal(each.ranked.probabilities, alone.ranked.probabilities)
        np.testing.assert_array_equal(each.level, alone.level)
        np.testing.assert_array_equal(each.raw_confidence, alone.raw_confidence)
    answers = [each.predictions.tolist() for each in found]
    assert answers[2] not in answers[:2]  # it is another classifier than either


def test_changed_names_are_scored_once_too() -> None:
    asked, model, baseline = panel()
    given = rows(60)
    plain = asked.answer(given)
    for again in (
        lambda: without_brand(asked, plain, given),
        lambda: robustness(asked, plain, given),
    ):
        model.asked.clear()
        baseline.asked.clear()
        assert len(again()) == 3
        assert len(model.asked) == len(set(model.asked)) == len(baseline.asked) > 0


def test_a_blends_seconds_are_those_of_its_parts_and_its_own() -> None:
    asked, _, _ = panel()
    ticks = itertools.count()
    # Each scoring, joining and taking down is one tick long; the blend is scored by its parts' two and its joining.
    found = asked.answer(rows(9), clock=lambda: float(next(ticks)))
    assert [each.seconds for each in found] == [2, 2, 4]


def test_progress_names_the_blend_and_what_is_special_about_the_rows() -> None:
    asked, _, _ = panel()
    told: list[tuple[str, int, int]] = []
    asked.answer(rows(9), lambda *said: told.append(said), what="perturbed")
    assert told == [("m + baseline, perturbed", 9, 9)]
    alone = Panel(asked.members[:1])
    alone.answer(rows(9), lambda *said: told.append(said))
    assert told[1:] == [("baseline", 9, 9)]
