import csv
import json
from pathlib import Path

import pytest

from shelfwise.cli import run

ROWS = ["product,type,brand", "Green tea,Tea,Acme", ",Tea,Acme", "Black tea,Tea", "Rice,Rice,Acme", "rice!,Flour,Acme"]


@pytest.fixture
def catalogue(tmp_path: Path) -> Path:
    path = tmp_path / "c.csv"
    path.write_text("\n".join(ROWS) + "\n", encoding="utf-8")
    return path


def test_check_prints_numbers_findings_and_the_first_rejects(
    catalogue: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["check", str(catalogue)]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "c.csv: 5 rows, 3 usable" in printed
    assert "3 inventory types, 1 brand" in printed
    assert "problem 1 Rows without a product name" in printed
    assert "line 5 Rice -> Rice (1) | Flour (1)" in printed
    assert "2 of 5 rows can't be used:" in printed
    assert "c.csv:3: the product name is empty" in printed
    assert "c.csv:4: 2 cells where the header has 3" in printed


def test_check_prints_markup_in_names_as_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "c.csv"
    path.write_text("product,type\n[red]tea[/red]\x1b[31m,[bold]\n[red]tea[/red][31m,Rice\n", encoding="utf-8")
    assert run(["check", str(path)]) == 0
    printed = capsys.readouterr().out
    assert "[red]tea[/red][31m" in printed
    assert "\x1b[31m" not in printed


def test_check_as_json_is_one_document(catalogue: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", str(catalogue), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["rows"], document["products"], document["types"]) == (5, 3, 3)
    assert document["rejects"]["count"] == 2
    assert document["columns"] == {"product": "product", "type": "type", "brand": "brand"}
    assert {"empty_names", "unreadable_rows", "conflicting_types"} <= {f["kind"] for f in document["findings"]}


def test_the_rejects_file_holds_every_rejected_row_with_formulas_escaped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, target = tmp_path / "c.csv", tmp_path / "out" / "bad.csv"
    path.write_text('product,type\n,"=HYPERLINK(1)"\na,x,y\nb,x\n', encoding="utf-8")
    assert run(["check", str(path), "--rejects", str(target)]) == 0
    assert str(target) in capsys.readouterr().out
    with target.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.reader(stream))
    assert rows[0] == ["source", "reason", "product", "type"]
    assert rows[1] == ["c.csv:2", "the product name is empty", "", "'=HYPERLINK(1)"]
    assert rows[2] == ["c.csv:3", "3 cells where the header has 2; too many: 'y'", "a", "x"]
    assert len(rows) == 3


def test_a_clean_catalogue_leaves_a_rejects_file_with_a_header_alone(tmp_path: Path) -> None:
    path, target = tmp_path / "c.csv", tmp_path / "bad.csv"
    path.write_text("product,type\na,x\n", encoding="utf-8")
    target.write_text("of an earlier check", encoding="utf-8")
    assert run(["check", str(path), "--rejects", str(target), "--force"]) == 0
    assert target.read_text("utf-8").split() == ["source,reason"]


def test_the_rejects_file_never_replaces_another_unless_forced(
    catalogue: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = catalogue.with_name("bad.csv")
    target.write_text("another", encoding="utf-8")
    assert run(["check", str(catalogue), "--rejects", str(target)]) == 2
    printed = capsys.readouterr()
    assert f"{target}: there already is such a file. Choose another name, or overwrite with --force." in printed.err
    assert printed.out == ""
    assert target.read_text(encoding="utf-8") == "another"


def test_a_catalogue_without_types_can_be_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "c.csv"
    path.write_text("product\na\n", encoding="utf-8")
    assert run(["check", str(path)]) == 0
    assert "nothing can be trained on it" in capsys.readouterr().out


WRONG = {
    "missing file": (["check", "{folder}/d.csv"], "no such file. Did you mean 'c.csv'?"),
    "unknown column": (["check", "{file}", "--type", "typ"], "no column 'typ' (--type). Did you mean 'type'?"),
    "unknown role": (["check", "{file}", "--text-columns", "brnd,product"], "'brnd' is none of"),
    "no such split": (["check", "{file}", "--split", "{folder}/split.json"], "there is no such split"),
    "rejects over the catalogue": (["check", "{file}", "--rejects", "{file}"], "would overwrite the catalogue"),
    "rejects without a format": (["check", "{file}", "--rejects", "{folder}/bad"], "the name has no suffix"),
    "rejects over a folder": (["check", "{file}", "--rejects", "{folder}"], "the name has no suffix"),
}


@pytest.mark.parametrize(("call", "message"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_call_is_one_message_and_status_2(
    catalogue: Path, call: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = catalogue.read_bytes()
    words = [word.format(folder=catalogue.parent, file=catalogue) for word in call]
    assert run(words) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert "Traceback" not in printed.err
    assert printed.out == ""
    assert catalogue.read_bytes() == before
    assert list(catalogue.parent.iterdir()) == [catalogue]
