"""What is known of the real catalogue (types and counts; no row of it stands here)."""

from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
from sklearn.model_selection import train_test_split

from shelfwise.config import SplitConfig
from shelfwise.data.audit import Audit, audit
from shelfwise.data.catalogue import EMPTY_NAME, Catalogue, read_catalogue
from shelfwise.data.names import name_key
from shelfwise.data.split import Splits, make_splits
from shelfwise.text import fold

pytestmark = pytest.mark.bigbasket


@pytest.fixture(scope="module")
def catalogue(bigbasket: Path) -> Catalogue:
    return read_catalogue(bigbasket, labels="required")


@pytest.fixture(scope="module")
def found(catalogue: Catalogue) -> Audit:
    return audit(catalogue)


def test_every_row_is_read_and_the_empty_name_is_at_line_14366(catalogue: Catalogue) -> None:
    assert (catalogue.row_count, len(catalogue.products)) == (27_555, 27_554)
    (reject,) = catalogue.rejects
    assert reject.source.endswith(":14366")
    assert reject.reason == EMPTY_NAME
    assert catalogue.columns == {role: role for role in ("product", "type", "brand", "category", "sub_category")}


def test_the_rows_are_those_that_pandas_reads(catalogue: Catalogue, bigbasket: Path) -> None:
    frame = pd.read_csv(bigbasket)
    expected = [" ".join(text.split()) for text in frame["type"]]
    assert all(product.label == expected[product.id] for product in catalogue.products)


def test_the_audit_gives_the_known_numbers(found: Audit) -> None:
    assert (found.types, found.brands, found.categories, found.sub_categories) == (426, 2_313, 11, 90)
    assert found.largest_type == ("Face Care", 1_508)
    assert round(found.best_accuracy or 0, 3) == 0.984


@pytest.mark.parametrize(
    ("kind", "count", "words"),
    [
        ("empty_names", 1, ""),
        ("rows_without_brand", 1, ""),
        ("repeated_names", 4_259, "(15.5%)"),
        ("conflicting_types", 374, ""),
        ("types_with_one_row", 8, ""),
        ("types_under_5_rows", 33, ""),
        ("types_under_10_rows", 73, ""),
        ("types_with_commas", 69, "(15% of the rows)"),
        ("types_within_types", 27, ""),
        ("types_sharing_first_word", 151, ""),
        ("types_in_several_sub_categories", 123, "(46% of the rows)"),
        ("sub_categories_in_several_categories", 7, ""),
    ],
)
def test_the_audit_finds_the_known_defects(found: Audit, kind: str, count: int, words: str) -> None:
    finding = found.finding(kind)  # type: ignore[arg-type]
    assert finding is not None
    assert finding.count == count
    assert words in finding.message


def test_every_type_has_one_category(found: Audit) -> None:
    assert found.finding("types_in_several_categories") is None


def test_brand_and_name_together_allow_a_higher_accuracy(bigbasket: Path) -> None:
    read = read_catalogue(bigbasket, text_columns=("brand", "product"))
    assert round(audit(read).best_accuracy or 0, 3) == 0.996


def test_random_gives_exactly_the_rows_of_the_reference_notebook(catalogue: Catalogue, bigbasket: Path) -> None:
    splits = make_splits(catalogue, SplitConfig(strategy="random"))
    train, test = train_test_split(pd.read_csv(bigbasket), test_size=0.2, random_state=42)
    assert (len(train), len(test)) == (22_044, 5_511)
    assert splits.test == tuple(sorted(test.index))
    assert tuple(sorted((*splits.train, *splits.validation))) == tuple(sorted(train.index))


@pytest.fixture(scope="module")
def grouped(catalogue: Catalogue) -> Splits:
    return make_splits(catalogue, SplitConfig())


def test_grouped_shares_no_name_and_keeps_sizes_and_shares(catalogue: Catalogue, grouped: Splits) -> None:
    parts = grouped.parts(catalogue)
    for key in (fold, name_key):
        names = [{key(product.name) for product in part} for part in parts[:3]]
        assert len(set().union(*names)) == sum(map(len, names))
    assert len(grouped.test) / catalogue.row_count == pytest.approx(0.2, abs=0.002)
    rows, tested = (Counter(product.label for product in part) for part in (catalogue.labelled, parts.test))
    frequent = [label for label, count in rows.items() if count >= 100]
    assert len(frequent) > 50
    assert max(abs(tested[label] / rows[label] - 0.2) for label in frequent) < 0.05


def test_grouped_and_brand_keep_every_type_in_train(catalogue: Catalogue, grouped: Splits) -> None:
    for splits in (grouped, make_splits(catalogue, SplitConfig(strategy="brand"))):
        assert len({product.label for product in splits.parts(catalogue).train}) == 426
        assert "Types with a single row stay in train: 8." in splits.notes


def test_brand_holds_out_whole_brands(catalogue: Catalogue) -> None:
    parts = make_splits(catalogue, SplitConfig(strategy="brand")).parts(catalogue)
    brands = [{fold(product.brand) for product in part if product.brand} for part in parts[:3]]
    assert len(set().union(*brands)) == sum(map(len, brands))
    assert len(parts.test) / catalogue.row_count == pytest.approx(0.2, abs=0.002)
