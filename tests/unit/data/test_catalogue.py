from pathlib import Path

import pytest

from shelfwise.config import Columns
from shelfwise.data.catalogue import (
    EMPTY_NAME,
    Catalogue,
    product_of,
    read_catalogue,
    recognise,
    rejects_table,
    require_trainable,
)
from shelfwise.data.names import name_key
from shelfwise.errors import CatalogueError
from shelfwise.records import Product, RawRow, Reject

HEADER = "index,product,category,sub_category,brand,type"


def catalogue_file(folder: Path, *lines: str, name: str = "c.csv") -> Path:
    path = folder / name
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def read(folder: Path, *lines: str, **options: object) -> Catalogue:
    return read_catalogue(catalogue_file(folder, *lines), **options)  # type: ignore[arg-type]


def test_rows_become_products_with_normalised_text(tmp_path: Path) -> None:
    catalogue = read(tmp_path, HEADER, "1,  Garlic\u00a0Oil\u200b - 1 kg ,Beauty,Hair  Care,Sri , Hair\u00a0Oil")
    assert catalogue.products == (
        Product(
            id=0,
            source="c.csv:2",
            name="Garlic Oil - 1 kg",
            label="Hair Oil",
            brand="Sri",
            category="Beauty",
            sub_category="Hair Care",
            text="Garlic Oil - 1 kg",
        ),
    )
    assert catalogue.columns == {role: role for role in ("product", "type", "brand", "category", "sub_category")}
    assert catalogue.untidy_labels == (0,)


def test_na_null_and_none_are_product_names(tmp_path: Path) -> None:
    catalogue = read(tmp_path, "product,type", "NA,x", "null,NA", "None,None")
    assert [product.name for product in catalogue.products] == ["NA", "null", "None"]
    assert [product.label for product in catalogue.products] == ["x", "NA", "None"]


def test_a_row_without_a_name_is_rejected_and_counted(tmp_path: Path) -> None:
    catalogue = read(tmp_path, "product,type", "a,x", "\u200b ,x", "b,y,surplus", "c,y")
    assert [(reject.id, reject.source) for reject in catalogue.rejects] == [(1, "c.csv:3"), (2, "c.csv:4")]
    assert catalogue.rejects[0].reason == EMPTY_NAME
    assert catalogue.row_count == 4
    assert [product.id for product in catalogue.products] == [0, 3]


def test_a_name_or_type_longer_than_a_thousand_characters_is_rejected(tmp_path: Path) -> None:
    catalogue = read(tmp_path, "product,type", f"{'n' * 1001},x", f"a,{'t' * 1001}", f"{'n' * 1000},x")
    assert [product.id for product in catalogue.products] == [2]
    assert [reject.reason for reject in catalogue.rejects] == [
        "column 'product' holds 1,001 characters; a product has at most 1,000",
        "column 'type' holds 1,001 characters; a type has at most 1,000",
    ]


def test_an_empty_type_is_no_label(tmp_path: Path) -> None:
    catalogue = read(tmp_path, "product,type", "a,", "b,x")
    assert [product.label for product in catalogue.products] == [None, "x"]
    assert [product.name for product in catalogue.labelled] == ["b"]


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("Product Name,TYPE,Brand_Name,Sub-Category", ("Product Name", "TYPE", "Brand_Name", "Sub-Category")),
        ("title,inventory_type,brand,subcategory", ("title", "inventory_type", "brand", "subcategory")),
        ("label,name,sub category", ("name", "label", None, "sub category")),
        ("title,name,product,product_type", ("product", "product_type", None, None)),
    ],
)
def test_usual_column_names_are_recognised(header: str, expected: tuple[str | None, ...]) -> None:
    roles = recognise(header.split(","), Columns(), Path("c.csv"))
    assert tuple(roles.get(role) for role in ("product", "type", "brand", "sub_category")) == expected


def test_a_named_column_wins_and_is_not_recognised_for_another_role() -> None:
    roles = recognise(["name", "title", "type"], Columns(type="name"), Path("c.csv"))
    assert roles == {"type": "name", "product": "title"}


def test_an_unknown_column_is_told_with_the_nearest_one(tmp_path: Path) -> None:
    with pytest.raises(CatalogueError, match=r"no column 'prodct' \(--product\)\. Did you mean 'product'\? .*'type'"):
        read(tmp_path, "product,type", "a,x", columns=Columns(product="prodct"))


def test_a_file_without_a_product_column_lists_its_columns(tmp_path: Path) -> None:
    with pytest.raises(CatalogueError, match=r"no column is recognised.*'sku', 'kind'.*--product"):
        read(tmp_path, "sku,kind", "a,x")


