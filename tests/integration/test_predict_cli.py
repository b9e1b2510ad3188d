"""`shelfwise predict` from the command line, on a run folder that holds a baseline."""

import csv
import io
import json
import shutil
from pathlib import Path

import numpy as np
import openpyxl
import pytest

from shelfwise import artifact, cli
from shelfwise import config as configs
from shelfwise.baseline import Baseline
from shelfwise.calibration import Calibration
from shelfwise.labels import Labels, Taxonomy

LABELS = Labels(("Hair Oil", "Rice", "Tea, Green"), Taxonomy({"Rice": (("Staples", "Grains", 2),)}))
NAMES = {
    "Hair Oil": ["coconut hair oil", "amla hair oil", "almond hair oil", "herbal hair oil"],
    "Rice": ["basmati rice", "sona masoori rice", "brown rice", "long grain rice"],
    "Tea, Green": ["green tea bags", "jasmine green tea", "lemon green tea", "mint green tea"],
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the model `baseline`, as training leaves it."""
    folder = tmp_path_factory.mktemp("runs") / "baseline"
    folder.mkdir()
    texts = [name for label in LABELS for name in NAMES[label]]
    targets = np.array([LABELS.index(label) for label in LABELS for _ in NAMES[label]])
    baseline = Baseline.fit(texts, targets, len(LABELS))
    baseline.save(folder / artifact.BASELINE)
    calibration = Calibration(temperature=0.2, threshold=0.6)
    artifact.write_json(folder / artifact.CALIBRATION, Calibration.to_json_all({"baseline": calibration}))
    artifact.write_json(folder / artifact.LABELS, LABELS.to_json())
    columns = {"product": "artikel"}
    config = configs.parse({"model": "baseline", "columns": columns}, "test")
    artifact.write_text(folder / artifact.CONFIG, configs.dump(config))
    artifact.write_manifest(folder, {"model": "baseline"})
    return folder


def rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_bytes().decode(), newline="")))


CATALOGUE = "sku,product\r\n1,Basmati rice 1 kg\r\n2,\r\n3,=green tea\r\n4,Basmati rice 1 kg\r\n5,Coconut hair oil\r\n"


def test_a_file_is_predicted_with_a_summary_and_its_rejects(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = tmp_path / "new.csv", tmp_path / "out.csv"
    source.write_bytes(CATALOGUE.encode())
    assert cli.run(["predict", str(run), str(source), "--out", str(out), "--top-k", "2"]) == 0
    found = rows(out)
    assert [row["predicted_type"] for row in found] == ["Rice", "Tea, Green", "Rice", "Hair Oil"]
    assert [row["sku"] for row in found] == ["1", "3", "4", "5"]
    assert found[0]["path"] == "Staples > Grains > Rice"
    assert found[0]["confidence"] == found[2]["confidence"]
    assert {len(json.loads(row["top_k"])) for row in found} == {2}
    assert rows(tmp_path / "out.rejects.csv") == [
        {"source": "new.csv:3", "reason": "the product name is empty", "sku": "2", "product": ""}
    ]
    said = capsys.readouterr().out
    assert "5 rows by baseline" in said
    assert "4 predicted, 3 different texts scored" in said
    assert "1 rejected, all in" in said
    assert "new.csv:3: the product name is empty" in said


def test_json_prints_one_document_on_standard_output(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "new.jsonl"
    source.write_text('{"name": "Basmati rice"}\n{"name": "Amla hair oil"}\n', encoding="utf-8")
    out = tmp_path / "out.parquet"
    assert cli.run(["predict", str(run), str(source), "--out", str(out), "--json", "--baseline"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["rows"], document["predicted"], document["rejected"]) == (2, 2, 0)
    assert (document["model"], document["out"], document["rejects"]) == ("baseline", str(out), None)


def test_the_column_that_the_run_was_trained_with_is_read_unless_another_is_named(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "new.csv"
    source.write_text("product,artikel,note\nbasmati rice,amla hair oil,mint green tea\n", encoding="utf-8")
    answers = []
    for name, options in (("own", []), ("named", ["--product", "note"])):
        out = tmp_path / f"{name}.csv"
        assert cli.run(["predict", str(run), str(source), "--out", str(out), *options]) == 0
        answers.append(rows(out)[0]["predicted_type"])
    assert answers == ["Hair Oil", "Tea, Green"]


def test_an_excel_file_goes_in_and_out(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    book = openpyxl.Workbook()
    for row in (["name", "price"], ["basmati rice", 3.5], ["amla hair oil", 4]):
        book.worksheets[0].append(row)
    book.save(tmp_path / "new.xlsx")
    out = tmp_path / "out.xlsx"
    assert cli.run(["predict", str(run), str(tmp_path / "new.xlsx"), "--out", str(out)]) == 0
    header, *cells = openpyxl.load_workbook(out)["predictions"].iter_rows(values_only=True)
    added = ("predicted_type", "confidence", "decision", "level", "top_k", "path", "sure_path", "model")
    assert header == ("name", "price", *added)
    assert [row[:3] for row in cells] == [("basmati rice", "3.5", "Rice"), ("amla hair oil", "4", "Hair Oil")]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source": "nowhere.csv"}, "nowhere.csv: there is no such file"),
        ({"source": "empty.csv"}, "empty.csv"),
        ({"run": "nowhere"}, "nowhere: there is no such run folder"),
        ({"run": "unfinishd"}, "unfinishd: there is no such run folder. Did you mean 'unfinished'?"),
        ({"run": "no/where"}, "no/where: there is no such run folder. There is no folder"),
        ({"run": "unfinished"}, "unfinished: not a run folder"),
        ({"out": "out.doc"}, "out.doc: '.doc' is no format"),
        ({"out": "new.csv"}, "overwrite its own input"),
        ({"out": "old.csv"}, "overwrite with --force"),
        ({"options": ["--product", "produkt"]}, "there is no column 'produkt' (--product). Did you mean 'product'?"),
        ({"options": ["--top-k", "0"]}, "--top-k"),
        ({"options": ["--precision", "int4"]}, "--precision"),
    ],
)
def test_a_wrong_call_is_one_message_with_status_2_and_writes_nothing(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, object], message: str
) -> None:
    (tmp_path / "new.csv").write_text(CATALOGUE, encoding="utf-8")
    (tmp_path / "empty.csv").write_bytes(b"")
    (tmp_path / "old.csv").write_text("old", encoding="utf-8")
    (tmp_path / "unfinished").mkdir()
    before = {path.name: path.is_dir() or path.read_bytes() for path in tmp_path.iterdir()}
    folder = tmp_path / str(change["run"]) if "run" in change else run
    source, out = tmp_path / str(change.get("source", "new.csv")), tmp_path / str(change.get("out", "out.csv"))
    options = change.get("options", [])
    assert isinstance(options, list)
    assert cli.run(["predict", str(folder), str(source), "--out", str(out), *options]) == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert "Traceback" not in shown
    assert {path.name: path.is_dir() or path.read_bytes() for path in tmp_path.iterdir()} == before


def test_ctrl_c_is_one_message_with_status_1_and_writes_nothing(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Baseline, "log_probs", interrupt)
    (tmp_path / "new.csv").write_text(CATALOGUE, encoding="utf-8")
    assert cli.run(["predict", str(run), str(tmp_path / "new.csv"), "--out", str(tmp_path / "out.csv")]) == 1
    assert capsys.readouterr().err.splitlines() == ["error: interrupted. Nothing was written under a final name."]
    assert [path.name for path in tmp_path.iterdir()] == ["new.csv"]


def test_a_damaged_run_is_status_1(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damaged = tmp_path / "run"
    shutil.copytree(run, damaged)
    weights = next((damaged / artifact.BASELINE).glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    (tmp_path / "new.csv").write_text(CATALOGUE, encoding="utf-8")
    status = cli.run(["predict", str(damaged), str(tmp_path / "new.csv"), "--out", str(tmp_path / "out.csv")])
    assert status == 1
    assert "changed since it was written" in capsys.readouterr().err
    assert not (tmp_path / "out.csv").exists()
