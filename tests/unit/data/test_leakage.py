from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from shelfwise.config import Role, SplitConfig, SplitStrategy
from shelfwise.data._leakage_near import near_duplicates, sizeless
from shelfwise.data.catalogue import Catalogue, read_catalogue
from shelfwise.data.findings import EXAMPLES
from shelfwise.data.leakage import Leakage, LeakageFinding, find_leakage, require_no_leakage
from shelfwise.data.names import name_key
from shelfwise.data.split import Splits, make_splits
from shelfwise.errors import CatalogueError

HEADER = "product,type,brand,category,sub_category"
ANIMALS = (
    "Aardvark",
    "Buffalo",
    "Cheetah",
    "Dolphin",
    "Elephant",
    "Flamingo",
    "Gorilla",
    "Hedgehog",
    "Iguana",
    "Jackal",
)
COLOURS = ("Turquoise", "Magenta", "Vermilion", "Ochre", "Indigo", "Khaki")
TYPES = ("Tea", "Rice", "Face Care")


def clean_rows() -> list[str]:
    """60 products with names of two rare words; brand, category and sub-category each have rows of all types."""
    rows = []
    for number in range(60):
        animal, colour = ANIMALS[number % 10], COLOURS[number // 10]
        rows.append(f"{animal} {colour},{TYPES[number % 3]},Maker {number % 7},Shelf {number % 2},Bay {number % 5}")
    return rows


def written(folder: Path, rows: list[str], text_columns: tuple[Role, ...] = ("product",)) -> Catalogue:
    path = folder / "c.csv"
    path.write_text("\n".join((HEADER, *rows)) + "\n", encoding="utf-8")
    return read_catalogue(path, text_columns=text_columns)


def split(catalogue: Catalogue, test: int, validation: int = 0, strategy: SplitStrategy = "grouped") -> Splits:
    """The last `test` rows are the test part, the `validation` before them the validation part, the others train."""
    ids, rest = tuple(range(catalogue.row_count)), catalogue.row_count - test
    drawn = make_splits(catalogue, SplitConfig())
    return replace(
        drawn,
        strategy=strategy,
        train=ids[: rest - validation],
        validation=ids[rest - validation : rest],
        test=ids[rest:],
    )


def only(leakage: Leakage) -> LeakageFinding:
    (finding,) = leakage.findings
    return finding


@pytest.mark.parametrize("strategy", ["grouped", "random", "brand"])
def test_a_clean_split_is_silent_whatever_is_read(tmp_path: Path, strategy: SplitStrategy) -> None:
    columns: tuple[Role, ...] = ("brand", "category", "sub_category", "product")
    catalogue = written(tmp_path, clean_rows(), columns)
    splits = make_splits(catalogue, SplitConfig(strategy=strategy))
    assert all(splits.rows().values())
    found = find_leakage(catalogue, splits, columns)
    assert not found
    assert (found.summary(), found.to_json()) == ("", {"findings": []})
    require_no_leakage(found, catalogue)


def test_the_same_name_and_type_in_train_and_test_is_a_problem(tmp_path: Path) -> None:
    catalogue = written(tmp_path, [*clean_rows(), "buffalo - TURQUOISE!,Rice,Maker 1,Shelf 1,Bay 1"])
    found = find_leakage(catalogue, split(catalogue, test=4), ("product",))
    finding = only(found)
    assert (finding.kind, finding.severity, finding.where) == ("same_product", "problem", "test")
    assert (finding.count, finding.of) == (1, 4)
    assert finding.examples[0].source == "c.csv:62"
    assert finding.examples[0].what == "buffalo - TURQUOISE! -> Rice; c.csv:3: Buffalo Turquoise"
    assert "--strategy grouped" in finding.message
    assert found.summary() == "leakage: 1 of 4 test products (25.0%) stand in train or validation too"


def test_the_same_name_with_another_type_is_no_leak(tmp_path: Path) -> None:
    catalogue = written(tmp_path, [*clean_rows(), "Buffalo Turquoise,Tea,Maker 1,Shelf 1,Bay 1"])
    assert not find_leakage(catalogue, split(catalogue, test=4), ("product",))


def test_what_validation_shares_with_train_and_test_with_validation_is_found(tmp_path: Path) -> None:
    again = "Aardvark Turquoise,Tea,Maker 0,Shelf 0,Bay 0"
    catalogue = written(tmp_path, [*clean_rows(), again, "Zebra Violet,Tea,,,", "Zebra Violet,Tea,,,"])
    found = find_leakage(catalogue, split(catalogue, test=1, validation=2), ("product",))
    assert {(finding.kind, finding.where, finding.count) for finding in found.findings} == {
        ("same_product", "validation", 1),
        ("same_product", "test", 1),
    }


def test_another_brands_product_of_the_same_name_is_a_warning_where_brands_are_held_out(tmp_path: Path) -> None:
    catalogue = written(tmp_path, [*clean_rows(), "Buffalo Turquoise,Rice,Other,Shelf 1,Bay 1"])
    finding = only(find_leakage(catalogue, split(catalogue, test=1, strategy="brand"), ("product",)))
    assert (finding.kind, finding.severity) == ("same_product", "warning")


@pytest.mark.parametrize(
    "name",
    [
        "Organic Buffalo Butter Unsalted 1.5 kg",
        "Organic Buffalo Butter Unsalted (Pack of 2)",
        "Organic Butter, Buffalo - Unsalted, 2 x 250g",
        "Organic Buffalo Butters Unsalted",
    ],
)
def test_a_name_that_differs_in_size_order_or_a_letter_is_a_near_duplicate(tmp_path: Path, name: str) -> None:
    rows = [*clean_rows(), "Organic Buffalo Butter Unsalted 500 g,Tea,,,", f'"{name}",Tea,,,']
    catalogue = written(tmp_path, rows)
    found = find_leakage(catalogue, split(catalogue, test=1), ("product",))
    finding = only(found)
    assert (finding.kind, finding.severity, finding.where, finding.count) == ("near_duplicate", "warning", "test", 1)
    assert finding.examples[0].what.endswith("; c.csv:62: Organic Buffalo Butter Unsalted 500 g")
    require_no_leakage(found, catalogue)


@pytest.mark.parametrize(
    ("name", "label"), [("Organic Buffalo Butter Unsalted 1 kg", "Rice"), ("Organic Goat Cheese Unsalted 500 g", "Tea")]
)
def test_another_type_or_another_product_is_no_near_duplicate(tmp_path: Path, name: str, label: str) -> None:
    rows = [*clean_rows(), "Organic Buffalo Butter Unsalted 500 g,Tea,,,", f"{name},{label},,,"]
    catalogue = written(tmp_path, rows)
    assert not find_leakage(catalogue, split(catalogue, test=1), ("product",))


@pytest.mark.parametrize(
    ("name", "without"),
    [
        ("Olive Oil - Pure, 1.5 L", "olive oil pure"),
        ("Olive Oil 500ml (Pack of 3)", "olive oil"),
        ("Soap 3 x 125 g", "soap"),
        ("7 Up", "7 up"),
        ("1 kg", "1 kg"),
    ],
)
def test_sizes_with_a_unit_are_left_out_and_other_numbers_stay(name: str, without: str) -> None:
    assert sizeless(name_key(name)) == without


def test_the_size_of_a_block_does_not_change_the_result(tmp_path: Path) -> None:
    towel = "Cotton Bath Towel Plain Weave Extra Soft Absorbent Quick Drying Hotel Quality Assorted"
    rows = [f"{towel} {animal} {colour},Tea,,," for animal in ANIMALS for colour in COLOURS]
    catalogue = written(tmp_path, rows)
    splits = split(catalogue, test=25, validation=9)
    whole = find_leakage(catalogue, splits, ("product",))
    assert whole.findings[0].count > EXAMPLES
    assert len(whole.findings[0].examples) == EXAMPLES
    products = catalogue.products
    expected = near_duplicates(products[:35], products[35:], threshold=0.92)
    assert 0 < len(expected.pairs) < 25
    for block_rows in (1, 7, 34):
        assert find_leakage(catalogue, splits, ("product",), block_rows=block_rows) == whole
        assert near_duplicates(products[:35], products[35:], threshold=0.92, block_rows=block_rows) == expected


def test_too_many_names_to_compare_are_sampled_evenly_and_counted_as_such(tmp_path: Path) -> None:
    rows = [f"{animal} {colour},Tea,,," for animal in ANIMALS for colour in COLOURS]
    catalogue = written(tmp_path, [*rows, *(f"{row.split(',')[0]} 2 kg,Tea,,," for row in rows)])
    seen, asked = catalogue.products[:60], catalogue.products[60:]
    found = near_duplicates(seen, asked, max_pairs=60 * 20)
    assert found.looked_at == len(found.pairs) == 20
    assert near_duplicates(seen, asked).looked_at == 60


def test_types_words_in_a_text_column_are_found_where_the_name_lacks_them(tmp_path: Path) -> None:
    rows = [*clean_rows(), "Zebra Violet,Face Care,CARE for Faces,,", "Face & care,Face Care,Face Care,,"]
    catalogue = written(tmp_path, rows, ("brand", "product"))
    splits = split(catalogue, test=6)
    assert not find_leakage(catalogue, splits, ("product",))
    finding = only(find_leakage(catalogue, splits, ("brand", "product")))
    assert (finding.kind, finding.severity, finding.where) == ("type_in_text", "warning", "brand")
    assert (finding.count, finding.of) == (1, 62)
    assert finding.examples[0].source == "c.csv:62"
    assert finding.examples[0].what == "CARE for Faces | Zebra Violet -> Face Care"


def test_types_words_in_a_text_column_of_many_rows_are_a_problem(tmp_path: Path) -> None:
    marked = [f"{row.split(',')[0]},Tea,Tea house {number},," for number, row in enumerate(clean_rows()[:9])]
    catalogue = written(tmp_path, [*marked, *clean_rows()[9:]], ("brand", "product"))
    finding = only(find_leakage(catalogue, split(catalogue, test=6), ("brand", "product")))
    assert (finding.kind, finding.severity, finding.count) == ("type_in_text", "problem", 9)


def coded(rows: list[str]) -> list[str]:
    """The rows with a code of their type, which holds none of its words, as brand."""
    return [",".join((*row.split(",")[:2], f"K{TYPES.index(row.split(',')[1])}")) + ",," for row in rows]


def test_a_column_that_the_type_can_be_read_off_is_a_problem(tmp_path: Path) -> None:
    catalogue = written(tmp_path, coded(clean_rows()), ("brand", "product"))
    splits = split(catalogue, test=20, validation=10)
    assert not find_leakage(catalogue, splits, ("product",))
    finding = only(find_leakage(catalogue, splits, ("brand", "product")))
    assert (finding.kind, finding.severity, finding.where) == ("type_from_column", "problem", "brand")
    assert (finding.count, finding.of) == (30, 30)
    assert "gets 10 right" in finding.message
    assert len(finding.examples) == EXAMPLES


def test_a_column_is_not_blamed_for_a_frequent_type_nor_on_few_rows(tmp_path: Path) -> None:
    one_type = [f"{row.split(',')[0]},Tea,{row.split(',')[2]},," for row in clean_rows()]
    catalogue = written(tmp_path, one_type, ("brand", "product"))
    assert not find_leakage(catalogue, split(catalogue, test=30), ("brand", "product"))
    catalogue = written(tmp_path, coded(clean_rows()), ("brand", "product"))
    assert not find_leakage(catalogue, split(catalogue, test=19), ("brand", "product"))


def test_the_refusal_lists_every_problem_with_examples_and_the_mend(tmp_path: Path) -> None:
    rows = coded(clean_rows())
    catalogue = written(tmp_path, [*rows, rows[0]], ("brand", "product"))
    found = find_leakage(catalogue, split(catalogue, test=25), ("brand", "product"))
    assert [finding.kind for finding in found.problems] == ["same_product", "type_from_column"]
    with pytest.raises(CatalogueError) as caught:
        require_no_leakage(found, catalogue)
    message = str(caught.value)
    assert caught.value.exit_status == 2
    for words in ("c.csv: --strict refuses", "c.csv:62: Aardvark", "--strategy grouped", "leave brand out of"):
        assert words in message


def test_findings_are_plain_json(tmp_path: Path) -> None:
    catalogue = written(tmp_path, [*clean_rows(), clean_rows()[0]])
    document = find_leakage(catalogue, split(catalogue, test=2), ("product",)).to_json()
    (finding,) = json.loads(json.dumps(document))["findings"]
    assert (finding["kind"], finding["count"], finding["of"]) == ("same_product", 1, 2)
    assert finding["examples"][0]["source"] == "c.csv:62"


def test_a_split_of_another_catalogue_is_refused(tmp_path: Path) -> None:
    splits = split(written(tmp_path, clean_rows()), test=2)
    with pytest.raises(CatalogueError, match="made from another catalogue"):
        find_leakage(written(tmp_path, clean_rows()[:50]), splits, ("product",))