def test_the_message_about_columns_stays_on_one_screen(tmp_path: Path) -> None:
    header = ",".join(f"{'long' * 40}{i}\x1b" for i in range(900))
    with pytest.raises(CatalogueError, match="and 870 more") as caught:
        read(tmp_path, header, "," * 899)
    assert len(str(caught.value)) < 4_000
    assert "\x1b" not in str(caught.value)


def test_text_columns_are_joined_in_their_order_without_the_empty_ones(tmp_path: Path) -> None:
    lines = ("product,type,brand", "a,x,Acme", "b,x,")
    catalogue = read(tmp_path, *lines, text_columns=("brand", "product"))
    assert [product.text for product in catalogue.products] == ["Acme a", "b"]
    with pytest.raises(CatalogueError, match=r"is to read the sub_category.*--sub-category"):
        read(tmp_path, *lines, text_columns=("sub_category", "product"))


def test_labels_are_asked_for_only_when_required(tmp_path: Path) -> None:
    assert read(tmp_path, "product,price", "a,1").labelled == ()
    with pytest.raises(CatalogueError, match=r"no column is recognised as inventory types.*--type"):
        read(tmp_path, "product,price", "a,1", labels="required")
    with pytest.raises(CatalogueError, match=r"no product has an inventory type: column 'type' is empty"):
        read(tmp_path, "product,type", "a,", labels="required")


def test_one_single_type_is_nothing_to_learn_from(tmp_path: Path) -> None:
    with pytest.raises(CatalogueError, match=r"all 2 products have the same inventory type, 'x'"):
        require_trainable(read(tmp_path, "product,type", "a,x", "b,x", "c,"))
    with pytest.raises(CatalogueError, match="no product has an inventory type"):
        require_trainable(read(tmp_path, "product", "a"))
    require_trainable(read(tmp_path, "product,type", "a,x", "b,y"))


def test_a_file_of_rejects_alone_is_an_error_that_shows_the_first(tmp_path: Path) -> None:
    with pytest.raises(CatalogueError, match=r"no usable row among 2; the first, c\.csv:2: the product name"):
        read(tmp_path, "product,type", ",x", ",y")


def test_the_fingerprint_depends_on_the_rows_and_not_on_the_format_or_the_file_name(tmp_path: Path) -> None:
    first = read(tmp_path, "product,type,price", "a,x,1", "b,y,2")
    same = read_catalogue(catalogue_file(tmp_path, "price\ttype\tproduct", "9\tx\ta", "9\ty\t b", name="d.tsv"))
    assert first.fingerprint == same.fingerprint
    others = [
        read(tmp_path, "product,type", "b,y", "a,x"),
        read(tmp_path, "product,type", "a,x", "b,z"),
        read(tmp_path, "product,type", "a,x", "b,y", ",y"),
        read(tmp_path, "product,type,brand", "a,x,B", "b,y,"),
    ]
    assert len({first.fingerprint, *(other.fingerprint for other in others)}) == 5


def test_product_of_serves_rows_one_at_a_time() -> None:
    roles = {"product": "name", "brand": "maker"}
    row = RawRow(3, "c.csv:5", {"name": " a ", "maker": "B"})
    assert product_of(row, roles, ("brand", "product")) == Product(3, "c.csv:5", "a", None, brand="B", text="B a")
    assert product_of(RawRow(4, "c.csv:6", {"name": "", "maker": "B"}), roles, ("product",)) == Reject(
        4, "c.csv:6", EMPTY_NAME, {"name": "", "maker": "B"}
    )


def test_a_table_of_rejects_has_a_cell_for_every_heading() -> None:
    headings, rows = rejects_table(
        [Reject(0, "c:2", "why", {"name": "a", "reason": "b"}), Reject(1, "c:3", "broken", {})]
    )
    assert headings == ("source", "reject_reason", "name", "reason")
    assert rows == [("c:2", "why", "a", "b"), ("c:3", "broken", "", "")]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Olive Oil - Pure, 1 L", "olive  oil pure 1 l"),
        ("OrganicÂ Dal", "Organic Dal"),
        ("Ｔea", "tea"),
        ("Soap (Pack of 3)", "Soap, pack of 3"),
    ],
)
def test_names_that_differ_only_in_case_spaces_and_punctuation_are_one_name(one: str, other: str) -> None:
    assert name_key(one) == name_key(other)


@pytest.mark.parametrize(("one", "other"), [("1.5 kg", "15 kg"), ("कि", "का"), ("!", "?"), ("Café", "Caf")])
def test_names_that_say_different_things_stay_apart(one: str, other: str) -> None:
    assert name_key(one) != name_key(other)
    assert name_key(one)
