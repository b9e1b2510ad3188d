import json
from pathlib import Path

import pytest

from shelfwise.data.audit import Audit, audit
from shelfwise.data.catalogue import read_catalogue
from shelfwise.data.findings import EXAMPLES, Example
from shelfwise.data.split import Splits

HEADER = "product,type,brand,category,sub_category"


def audited(folder: Path, *lines: str, splits: Splits | None = None, header: str = HEADER) -> Audit:
    path = folder / "c.csv"
    path.write_text("\n".join((header, *lines)) + "\n", encoding="utf-8")
    return audit(read_catalogue(path), splits)


def clean_rows(types: int = 2, rows: int = 12) -> list[str]:
    words = ("Alpha", "Beta", "Gamma", "Delta", "Epsilon", "Zeta")
    return [f"item {t} {i},{words[t]},Acme,Food,Food {t}" for t in range(types) for i in range(rows)]


def test_a_clean_catalogue_has_numbers_and_no_findings(tmp_path: Path) -> None:
    found = audited(tmp_path, *clean_rows())
    assert found.findings == ()
    assert (found.rows, found.products, found.labelled, found.types, found.brands) == (24, 24, 24, 2, 1)
    assert (found.categories, found.sub_categories) == (1, 2)
    assert found.largest_type == ("Alpha", 12)
    assert found.best_accuracy == 1.0


@pytest.mark.parametrize(
    ("kind", "severity", "lines", "count", "first"),
    [
        ("empty_names", "problem", [" ,Alpha,Acme,Food,Food 0"], 1, ("c.csv:26", "the product name is empty")),
        ("unreadable_rows", "problem", ["a,Alpha"], 1, ("c.csv:26", "2 cells where the header has 5")),
        ("garbled_names", "warning", ["OilÂ - x,Alpha,Acme,Food,Food 0"], 1, ("c.csv:26", "OilÂ - x -> Alpha")),
        ("duplicate_rows", "warning", ["item 0 0,Alpha,Acme,Food,Food 0"], 1, ("c.csv:26", "item 0 0 -> Alpha")),
        ("repeated_names", "info", ["ITEM  0-0,Alpha,Acme,Food,Food 0"], 1, ("c.csv:26", "ITEM 0-0 -> Alpha")),
        (
            "conflicting_types",
            "warning",
            ["item 0 0,Beta,Acme,Food,Food 1"],
            1,
            ("c.csv:2", "item 0 0 -> Alpha (1) | Beta (1)"),
        ),
        ("rows_without_type", "warning", ["a,,Acme,Food,Food 0", "b,,Acme,Food,Food 0"], 2, ("c.csv:26", "a")),
        ("rows_without_brand", "info", ["a,Alpha,,Food,Food 0"], 1, ("c.csv:26", "a -> Alpha")),
        ("types_with_one_row", "warning", ["a,Rare,Acme,Food,Food 0"], 1, ("c.csv:26", "Rare")),
        (
            "types_under_5_rows",
            "warning",
            ["a,Rare,Acme,Food,F", "b,Rare,Acme,Food,F", "c,Lone,Acme,Food,F"],
            2,
            ("c.csv:26", "Rare"),
        ),
        ("types_under_10_rows", "info", [f"r{i},Rare,Acme,Food,F" for i in range(9)], 1, ("c.csv:26", "Rare")),
        ("untidy_types", "warning", ["a, Alpha ,Acme,Food,Food 0"], 1, ("c.csv:26", "Alpha")),
        ("types_differing_in_spelling", "warning", ["a,ALPHA,Acme,Food,Food 0"], 2, ("c.csv:2", "Alpha")),
        ("types_with_commas", "info", ['a,"Tea, Green",Acme,Food,Food 0'], 1, ("c.csv:26", "Tea, Green")),
        ("types_within_types", "info", ["a,More alpha,Acme,Food,Food 0"], 1, ("c.csv:2", "Alpha")),
        ("types_sharing_first_word", "info", ["a,Alpha More,Acme,Food,Food 0"], 2, ("c.csv:2", "Alpha")),
        ("types_in_several_categories", "warning", ["a,Alpha,Acme,Home,Food 0"], 1, ("c.csv:2", "Alpha")),
        ("types_in_several_sub_categories", "info", ["a,Alpha,Acme,Food,Other"], 1, ("c.csv:2", "Alpha")),
        (
            "sub_categories_in_several_categories",
            "info",
            ["a,Alpha,Acme,Home,Food 0"],
            1,
            ("c.csv:2", "Food 0 < Food | Home"),
        ),
    ],
)
def test_each_defect_is_found_counted_and_placed(
    tmp_path: Path, kind: str, severity: str, lines: list[str], count: int, first: tuple[str, str]
) -> None:
    finding = audited(tmp_path, *clean_rows(), *lines).finding(kind)  # type: ignore[arg-type]
    assert finding is not None
    assert (finding.severity, finding.count) == (severity, count)
    assert finding.examples[0] == Example(*first)


