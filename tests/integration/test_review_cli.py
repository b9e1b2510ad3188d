"""From predictions to decisions to a catalogue that trains: `shelfwise review` from the command line."""

import csv
import json
import shutil
from pathlib import Path

import openpyxl
import pytest
from pyarrow import parquet

from shelfwise import cli
from shelfwise.classifier import Classifier
from shelfwise.data.catalogue import read_catalogue
from shelfwise.review import Decision, open_store
from support.runs import train_small, write_catalogue

FORMATS = ["csv", "tsv", "jsonl", "parquet", "xlsx"]
NEW = [
    ("Quinoa puffs, salted", "Oro", "7"),
    ("QUINOA PUFFS - salted", "oro", "8"),
    ("Quinoa puffs salted", "Zest", "9"),
    ('=HYPERLINK("http://x")', "+1 Foods", "10"),
    ("<b>Chia & seeds</b>", "שמן", "11"),
]


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_catalogue(tmp_path_factory.mktemp("catalogue") / "catalogue.csv")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, catalogue: Path) -> Path:
    """A baseline with five types, which knows nothing about quinoa."""
    return train_small(catalogue, tmp_path_factory.mktemp("runs") / "first", model="baseline").folder


@pytest.fixture
def store(tmp_path: Path) -> str:
    return str(tmp_path / "review.db")


def shelfwise(*words: object) -> None:
    assert cli.run([str(word) for word in words]) == 0


def predicted(run: Path, folder: Path, suffix: str) -> Path:
    source, out = folder / "new.csv", folder / f"predictions.{suffix}"
    with source.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([("product", "brand", "sku"), *NEW])
    shelfwise("predict", run, source, "--out", out)
    return out


@pytest.mark.parametrize("suffix", FORMATS)
def test_predictions_of_every_format_fill_the_same_queue(run, tmp_path, store, suffix, capsys):
    path = predicted(run, tmp_path, suffix)
    capsys.readouterr()
    shelfwise("review", "load", path, "--store", store, "--all", "--json")
    told = json.loads(capsys.readouterr().out)
    assert (told["kind"], told["rows"], told["wanted"], told["items"]) == ("predictions", 5, 5, 4)
    classifier = Classifier.load(run)
    with open_store(store) as opened:
        items = {(item.name, item.brand): item for item in opened.items()}
    assert set(items) == {NEW[0][:2], NEW[2][:2], NEW[3][:2], NEW[4][:2]}
    assert items[NEW[0][:2]].rows == 2
    for (name, _), item in items.items():
        (answer,) = classifier.predict([name])
        assert (item.predicted_type, item.path, item.sure_path, item.level, item.model) == (
            answer.label,
            answer.path,
            answer.sure_path,
            answer.level,
            "baseline",
        )
        assert item.confidence == pytest.approx(answer.confidence, abs=1e-4)
        assert [label for label, _ in item.top_k] == [label for label, _ in answer.top_k]
        assert item.source.startswith(f"{path.name}:")


def test_loading_a_file_again_adds_nothing(run, tmp_path, store, capsys):
    path = predicted(run, tmp_path, "csv")
    for words in ((), ("--all",), ("--all",)):
        shelfwise("review", "load", path, "--store", store, *words)
    with open_store(store) as opened:
        assert sum(item.rows for item in opened.items()) == len(NEW)
    assert "5 rows of 5, 0 new in the queue" in capsys.readouterr().out


def test_only_rows_for_review_are_taken_unless_all_are_wanted(tmp_path, store, capsys):
    path = tmp_path / "predictions.csv"
    path.write_text("name,predicted_type,confidence,decision\na,Rice,0.9,accept\nb,Rice,0.4,review\n")
    shelfwise("review", "load", path, "--store", store)
    assert "1 rows to review of 2, 1 new" in capsys.readouterr().out
    with open_store(store) as opened:
        assert [item.name for item in opened.items()] == ["b"]


