"""Reviewing from the command line, and what it says of wrong calls and wrong files."""

import json
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from shelfwise import cli


@pytest.fixture
def store(tmp_path: Path) -> str:
    return str(tmp_path / "review.db")


def shelfwise(*words: object) -> None:
    assert cli.run([str(word) for word in words]) == 0


def test_a_queue_is_reviewed_from_the_command_line(tmp_path, store, capsys):
    path = tmp_path / "predictions.csv"
    path.write_text(
        "name,brand,predicted_type,confidence,decision\n"
        "a,X,Rice,0.1,review\na,Y,Tea,0.3,review\nb,X,Rice,0.4,review\nc,X,Rice,0.5,review\n"
    )
    shelfwise("review", "load", path, "--store", store)
    who = ("--store", store, "--reviewer", "asha")
    capsys.readouterr()
    shelfwise("review", "next", *who)
    said = capsys.readouterr().out
    assert "a (X)" in said
    assert "item 1, version 1" in said
    assert "1 more of this name are open under other brands" in said
    shelfwise("review", "decide", 1, *who, "--version", 1, "--type", "Tea", "--same-name")
    shelfwise("review", "undo", *who)
    shelfwise("review", "decide", 1, *who, "--version", 3, "--accept")
    shelfwise("review", "decide", 3, *who, "--version", 1, "--skip")
    capsys.readouterr()
    assert cli.run(["review", "decide", "1", *who, "--version", "3", "--accept"]) == 1
    assert "asha has settled item 1 as 'Rice' meanwhile" in capsys.readouterr().err
    shelfwise("review", "status", "--store", store)
    said = capsys.readouterr().out
    assert "1 of 4 products are settled (25.0%)" in said
    assert "3 open, 1 of them skipped" in said
    assert "asha: 1 accepted, 0 corrected" in said
    shelfwise("review", "status", "--store", store, "--json")
    assert json.loads(capsys.readouterr().out)["agreement"] == 1.0


def test_a_type_that_the_review_does_not_know_is_refused_unless_it_is_said_to_be_new(tmp_path, store, capsys):
    path, catalogue = tmp_path / "predictions.csv", tmp_path / "catalogue.csv"
    path.write_text(
        "name,predicted_type,confidence,decision,top_k\n"
        'a,Rice,0.4,review,"[[""Rice"", 0.4], [""Tea"", 0.3]]"\n'
        "b,Rice,0.4,review,\nc,Rice,0.4,review,\nd,Rice,0.4,review,\n"
    )
    catalogue.write_text("product,type\nx,Hair Oil\n")
    shelfwise("review", "load", path, "--store", store, "--examples", catalogue)
    who = ("--store", store, "--reviewer", "asha", "--version", "1")
    capsys.readouterr()
    assert cli.run(["review", "decide", "2", *who, "--type", "hair oill"]) == 2
    said = capsys.readouterr().err
    assert "'hair oill' is not one of the 3 types that this review knows. Did you mean 'Hair Oil'?" in said
    assert "add --new-type" in said
    shelfwise("review", "decide", 1, *who, "--type", "Tea")
    shelfwise("review", "decide", 2, *who, "--type", "Hair  Oil")
    shelfwise("review", "decide", 3, *who, "--type", "Hair Wax", "--new-type")
    shelfwise("review", "decide", 4, *who, "--type", "Hair Wax")
    assert cli.run(["review", "decide", "1", *who, "--accept", "--new-type"]) == 2
    assert "--new-type goes with --type" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["load", "nowhere.csv"], "nowhere.csv"),
        (["load", "plain.csv"], "neither a file of predictions"),
        (["load", "undecided.csv"], "no column 'decision'"),
        (["load", "nested.parquet"], "neither a file of predictions"),
        (["load", "broken.jsonl"], "broken.jsonl:2: not JSON"),
        (["next", "--reviewer", "asha"], "no such store"),
        (["status"], "no such store"),
        (["export", "--out", "out.csv"], "no such store"),
    ],
)
def test_a_wrong_call_says_what_is_wrong_with_status_2(tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plain.csv").write_text("name\nRice\n")
    (tmp_path / "undecided.csv").write_text("name,predicted_type,confidence\na,Rice,0.5\n")
    parquet.write_table(pa.table({"name": ["a"], "top_k": [["x"]]}), tmp_path / "nested.parquet")
    (tmp_path / "broken.jsonl").write_text(
        '{"name": "a", "predicted_type": "Rice", "confidence": 0.5, "decision": "review"}\n{"name"\n'
    )
    assert cli.run(["review", *words, "--store", "review.db"]) == 2
    assert message in capsys.readouterr().err
    if "broken.jsonl" not in words:
        assert not (tmp_path / "review.db").exists()


def test_rows_that_are_no_predictions_are_told_and_left_out(tmp_path, store, capsys):
    path = tmp_path / "predictions.csv"
    path.write_text(
        "name,predicted_type,confidence,decision,top_k\n"
        "a,Rice,1.5,review,\nb,Rice,nan,review,\nc,,0.5,review,\n,Rice,0.5,review,\nd,Rice,0.5,review,oops\ne,Rice,0.5,review,\n"
    )
    shelfwise("review", "load", path, "--store", store)
    said = capsys.readouterr().out
    assert "1 rows to review of 6, 1 new" in said
    for line, reason in ((2, "'1.5' is no number"), (3, "'nan' is no number"), (4, "'predicted_type' is empty")):
        assert f"predictions.csv:{line}: " in said
        assert reason in said
    assert "the product name is empty" in said
    assert "'oops' is no ranking" in said
