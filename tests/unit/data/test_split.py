import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.model_selection import train_test_split

from shelfwise.config import SplitConfig
from shelfwise.data.catalogue import Catalogue
from shelfwise.data.names import name_key
from shelfwise.data.split import Splits, make_splits, repeated
from shelfwise.errors import CatalogueError, CorruptArtifactError, InputError
from shelfwise.records import Product, Reject
from shelfwise.text import fold

Row = tuple[str, str | None, str]  # name, label, brand


def catalogue_of(rows: list[Row | None], fingerprint: str = "f" * 64) -> Catalogue:
    """A catalogue of these rows; None is a rejected one."""
    products = tuple(
        Product(i, f"c.csv:{i + 2}", row[0], row[1], brand=row[2], text=row[0])
        for i, row in enumerate(rows)
        if row is not None
    )
    rejects = tuple(Reject(i, f"c.csv:{i + 2}", "why") for i, row in enumerate(rows) if row is None)
    return Catalogue(Path("c.csv"), fingerprint, {"product": "product"}, products, rejects, len(rows))


def many_rows(types: int = 5, rows: int = 100) -> list[Row | None]:
    return [(f"item {t} {i}", f"type {t}", f"brand {(7 * t + i) % 40}") for t in range(types) for i in range(rows)]


names = st.sampled_from(["a", "A", "a.", "b", "b ", "c", "d", "e", "f", "g", "h", "i", "j", "k"])
labels = st.sampled_from(["x", "y", "z", None])
brands = st.sampled_from(["", "P", "p", "Q", "R"])
catalogues = st.lists(st.one_of(st.none(), st.tuples(names, labels, brands)), min_size=3, max_size=60).map(catalogue_of)
configs = st.builds(
    SplitConfig,
    strategy=st.sampled_from(["grouped", "brand"]),
    seed=st.integers(0, 5),
    test_size=st.floats(0.05, 0.6),
    validation_size=st.floats(0.05, 0.6),
)


@given(catalogues, configs)
def test_parts_are_disjoint_complete_and_the_same_every_time(catalogue: Catalogue, config: SplitConfig) -> None:
    if config.strategy == "brand" and not any(product.brand for product in catalogue.products):
        return
    splits = make_splits(catalogue, config)
    assert sorted((*splits.train, *splits.validation, *splits.test)) == list(range(catalogue.row_count))
    assert all(list(rows) == sorted(rows) for rows in splits.rows().values())
    assert splits == make_splits(catalogue, config)


@given(catalogues, st.integers(0, 5))
def test_grouped_parts_share_no_folded_name_and_train_holds_every_type(catalogue: Catalogue, seed: int) -> None:
    splits = make_splits(catalogue, SplitConfig(seed=seed, test_size=0.4, validation_size=0.3))
    for key in (fold, name_key):
        in_part = [{key(p.name) for p in catalogue.products if p.id in rows} for rows in splits.rows().values()]
        assert len(set().union(*in_part)) == sum(map(len, in_part))
    parts = splits.parts(catalogue)
    assert {product.label for product in parts.train} == {product.label for product in catalogue.labelled}


@given(catalogues, st.integers(0, 5))
def test_brand_parts_share_no_brand_and_train_holds_every_type(catalogue: Catalogue, seed: int) -> None:
    if not any(product.brand for product in catalogue.products):
        return
    splits = make_splits(catalogue, SplitConfig(strategy="brand", seed=seed, test_size=0.4, validation_size=0.3))
    in_part = [
        {fold(p.brand) for p in catalogue.products if p.id in rows and p.brand} for rows in splits.rows().values()
    ]
    assert len(set().union(*in_part)) == sum(map(len, in_part))
    parts = splits.parts(catalogue)
    assert {product.label for product in parts.train} == {product.label for product in catalogue.labelled}