def test_a_file_that_was_predicted_twice_gives_its_last_predictions(run, tmp_path, store):
    first = predicted(run, tmp_path, "csv")
    text = first.read_text(encoding="utf-8").replace("baseline", "an older model")
    first.write_text(text, encoding="utf-8")
    again = tmp_path / "again.csv"
    shelfwise("predict", run, first, "--out", again)
    shelfwise("review", "load", again, "--store", store, "--all")
    with open_store(store) as opened:
        assert {item.model for item in opened.items()} == {"baseline"}


def settle(store: str, to: str, *, reviewer: str = "asha") -> None:
    """Correct every open item."""
    with open_store(store) as opened:
        while item := opened.next_item(reviewer):
            opened.decide(item.id, Decision("correct", reviewer, item.version, type=to, comment="=seen\nit"))


def rows_of(path: Path) -> list[dict[str, str]]:
    """The rows of any format, as its own reader gives them."""
    if path.suffix == ".parquet":
        return parquet.read_table(path).to_pylist()
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    if path.suffix == ".xlsx":
        header, *cells = openpyxl.load_workbook(path).worksheets[0].iter_rows(values_only=True)
        return [dict(zip(header, ["" if cell is None else cell for cell in row], strict=True)) for row in cells]
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream, delimiter="\t" if path.suffix == ".tsv" else ","))


@pytest.mark.parametrize("suffix", FORMATS)
def test_decisions_are_written_as_a_catalogue_with_provenance(run, tmp_path, store, suffix, capsys):
    shelfwise("review", "load", predicted(run, tmp_path, "jsonl"), "--store", store, "--all")
    settle(store, "Snacks, Salted")
    out = tmp_path / f"corrections.{suffix}"
    shelfwise("review", "export", "--store", store, "--out", out)
    shelfwise("check", out)
    found = read_catalogue(out, labels="required")
    assert {product.label for product in found.products} == {"Snacks, Salted"}
    assert {product.brand for product in found.products} >= {"Oro", "Zest", "שמן"}
    by_name = {row["product"].lstrip("'"): row for row in rows_of(out)}
    assert set(by_name) == {NEW[0][0], NEW[2][0], NEW[3][0], NEW[4][0]}
    row = by_name[NEW[0][0]]
    assert (row["reviewed_by"], row["review"], row["predicted_by"], row["review_rows"]) == (
        "asha",
        "correct",
        "baseline",
        "2",
    )
    assert row["reviewed_at"].endswith("+00:00")
    assert row["review_source"] == "predictions.jsonl:1"
    assert row["review_comment"].lstrip("'") == "=seen it"
    assert 0 < float(row["predicted_confidence"]) < 1


def test_a_run_trained_on_catalogue_and_decisions_gives_the_corrected_answer(catalogue, run, tmp_path, store, capsys):
    shelfwise("review", "load", predicted(run, tmp_path, "csv"), "--store", store, "--all", "--examples", catalogue)
    with open_store(store) as opened:
        assert {example.brand[:5] for example in opened.examples("Rice Flour")} == {"Brand"}
    before = Classifier.load(run).predict(["Quinoa puffs, salted"])[0].label
    assert before != "Snacks"
    settle(store, "Snacks")
    joined = tmp_path / "joined.csv"
    shelfwise("review", "export", "--store", store, "--catalogue", catalogue, "--out", joined)
    assert "4 products were appended" in capsys.readouterr().out
    again = train_small(joined, tmp_path / "second", model="baseline").folder
    assert Classifier.load(again).predict(["Quinoa puffs, salted"])[0].label == "Snacks"


