from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from numpy.typing import NDArray

from shelfwise.calibration import Calibration
from shelfwise.classifier import Classifier
from shelfwise.config import Role
from shelfwise.data.split import Parts
from shelfwise.labels import Labels
from shelfwise.metrics import Ranked, accuracy_interval
from shelfwise.pipelines import breakdown
from shelfwise.pipelines.asking import Panel
from shelfwise.pipelines.breakdown import Known, bands, without_brand
from shelfwise.pipelines.evaluation import Band
from shelfwise.pipelines.scoring import Answers, Rows
from shelfwise.records import LEVELS, Product

LABELS = Labels(("Rice", "Soap", "Tea"))


def product(id: int, name: str, label: str, brand: str = "") -> Product:
    return Product(id, f"c.csv:{id + 2}", name, label, brand, text=f"{brand} {name}".strip())


def rows_of(products: Sequence[Product], new: Sequence[bool] | None = None) -> Rows:
    return Rows.of(products, LABELS, None if new is None else np.array(new))


def answers_of(rows: Rows, right: Sequence[bool]) -> Answers:
    """Answers that are right where `right` says so."""
    given = np.where(right, rows.targets, (rows.targets + 1) % len(LABELS))
    n = len(given)
    ranked = Ranked(given[:, None], np.ones((n, 1), np.float32), np.zeros(n, np.float32))
    return Answers("model", "m", ranked, Calibration(), 1.0, np.full(n, LEVELS.index("")), np.zeros(n, np.bool_))


def of_group(found: Sequence[Band], group: str) -> dict[str, tuple[int, float]]:
    return {band.title: (band.n, band.accuracy) for band in found if band.group == group}


def test_rows_are_told_apart_by_whether_training_had_their_name() -> None:
    rows = rows_of([product(i, f"n{i}", "Rice") for i in range(5)], new=[True, True, True, False, False])
    found = bands(answers_of(rows, [True, False, False, True, True]), rows, None)
    assert of_group(found, "names") == {
        "names that training had": (2, 1.0),
        "names that training did not have": (3, pytest.approx(1 / 3)),
    }


def test_a_brand_is_known_however_it_is_written_and_a_product_may_have_none() -> None:
    train = [product(10, "a", "Rice", "Fresho!")]
    validation = [product(11, "b", "Rice", "Amber Farms")]
    known = Known.of(Parts(tuple(train), tuple(validation), (), 0))
    brands = ["FRESHO", "amber-farms", "Zephyr", "", ""]
    rows = rows_of([product(i, f"n{i}", "Rice", brand) for i, brand in enumerate(brands)])
    found = bands(answers_of(rows, [True, False, True, False, False]), rows, known)
    assert of_group(found, "brand") == {
        "brands that training had": (2, 0.5),
        "brands that training did not have": (1, 1.0),
        "no brand": (2, 0.0),
    }


def test_a_catalogue_without_brands_has_no_bands_of_brands() -> None:
    rows = rows_of([product(0, "n", "Rice")])
    found = bands(answers_of(rows, [True]), rows, Known(frozenset(), Counter(Rice=1)))
    assert of_group(found, "brand") == {}


@pytest.mark.parametrize(
    ("training_rows", "title"),
    [
        (0, "types without a training row"),
        (1, "types with 1 to 4 training rows"),
        (4, "types with 1 to 4 training rows"),
        (5, "types with 5 to 19 training rows"),
        (19, "types with 5 to 19 training rows"),
        (20, "types with 20 to 99 training rows"),
        (99, "types with 20 to 99 training rows"),
        (100, "types with 100 to 499 training rows"),
        (500, "types with 500 or more training rows"),
    ],
)
def test_a_type_falls_into_the_band_of_its_training_rows(training_rows: int, title: str) -> None:
    rows = rows_of([product(0, "n", "Rice")])
    found = bands(answers_of(rows, [True]), rows, Known(frozenset(), Counter(Rice=training_rows)))
    assert of_group(found, "frequency") == {title: (1, 1.0)}


