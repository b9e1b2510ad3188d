"""The packaged sample is what its README says: sizes, taxonomy, the planted defects, and no others."""

import csv
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from statistics import median

import pytest

from shelfwise.data import sample
from shelfwise.text import fold, normalise

Row = dict[str, str]
README = sample.catalogue_path().with_name("README.md")


def read(path: Path) -> list[Row]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def repeats(rows: Iterable[Row]) -> dict[int, tuple[Row, Row]]:
    """(first row of that name, this row) by file line, for every row that repeats an earlier name."""
    first: dict[str, Row] = {}
    found = {}
    for line, row in enumerate(rows, 2):
        key = fold(row["product"])
        if key and key in first:
            found[line] = (first[key], row)
        first.setdefault(key, row)
    return found


def documented(defect: str) -> set[int]:
    """The line numbers in the last column of the README's row on a defect."""
    pattern = rf"^\| {re.escape(defect)}[^|]*\|[^|]*\|([^|]*)\|$"
    row = re.search(pattern, README.read_text(encoding="utf-8"), re.MULTILINE)
    assert row, f"README.md has no table row on: {defect}"
    return {int(number) for number in re.findall(r"\d+", row[1])}


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return read(sample.catalogue_path())


@pytest.fixture(scope="module")
def new_products() -> list[Row]:
    return read(sample.new_products_path())


def paths_of_types(rows: list[Row]) -> dict[str, set[tuple[str, str]]]:
    paths: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for row in rows:
        if row["type"] != "Hair oil":
            paths[normalise(row["type"])].add((row["category"], row["sub_category"]))
    return paths


def test_the_file_is_utf8_with_unix_line_ends_and_one_line_a_row(rows: list[Row]) -> None:
    content = sample.catalogue_path().read_bytes()
    assert content.splitlines()[0] == b"product,category,sub_category,brand,type"
    assert b"\r" not in content
    assert not content.startswith(b"\xef\xbb\xbf")
    assert content.count(b"\n") == len(rows) + 1
    assert all(None not in row and None not in row.values() for row in rows)


def test_it_has_1997_products_in_11_categories_and_72_types(rows: list[Row]) -> None:
    assert len(rows) == 1997
    assert len({row["category"] for row in rows}) == 11
    assert len({row["sub_category"] for row in rows}) == 40
    assert len(paths_of_types(rows)) == 72
    assert len({row["brand"] for row in rows} - {""}) == 90


def test_type_sizes_have_a_long_tail(rows: list[Row]) -> None:
    sizes = Counter(normalise(row["type"]) for row in rows if row["type"] != "Hair oil")
    ordered = sorted(sizes.values())
    assert sizes.most_common(1) == [("Biscuits & Cookies", 111)]
    assert median(ordered) == 24.5
    assert [size for size in ordered if size < 9] == [1, 1, 4, 5, 6, 6, 7]
    assert {name for name, size in sizes.items() if size == 1} == {"Bird Feeders", "Seaweed Sheets"}


def test_labels_hold_commas_contain_one_another_and_share_first_words(rows: list[Row]) -> None:
    labels = set(paths_of_types(rows))
    assert sum("," in label for label in labels) >= 8
    inside = {(inner, outer) for inner in labels for outer in labels if inner != outer and inner in outer}
    assert inside == {
        ("Butter", "Nut Butter"),
        ("Chocolate", "Chocolate Spread"),
        ("Rice", "Rice Flour"),
        ("Tea", "Green Tea"),
    }
    assert {"Hair Oil", "Hair Colour", "Hair Conditioner", "Face Wash", "Face Cream & Serum"} <= labels


def test_the_taxonomy_is_no_tree_but_a_type_has_one_category(rows: list[Row]) -> None:
    paths = paths_of_types(rows)
    assert {label for label, found in paths.items() if len(found) > 1} == {
        "Bottles & Flasks",
        "Cheese",
        "Chocolate",
        "Hair Oil",
        "Hand Wash",
        "Nuts, Seeds & Dried Fruit",
        "Tea",
    }
    assert all(len({category for category, _ in found}) == 1 for found in paths.values())
    gifts = {category for found in paths.values() for category, sub_category in found if sub_category == "Gift Packs"}
    assert gifts == {"Drinks", "Snacks & Sweets", "Staples & Spices"}


def test_every_brand_keeps_to_a_few_categories(rows: list[Row]) -> None:
    categories: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        if row["brand"]:
            categories[row["brand"]].add(row["category"])
    assert max(len(found) for found in categories.values()) <= 4


def test_exact_duplicates_are_the_documented_ones(rows: list[Row]) -> None:
    found = {line for line, (first, row) in repeats(rows).items() if row == first}
    assert len(found) == 6
    assert found == documented("whole row repeated")