def test_products_without_a_brand_are_held_out_by_their_names() -> None:
    catalogue = catalogue_of([*many_rows(2, 100), *[(f"plain {i // 2}", "type 0", "") for i in range(200)]])
    splits = make_splits(catalogue, SplitConfig(strategy="brand"))
    plain = [product for product in catalogue.products if not product.brand]
    tested = [product for product in plain if product.id in splits.test]
    assert 0 < len(tested) < 100
    assert not repeated(tested, [product for product in plain if product.id not in splits.test])


def test_random_holds_out_the_rows_of_train_test_split_rejected_ones_included() -> None:
    catalogue = catalogue_of([*many_rows(), None])
    splits = make_splits(catalogue, SplitConfig(strategy="random"))
    rest, test = train_test_split(list(range(501)), test_size=0.2, random_state=42)
    train, validation = train_test_split(rest, test_size=0.1, random_state=42)
    assert (splits.train, splits.validation, splits.test) == tuple(tuple(sorted(p)) for p in (train, validation, test))


@pytest.mark.parametrize("strategy", ["grouped", "random", "brand"])
def test_sizes_come_close_to_what_was_asked_for(strategy: str) -> None:
    catalogue = catalogue_of(many_rows())
    splits = make_splits(catalogue, SplitConfig(strategy=strategy, test_size=0.2, validation_size=0.25))
    assert len(splits.test) == pytest.approx(100, abs=8)
    assert len(splits.validation) == pytest.approx(100, abs=8)


def test_grouped_holds_out_every_frequent_type_in_proportion() -> None:
    catalogue = catalogue_of([*many_rows(3, 100), *[("same name", "type 1", "")] * 10])
    splits = make_splits(catalogue, SplitConfig())
    counts = Counter(product.label for product in splits.parts(catalogue).test)
    assert all(share == pytest.approx(20, abs=5) for share in counts.values())
    assert len(counts) == 3


def test_rare_types_get_their_share_of_test_together() -> None:
    catalogue = catalogue_of([(f"n{t} {i}", f"type {t:03}", "") for t in range(100) for i in range(2)])
    splits = make_splits(catalogue, SplitConfig())
    assert len(splits.test) == pytest.approx(40, abs=2)


def test_one_large_group_does_not_make_another_type_pay_for_it() -> None:
    catalogue = catalogue_of([*[("same", "a", "")] * 500, *[(f"n{i}", "b", "") for i in range(50)]])
    splits = make_splits(catalogue, SplitConfig())
    assert len(splits.test) == pytest.approx(10, abs=1)


@pytest.mark.parametrize("strategy", ["grouped", "brand"])
def test_types_with_a_single_row_stay_in_train_and_are_reported(strategy: str) -> None:
    singles: list[Row | None] = [(f"only {i}", f"single {i}", f"brand {i}") for i in range(30)]
    catalogue = catalogue_of([*many_rows(), *singles])
    for seed in range(5):
        splits = make_splits(catalogue, SplitConfig(strategy=strategy, seed=seed))
        assert set(range(500, 530)) <= set(splits.train)
        assert "Types with a single row stay in train: 30." in splits.notes


def test_another_seed_gives_another_split() -> None:
    catalogue = catalogue_of(many_rows())
    for strategy in ("grouped", "random", "brand"):
        tests = {make_splits(catalogue, SplitConfig(strategy=strategy, seed=seed)).test for seed in range(4)}
        assert len(tests) == 4, strategy


def test_most_rows_keep_their_part_when_a_product_is_added() -> None:
    rows = many_rows()
    before = make_splits(catalogue_of(rows), SplitConfig())
    after = make_splits(catalogue_of([*rows, ("new", "type 0", "")]), SplitConfig())
    assert len(set(before.test) & set(after.test)) > 0.9 * len(before.test)


def test_notes_tell_what_train_and_test_share() -> None:
    rows: list[Row | None] = [*many_rows(2, 20), *many_rows(2, 20), ("u", None, ""), None]
    notes = " ".join(make_splits(catalogue_of(rows), SplitConfig(strategy="random")).notes)
    assert "Products of test whose name train or validation holds too" in notes
    assert "1 rejected, 1 without an inventory type" in notes
    assert "whose name" not in " ".join(make_splits(catalogue_of(rows), SplitConfig()).notes)


