from __future__ import annotations

import json

import pytest

from shelfwise import storage
from shelfwise.errors import CorruptArtifactError, InputError
from shelfwise.labels import Labels, Taxonomy
from shelfwise.records import Product

HARD = ("Atta, Flours", "Oil", "Oil & Ghee", 'The "Good" Tea', "Water, Fridge Bottles", "Öl")


def product(label, category="", sub_category=""):
    return Product(0, "x.csv:2", "name", label, category=category, sub_category=sub_category)


def test_labels_keep_commas_quotes_and_order_through_a_file(tmp_path):
    taxonomy = Taxonomy.of(
        [product("Oil", "Food", "Oils"), product("Oil", "Beauty", "Hair"), product("Oil", "Food", "Oils")]
    )
    labels = Labels(HARD, taxonomy)
    storage.write_json(tmp_path / "labels.json", labels.to_json())
    again = Labels.load(tmp_path / "labels.json")
    assert again == labels
    assert again.taxonomy.paths["Oil"] == (("Food", "Oils", 2), ("Beauty", "Hair", 1))
    assert [again.index(name) for name in HARD] == list(range(len(HARD)))


def test_an_unknown_label_names_the_row_and_the_nearest_type():
    with pytest.raises(InputError, match=r"c\.csv:7: 'Oil and Ghee' is not one of the 6 .*Did you mean 'Oil & Ghee'"):
        Labels(HARD).index("Oil and Ghee", "c.csv:7")


def test_labels_in_another_order_are_refused_on_load(tmp_path):
    stored = Labels(HARD).to_json()
    stored["labels"] = list(reversed(HARD))
    (tmp_path / "labels.json").write_text(json.dumps(stored))
    with pytest.raises(CorruptArtifactError, match="hash"):
        Labels.load(tmp_path / "labels.json")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"labels": 3, "taxonomy": {}, "sha256": ""}'])
def test_a_damaged_label_file_is_reported(tmp_path, text):
    (tmp_path / "labels.json").write_text(text)
    with pytest.raises(CorruptArtifactError, match="Copy the run folder whole again"):
        Labels.load(tmp_path / "labels.json")


def test_repeated_and_empty_labels_are_refused():
    with pytest.raises(InputError, match="repeated"):
        Labels(("a", "a"))
    with pytest.raises(InputError, match="empty"):
        Labels(("a", ""))


def test_a_path_leaves_out_the_levels_that_are_unknown():
    taxonomy = Taxonomy.of([product("Oil", "Food"), product("Rice"), product("Tea", "Food", "Drinks")])
    assert taxonomy.path("Oil") == ("Food", "Oil")
    assert taxonomy.path("Rice") == ("Rice",)
    assert taxonomy.path("Tea") == ("Food", "Drinks", "Tea")
    assert taxonomy.category("Rice") is None


def test_labels_come_sorted_from_products():
    assert Labels.of([product("b"), product("a"), product(None), product("b")]).names == ("a", "b")