def test_duplicates_after_normalisation_are_the_documented_ones(rows: list[Row]) -> None:
    kinds: dict[str, set[int]] = defaultdict(set)
    for line, (first, row) in repeats(rows).items():
        if row["type"] != first["type"] or row == first:
            continue
        if "\u00a0" in row["product"]:
            kinds["no-break space"].add(line)
        elif "  " in row["product"]:
            kinds["double space"].add(line)
        else:
            kinds["other letter case"].add(line)
    assert {kind: len(lines) for kind, lines in kinds.items()} == {
        "no-break space": 5,
        "double space": 5,
        "other letter case": 5,
    }
    assert kinds["no-break space"] == documented("name repeated with a no-break space")
    assert kinds["double space"] == documented("name repeated with a double space")
    assert kinds["other letter case"] == documented("name repeated with other letter case")


def test_six_names_stand_under_two_types(rows: list[Row]) -> None:
    lines: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for line, row in enumerate(rows, 2):
        if row["product"]:
            lines[fold(row["product"])][normalise(row["type"])].append(line)
    conflicting = {name: found for name, found in lines.items() if len(found) > 1}
    assert len(conflicting) == 6
    assert {line for found in conflicting.values() for of_type in found.values() for line in of_type} == documented(
        "name under two types"
    )


def test_empty_cells_are_the_documented_ones(rows: list[Row]) -> None:
    numbered = list(enumerate(rows, 2))
    assert {line for line, row in numbered if not row["product"]} == {1061} == documented("empty product name")
    assert {line for line, row in numbered if not row["brand"]} == documented("empty brand")
    assert all(row["category"] and row["sub_category"] and row["type"] for row in rows)


def test_untidy_labels_are_the_documented_ones(rows: list[Row]) -> None:
    numbered = list(enumerate(rows, 2))
    spaced = {line: row["type"] for line, row in numbered if row["type"] != normalise(row["type"])}
    assert spaced == {1297: "Shampoo "}
    assert set(spaced) == documented("label with a trailing space")
    spellings: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        spellings[fold(row["type"])].add(normalise(row["type"]))
    assert [found for found in spellings.values() if len(found) > 1] == [{"Hair Oil", "Hair oil"}]
    lower_case = {line for line, row in numbered if row["type"] == "Hair oil"}
    assert lower_case == documented("label that differs in case only")


def test_only_product_names_and_one_label_are_untidy(rows: list[Row]) -> None:
    for row in rows:
        for column in ("category", "sub_category", "brand"):
            assert row[column] == normalise(row[column])
        assert row["product"] == row["product"].strip()
    untidy = [row["product"] for row in rows if row["product"] != normalise(row["product"])]
    assert len(untidy) == 10  # the double and the no-break spaces


def test_names_with_accents_fractions_and_quotes_survive(rows: list[Row]) -> None:
    names = [row["product"] for row in rows]
    assert sum(not name.isascii() for name in names) == 23
    for sign in ("é", "ñ", "è", "½", "×", "आटा", "\u00a0"):
        assert any(sign in name for name in names), sign
    assert 'Frying Pan 9" Non-Stick, Induction Base' in names
    assert 'Cookware Set "Sunday Feast", Tawa + Kadhai + Lid, 3 pcs' in names


def test_no_name_runs_as_a_formula_in_the_catalogue(rows: list[Row]) -> None:
    assert not [row["product"] for row in rows if row["product"].startswith(("=", "+", "-", "@"))]


def test_new_products_are_unlabelled_and_hold_the_awkward_names(new_products: list[Row]) -> None:
    assert list(new_products[0]) == ["sku", "product", "brand"]
    assert len(new_products) == 66
    assert len({row["sku"] for row in new_products}) == len(new_products)
    names = [row["product"] for row in new_products]
    assert names.count("") == 1
    assert sorted(name[0] for name in names if name.startswith(("=", "+", "-", "@"))) == ["+", "="]
    assert any(not name.isascii() for name in names)
    assert any('"' in name and "," in name for name in names)
    assert {name: count for name, count in Counter(filter(None, map(fold, names))).items() if count > 1} == {
        "citrus floor cleaner": 2
    }


def test_no_new_product_is_in_the_catalogue(rows: list[Row], new_products: list[Row]) -> None:
    known = {fold(row["product"]) for row in rows if row["product"]}
    assert known
    assert not {fold(row["product"]) for row in new_products} & known


def test_new_products_come_from_brands_of_the_catalogue(rows: list[Row], new_products: list[Row]) -> None:
    assert {row["brand"] for row in new_products} <= {row["brand"] for row in rows}


@pytest.mark.bigbasket
def test_no_name_and_no_brand_is_one_of_the_real_catalogue(
    bigbasket: Path, rows: list[Row], new_products: list[Row]
) -> None:
    real = read(bigbasket)
    assert len(real) == 27555
    for column in ("product", "brand"):
        ours = {fold(row[column]) for row in (*rows, *new_products)} - {""}
        assert not ours & {fold(row[column]) for row in real}