def test_parts_give_the_labelled_products_and_count_the_others() -> None:
    catalogue = catalogue_of([("a", "x", ""), ("b", None, ""), None, ("c", "y", "")])
    splits = Splits("grouped", 0, 0.2, 0.1, catalogue.fingerprint, train=(0, 1), validation=(), test=(2, 3))
    parts = splits.parts(catalogue)
    assert ([p.name for p in parts.train], parts.validation, [p.name for p in parts.test]) == (["a"], (), ["c"])
    assert parts.left_out == 2


def test_repeated_compares_names_without_case_and_punctuation() -> None:
    seen, asked = catalogue_of([("Tea - Green", "x", "")]), catalogue_of([("tea green", "y", ""), ("tea", "x", "")])
    assert repeated(seen.products, asked.products) == asked.products[:1]


def test_a_catalogue_without_brands_or_with_too_few_rows_is_refused() -> None:
    with pytest.raises(CatalogueError, match="--brand"):
        make_splits(catalogue_of([("a", "x", ""), ("b", "y", "")]), SplitConfig(strategy="brand"))
    with pytest.raises(CatalogueError, match="2 rows are too few"):
        make_splits(catalogue_of([("a", "x", ""), ("b", "y", "")]), SplitConfig(strategy="random"))
    with pytest.raises(InputError, match="at most 4,294,967,295"):
        make_splits(catalogue_of(many_rows()), SplitConfig(strategy="random", seed=2**32))


def test_a_part_that_nothing_could_be_held_out_for_is_noted() -> None:
    notes = make_splits(catalogue_of([("a", "x", ""), ("b", "y", "")]), SplitConfig()).notes
    assert any("held out for test" in note for note in notes)


def saved(folder: Path, splits: Splits, **changes: object) -> Path:
    path = folder / "split.json"
    path.write_text(json.dumps({**splits.to_json(), **changes}), encoding="utf-8")
    return path


def test_a_saved_split_is_loaded_unchanged(tmp_path: Path) -> None:
    for strategy in ("grouped", "random", "brand"):
        splits = make_splits(catalogue_of(many_rows()), SplitConfig(strategy=strategy, seed=7, test_size=0.3))
        assert Splits.load(saved(tmp_path, splits)) == splits


def test_a_split_is_bound_to_its_catalogue() -> None:
    catalogue = catalogue_of(many_rows())
    splits = make_splits(catalogue, SplitConfig())
    splits.check(catalogue)
    for use in (splits.check, splits.parts):
        with pytest.raises(CatalogueError, match="shelfwise split"):
            use(replace(catalogue, fingerprint="0" * 64))


def test_a_changed_row_id_is_found_on_load(tmp_path: Path) -> None:
    splits = make_splits(catalogue_of(many_rows()), SplitConfig())
    document = splits.to_json()
    parts = json.loads(json.dumps(document["parts"]))
    parts["test"]["ids"][0] += 1
    with pytest.raises(CorruptArtifactError, match="'test' does not match its hash"):
        Splits.load(saved(tmp_path, splits, parts=parts))


def test_a_row_in_two_parts_is_found_on_load(tmp_path: Path) -> None:
    splits = make_splits(catalogue_of(many_rows()), SplitConfig())
    twice = replace(splits, validation=(*splits.validation, splits.train[0]))
    with pytest.raises(CorruptArtifactError, match="two parts"):
        Splits.load(saved(tmp_path, twice))


@pytest.mark.parametrize(
    "changes", [{"strategy": "other"}, {"parts": []}, {"parts": {"train": {}}}, {"seed": "x"}, {"notes": 3}]
)
def test_a_file_that_is_no_split_is_told_so(tmp_path: Path, changes: dict[str, object]) -> None:
    splits = make_splits(catalogue_of(many_rows()), SplitConfig())
    with pytest.raises(CorruptArtifactError, match="not a readable split"):
        Splits.load(saved(tmp_path, splits, **changes))


def test_a_missing_split_file_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no such split.*shelfwise split CATALOGUE"):
        Splits.load(tmp_path / "split.json")