def test_one_type_in_all_rows_is_a_problem(tmp_path: Path) -> None:
    finding = audited(tmp_path, *clean_rows(types=1)).finding("single_type")
    assert finding is not None
    assert finding.severity == "problem"


def test_shares_are_told_with_the_count(tmp_path: Path) -> None:
    found = audited(tmp_path, *clean_rows(types=1), *["item 0 0,Alpha,Acme,Food,Other"] * 4)
    repeated = found.finding("repeated_names")
    under_several = found.finding("types_in_several_sub_categories")
    assert repeated is not None
    assert under_several is not None
    assert "(25.0%)" in repeated.message
    assert "(100% of the rows)" in under_several.message


def test_the_best_possible_accuracy_counts_each_texts_most_frequent_type(tmp_path: Path) -> None:
    found = audited(tmp_path, "a,x,,,", "A,x,,,", "a.,y,,,", "b,y,,,")
    assert found.best_accuracy == 0.75


def test_problems_come_first_and_examples_are_few(tmp_path: Path) -> None:
    found = audited(tmp_path, *clean_rows(), *["item 0 0,Beta,Acme,Food,F"] * 20, ",x,,,")
    severities = [finding.severity for finding in found.findings]
    assert severities == sorted(severities, key=["problem", "warning", "info"].index)
    assert {"problem", "warning", "info"} == set(severities)
    assert max(len(finding.examples) for finding in found.findings) == EXAMPLES


def test_a_catalogue_without_types_is_audited_too(tmp_path: Path) -> None:
    found = audited(tmp_path, "a", "a", header="product")
    assert (found.types, found.largest_type, found.best_accuracy) == (0, None, None)
    assert [finding.kind for finding in found.findings] == ["duplicate_rows", "repeated_names"]


def test_what_the_parts_of_a_split_share_is_found(tmp_path: Path) -> None:
    lines = ["a,x,,,", "A,x,,,", "b,y,,,", "c,z,,,"]
    path = tmp_path / "c.csv"
    path.write_text("\n".join((HEADER, *lines)), encoding="utf-8")
    fingerprint = read_catalogue(path).fingerprint
    splits = Splits("random", 0, 0.5, 0.1, fingerprint, train=(0, 2), validation=(), test=(1, 3))
    found = audited(tmp_path, *lines, splits=splits)
    shared, untaught = found.finding("names_shared_between_parts"), found.finding("types_missing_from_train")
    assert shared is not None
    assert untaught is not None
    assert (shared.count, shared.examples[0].source) == (1, "c.csv:3")
    assert "50.0%" in shared.message
    assert (untaught.count, untaught.examples[0].source) == (1, "c.csv:5")


def test_the_audit_is_one_json_document(tmp_path: Path) -> None:
    document = json.loads(json.dumps(audited(tmp_path, *clean_rows(), ",x,,,").to_json()))
    assert document["rows"] == 25
    assert document["findings"][0]["kind"] == "empty_names"
    assert document["findings"][0]["examples"] == [{"source": "c.csv:26", "what": "the product name is empty"}]