def test_only_training_rows_count_for_frequency_and_a_type_that_is_unknown_has_none() -> None:
    train = [product(i, f"a{i}", "Rice") for i in range(4)]
    parts = Parts(tuple(train), (product(9, "b", "Rice"),), (), 0)
    rows = rows_of([product(20, "n", "Rice"), product(21, "m", "Kettle")])
    found = bands(answers_of(rows, [True, False]), rows, Known.of(parts))
    assert of_group(found, "frequency") == {
        "types without a training row": (1, 0.0),
        "types with 1 to 4 training rows": (1, 1.0),
    }


def test_names_are_told_apart_by_their_words_even_where_nothing_is_known_of_training() -> None:
    words = [1, 2, 3, 4, 5, 6, 7, 9, 10, 30]
    rows = rows_of([product(i, " ".join(["w"] * n), "Tea") for i, n in enumerate(words)])
    right = [True, False, True, True, False, False, True, True, True, False]
    found = bands(answers_of(rows, right), rows, None)
    assert {band.group for band in found} == {"length"}
    assert of_group(found, "length") == {
        "1 to 2 words": (2, 0.5),
        "3 to 4 words": (2, 1.0),
        "5 to 6 words": (2, 0.0),
        "7 to 9 words": (2, 1.0),
        "10 or more words": (2, 0.5),
    }


def test_every_row_is_in_one_band_of_each_group_and_intervals_are_wilsons() -> None:
    random = np.random.default_rng(3)
    brands = ["A", "B", ""]
    products = [
        product(i, " ".join(["w"] * int(random.integers(1, 14))), LABELS[i % 3], brands[i % 3]) for i in range(60)
    ]
    rows = rows_of(products, new=(random.random(60) < 0.5).tolist())
    right = random.random(60) < 0.7
    found = bands(answers_of(rows, right.tolist()), rows, Known(frozenset({"a"}), Counter(Rice=3, Soap=50)))
    for group in ("names", "brand", "frequency", "length"):
        mine = [band for band in found if band.group == group]
        assert sum(band.n for band in mine) == 60
        assert sum(round(band.n * band.accuracy) for band in mine) == right.sum()
    for band in found:
        assert band.interval == accuracy_interval(round(band.n * band.accuracy), band.n)


@dataclass(frozen=True)
class ByBrand:
    """Knows a soap by its brand alone; else says rice."""

    asked: list[str] = field(default_factory=list)

    def log_probs(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.asked.extend(texts)
        chosen = [1 if "Lux" in text.split() else 0 for text in texts]
        return np.log(np.where(np.eye(3)[chosen] > 0, 0.8, 0.1)).astype(np.float32)


def test_leaving_the_brand_out_asks_only_for_texts_that_had_one() -> None:
    scorer = ByBrand()
    classifier = Classifier("m", LABELS, scorer, Calibration(), ("brand", "product"))
    rows = rows_of(
        [
            product(0, "Neem", "Soap", "Lux"),
            product(1, "Rose", "Soap", "Lux"),
            product(2, "Lux Gold", "Soap", "Lux"),  # the brand in the name stays
            product(3, "Basmati", "Rice"),
        ]
    )
    panel = Panel((("model", classifier),))
    (plain,) = panel.answer(rows)
    assert plain.correct(rows).all()
    scorer.asked.clear()
    (band,) = without_brand(panel, [plain], rows)
    assert band is not None
    assert sorted(scorer.asked) == ["Lux Gold", "Neem", "Rose"]
    assert (band.group, band.title, band.n, band.accuracy) == ("brand", breakdown.WITHOUT_BRAND, 4, 0.5)


@pytest.mark.parametrize(("columns", "brand"), [(("product",), "Lux"), (("brand", "product"), "")])
def test_where_no_text_holds_a_brand_nothing_is_asked_again(columns: tuple[Role, ...], brand: str) -> None:
    scorer = ByBrand()
    text = f"{brand} Neem".strip() if "brand" in columns else "Neem"
    rows = rows_of([replace(product(0, "Neem", "Soap", brand), text=text)])
    classifier = Classifier("m", LABELS, scorer, Calibration(), columns)
    panel = Panel((("model", classifier),))
    plain = panel.answer(rows)
    scorer.asked.clear()
    assert without_brand(panel, plain, rows) == (None,)
    assert scorer.asked == []
