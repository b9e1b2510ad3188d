import json
from pathlib import Path

import pytest

from shelfwise.cli import run
from shelfwise.data.split import Splits


@pytest.fixture
def catalogue(tmp_path: Path) -> Path:
    path = tmp_path / "c.csv"
    rows = [f"item {i},type {i % 4},brand {i % 13}" for i in range(200)]
    path.write_text("\n".join(["product,type,brand", *rows]) + "\n", encoding="utf-8")
    return path


def test_split_writes_the_parts_and_prints_their_sizes(catalogue: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = catalogue.parent / "out"
    assert run(["split", str(catalogue), "--out", str(out), "--strategy", "random"]) == 0
    splits = Splits.load(out / "split.json")
    assert list(map(len, splits.rows().values())) == [144, 16, 40]
    printed = " ".join(capsys.readouterr().out.split())
    assert "train 144 72.0% 144 4" in printed
    assert "test 40 20.0% 40 4" in printed
    assert f"--split {out / 'split.json'}" in printed


def test_all_that_test_leaves_can_be_trained_on(catalogue: Path) -> None:
    out = catalogue.parent / "out"
    assert run(["split", str(catalogue), "--out", str(out), "--strategy", "random", "--validation-size", "0"]) == 0
    assert list(map(len, Splits.load(out / "split.json").rows().values())) == [160, 0, 40]


def test_the_same_split_is_kept_and_another_one_never_replaces_it_by_accident(
    catalogue: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = catalogue.parent / "out"
    call = ["split", str(catalogue), "--out", str(out)]
    assert run(call) == 0
    written = (out / "split.json").read_bytes()
    assert run(call) == 0
    assert "reused" in capsys.readouterr().out
    for change in (["--seed", "7"], ["--strategy", "brand"], ["--test-size", "0.3"], ["--validation-size", "0.3"]):
        assert run([*call, *change]) == 2
        assert "already is a split with other settings (strategy grouped, seed 42" in capsys.readouterr().err
    assert (out / "split.json").read_bytes() == written
    assert run([*call, "--seed", "7", "--force"]) == 0
    assert Splits.load(out / "split.json").seed == 7


def test_a_split_of_another_catalogue_is_not_replaced(catalogue: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = catalogue.parent / "out"
    assert run(["split", str(catalogue), "--out", str(out)]) == 0
    with catalogue.open("a", encoding="utf-8") as stream:
        stream.write("new,type 0,brand 0\n")
    assert run(["split", str(catalogue), "--out", str(out)]) == 2
    assert "of another catalogue" in capsys.readouterr().err


def test_a_damaged_split_is_told_and_replaced_with_force(catalogue: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = catalogue.parent / "out"
    out.mkdir()
    (out / "split.json").write_text("{", encoding="utf-8")
    call = ["split", str(catalogue), "--out", str(out)]
    assert run(call) == 1
    assert "--force" in capsys.readouterr().err
    assert run([*call, "--force"]) == 0


def test_split_as_json_is_one_document(catalogue: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["split", str(catalogue), "--out", str(catalogue.parent / "out"), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["reused"] is False
    assert sum(document["rows"].values()) == 200


def test_check_finds_what_a_saved_split_shares(catalogue: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with catalogue.open("a", encoding="utf-8") as stream:
        stream.writelines(f"item {i},type {i % 4},brand {i % 13}\n" for i in range(200))
    out = catalogue.parent / "out"
    assert run(["split", str(catalogue), "--out", str(out), "--strategy", "random"]) == 0
    assert run(["check", str(catalogue), "--split", str(out / "split.json")]) == 0
    assert "Products of test whose name train or validation holds too" in capsys.readouterr().out


WRONG = {
    "no types": ("product,price\na,1\nb,2\n", [], "no column is recognised as inventory types"),
    "empty types": ("product,type\na,\nb,\n", [], "no product has an inventory type"),
    "one type": ("product,type\na,x\nb,x\n", [], "all 2 products have the same inventory type, 'x'"),
    "no brands": ("product,type\na,x\nb,y\n", ["--strategy", "brand"], "no product has one"),
    "too few rows": ("product,type\na,x\nb,y\n", ["--strategy", "random"], "2 rows are too few"),
    "a size of one": ("product,type\na,x\nb,y\n", ["--test-size", "1"], "--test-size is a share between 0 and 1"),
    "less than none": (
        "product,type\na,x\nb,y\n",
        ["--validation-size", "-0.1"],
        "--validation-size is a share from 0",
    ),
    "not a number": ("product,type\na,x\nb,y\n", ["--test-size", "nan"], "--test-size is a share between 0 and 1"),
    "a size below zero": ("product,type\na,x\nb,y\n", ["--validation-size", "-1"], "--validation-size is a share"),
    "an unknown strategy": ("product,type\na,x\nb,y\n", ["--strategy", "group"], "--strategy"),
    "a negative seed": ("product,type\na,x\nb,y\n", ["--seed", "-1"], "--seed"),
}


@pytest.mark.parametrize(("content", "options", "message"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_call_is_one_message_and_status_2(
    tmp_path: Path, content: str, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "c.csv"
    path.write_text(content, encoding="utf-8")
    assert run(["split", str(path), "--out", str(tmp_path / "out"), *options]) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert "Traceback" not in printed.err
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_in_the_place_of_the_folder_is_an_input_error(
    catalogue: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["split", str(catalogue), "--out", str(catalogue)]) == 2
    assert "Name a folder for --out" in capsys.readouterr().err


def test_the_folder_of_a_split_is_told_from_its_file(catalogue: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = catalogue.parent / "out"
    assert run(["split", str(catalogue), "--out", str(out)]) == 0
    assert run(["train", str(catalogue), "--split", str(out), "--out", str(out / "run"), "--model", "baseline"]) == 2
    assert f"is a folder. Name the file in it: {out / 'split.json'}" in capsys.readouterr().err


def test_a_name_that_the_system_refuses_is_told_without_a_traceback(
    catalogue: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "x" * 300
    for call in (["split", str(catalogue), "--out", name], ["check", str(catalogue), "--rejects", name]):
        assert run(call) in (1, 2)
        assert f"error: {name}" in capsys.readouterr().err