def test_decisions_replace_the_types_of_the_catalogues_own_rows(tmp_path, store, capsys):
    catalogue = tmp_path / "catalogue.csv"
    catalogue.write_text(
        "type,name,brand,reviewed_by\n"
        "Rice,Basmati,A,x\nRice,basmati.,B,y\nTea,Oolong,C,z\nTea,,C,no name\nTea,Chai,D,w\nRice,Oil,E,v\n"
    )
    predictions = tmp_path / "predictions.csv"
    predictions.write_text(
        "name,brand,predicted_type,confidence,decision\n"
        "BASMATI,a,Tea,0.3,review\nOolong,C,Tea,0.4,review\nNew thing,F,Rice,0.5,review\n"
    )
    nameless = tmp_path / "nameless.jsonl"
    nameless.write_text(
        "".join(
            json.dumps({"name": name, "predicted_type": "Rice", "confidence": 0.2, "decision": "review"}) + "\n"
            for name in ("oil", "basmati")
        )
    )
    for path in (predictions, nameless):
        shelfwise("review", "load", path, "--store", store)
    settle(store, "Grain")
    out = tmp_path / "out.csv"
    capsys.readouterr()
    shelfwise("review", "export", "--store", store, "--catalogue", catalogue, "--out", out, "--json")
    told = json.loads(capsys.readouterr().out)
    assert (told["rows"], told["matched"], told["changed"], told["appended"]) == (8, 3, 3, 2)
    found = rows_of(out)
    assert [(row["type"], row["name"], row["brand"]) for row in found] == [
        ("Grain", "Basmati", "A"),
        ("Rice", "basmati.", "B"),  # the one about the name is not about other brands where one has its own
        ("Grain", "Oolong", "C"),
        ("Tea", "", "C"),
        ("Tea", "Chai", "D"),
        ("Grain", "Oil", "E"),  # a decision without a brand is about the name
        ("Grain", "New thing", "F"),
        ("Grain", "basmati", ""),
    ]
    assert [row["reviewed_by"] for row in found[:6]] == ["x", "y", "z", "no name", "w", "v"]
    assert [row["reviewed_by_2"] for row in found] == ["asha", "", "asha", "", "", "asha", "asha", "asha"]


def test_a_label_audit_fills_the_queue_with_what_the_catalogue_says(catalogue, tmp_path, store, capsys):
    pytest.importorskip("cleanlab")
    wrong = tmp_path / "wrong.csv"
    lines = catalogue.read_text(encoding="utf-8").splitlines()
    product, *_, given = lines[1].split(",")
    planted = "Rice" if given != "Rice" else "Face Care"
    wrong.write_text("\n".join([lines[0], lines[1].rpartition(",")[0] + f",{planted}", *lines[2:]]), encoding="utf-8")
    for suffix in ("csv", "parquet"):
        suspects = tmp_path / f"suspects.{suffix}"
        shelfwise("audit-labels", wrong, "--out", suspects)
        shelfwise("review", "load", suspects, "--store", store)
    with open_store(store) as opened:
        item = next(item for item in opened.items(limit=1000) if item.name == product)
        assert (item.reason, item.given_type, item.predicted_type) == ("label audit", planted, given)
        assert [label for label, _ in item.top_k] == [given, planted]
        opened.decide(item.id, Decision("accept", "asha", item.version))
    out = tmp_path / "right.csv"
    shelfwise("review", "export", "--store", store, "--catalogue", wrong, "--out", out)
    assert next(row["type"] for row in rows_of(out) if row["product"] == product) == given


def test_an_export_is_whole_or_not_there_and_overwrites_nothing_unasked(tmp_path, store, capsys):
    path = tmp_path / "predictions.csv"
    path.write_text("name,predicted_type,confidence,decision\na,Rice,0.5,review\n")
    shelfwise("review", "load", path, "--store", store)
    out = tmp_path / "out.csv"
    assert cli.run(["review", "export", "--store", store, "--out", str(out)]) == 2
    assert "Nothing is settled" in capsys.readouterr().err
    settle(store, "Grain")
    shelfwise("review", "export", "--store", store, "--out", out)
    assert cli.run(["review", "export", "--store", store, "--out", str(out)]) == 2
    shelfwise("review", "export", "--store", store, "--out", out, "--force")
    catalogue = shutil.copy(out, tmp_path / "catalogue.csv")
    words = ["review", "export", "--store", store, "--catalogue", catalogue, "--out", str(catalogue), "--force"]
    assert cli.run(words) == 2
    assert "overwrite the catalogue" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir() if "partial" in path.name) == []
