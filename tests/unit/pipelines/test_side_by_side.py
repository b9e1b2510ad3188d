from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from shelfwise import config as configs
from shelfwise.cli import run as shelfwise
from shelfwise.errors import InputError, RunFolderError
from shelfwise.pipelines.asking import Panel
from shelfwise.pipelines.evaluation import Evaluation
from shelfwise.pipelines.side_by_side import evaluate_all, lines
from shelfwise.pipelines.side_by_side_table import COLUMNS, Line, write
from support.evaluations import answering, lay_out, rows, write_catalogue


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_catalogue(tmp_path_factory.mktemp("data") / "products.csv")


@pytest.fixture(scope="module")
def three_splits(catalogue: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The same recipe, brand and name, on the three splits."""
    folder = tmp_path_factory.mktemp("runs")
    for strategy in ("random", "grouped", "brand"):
        options = ["--model", "baseline", "--strategy", strategy, "--text-columns", "brand,product"]
        assert shelfwise(["train", str(catalogue), *options, "--out", str(folder / strategy)]) == 0
    return [folder / strategy for strategy in ("random", "grouped", "brand")]


@pytest.fixture(scope="module")
def pair(catalogue: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Path], tuple[Evaluation, ...]]:
    """Two runs of a stand-in model with a baseline each, and their evaluations."""
    folder = tmp_path_factory.mktemp("pair")
    runs = [lay_out(folder / name, catalogue, model="tiny-llama", seed=seed) for name, seed in (("a", 42), ("b", 7))]
    with answering():
        return runs, evaluate_all(runs, date="2025-11-24")


def test_three_splits_stand_in_one_table(three_splits: list[Path], tmp_path: Path) -> None:
    found = evaluate_all(three_splits, table=tmp_path / "table.json")
    assert [each.folder for each in found] == [run / "evaluation" for run in three_splits]
    table = lines(found)
    assert [(line.run, line.split, line.input) for line in table] == [
        (name, name, "brand+name") for name in ("random", "grouped", "brand")
    ]
    for line, each in zip(table, found, strict=True):
        subject = each.subject
        assert (line.accuracy, line.accuracy_low) == (subject.scores.accuracy, subject.interval.low)
        assert subject.intervals is not None
        assert line.macro_f1_high == subject.intervals.macro_f1.high
        assert line.train_rows == json.loads((each.folder.parent / "manifest.json").read_text())["train_rows"]
        assert line.accuracy_without_brand is not None
    stored = json.loads((tmp_path / "table.json").read_text())
    assert [Line(**row) for row in stored["rows"]] == table


def test_a_runs_baseline_stands_before_its_model_and_the_majority_is_left_out(
    pair: tuple[list[Path], tuple[Evaluation, ...]],
) -> None:
    table = lines(pair[1])
    assert [(line.run, line.kind) for line in table] == [
        ("a", "baseline"),
        ("a", "model"),
        ("b", "baseline"),
        ("b", "model"),
    ]
    assert table[1].verdict == pair[1][0].subject.decisions.verdict  # type: ignore[union-attr]


def test_each_run_is_evaluated_into_its_own_folder_as_it_would_be_alone(
    pair: tuple[list[Path], tuple[Evaluation, ...]],
) -> None:
    runs, found = pair
    for run, each in zip(runs, found, strict=True):
        assert Evaluation.load(run / "evaluation") == each
        assert (run / "evaluation" / "report.html").is_file()


def test_runs_of_one_name_are_told_apart_by_their_folders(catalogue: Path, tmp_path: Path) -> None:
    runs = [lay_out(tmp_path / parent / "run", catalogue) for parent in ("x", "y")]
    assert [line.run for line in lines(evaluate_all(runs))] == [str(run) for run in runs]


def test_all_runs_can_be_asked_for_another_catalogue(catalogue: Path, tmp_path: Path) -> None:
    other = write_catalogue(tmp_path / "other.csv", rows()[::20])
    runs = [lay_out(tmp_path / name, catalogue) for name in ("x", "y")]
    table = lines(evaluate_all(runs, other))
    assert [(line.rows, line.part, line.accuracy_seen_names) for line in table] == [(11, "all labelled rows", None)] * 2
    assert (runs[0] / "evaluation-other" / "report.json").is_file()


def test_the_csv_table_has_every_number_and_no_formula(
    pair: tuple[list[Path], tuple[Evaluation, ...]], tmp_path: Path
) -> None:
    table = lines(pair[1])
    nasty = Line(**{**{key: getattr(table[0], key) for key in Line.__dataclass_fields__}, "run": "=2+2"})
    write([nasty, table[1]], tmp_path / "t.csv")
    with (tmp_path / "t.csv").open(newline="") as stream:
        read = list(csv.DictReader(stream))
    assert read[0]["run"] == "'=2+2"
    assert read[1]["accuracy"] == str(round(table[1].accuracy, 4))
    assert read[1]["accuracy_without_brand"] == ""
    assert set(read[0]) == set(Line.__dataclass_fields__)


def test_the_page_of_formats_lists_the_tables_keys() -> None:
    page = (Path(__file__).parents[3] / "docs" / "data-format.md").read_text(encoding="utf-8")
    assert f"`{', '.join(Line.__dataclass_fields__)}`" in " ".join(page.split())


@pytest.mark.parametrize("suffix", [".md", ".html"])
def test_a_table_for_people_shows_figures_with_their_intervals_and_runs_no_name_as_markup(
    suffix: str, pair: tuple[list[Path], tuple[Evaluation, ...]], tmp_path: Path
) -> None:
    table = lines(pair[1])
    values = {key: getattr(table[1], key) for key in Line.__dataclass_fields__}
    nasty = Line(**{**values, "run": "<script>x</script>|*a*"})
    write([table[0], nasty], tmp_path / f"t{suffix}")
    text = (tmp_path / f"t{suffix}").read_text()
    assert "<script>x" not in text
    for column in COLUMNS:
        assert column.title in text
        if column.numeric:
            assert column.value(nasty) in text
            assert column.below(nasty) in text
    assert f"{100 * nasty.accuracy_low:.1f} to {100 * nasty.accuracy_high:.1f}%" in text
    if suffix == ".md":
        widths = {line.replace("\\|", "").count("|") for line in text.splitlines()}
        assert widths == {len(COLUMNS) + 1}


def test_an_evaluation_that_is_up_to_date_is_not_made_again_when_that_is_asked_for(
    catalogue: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [lay_out(tmp_path / name, catalogue) for name in ("x", "y")]
    asked: list[str] = []
    real = Panel.answer

    def answer(*arguments: object, **named: object) -> object:
        asked.append("asked")
        return real(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(Panel, "answer", answer)
    first = evaluate_all(runs[:1], date="2025-11-24")
    both = evaluate_all(runs, reuse=True)
    assert both[0] == first[0]
    assert len(asked) == 2  # x once, y once
    evaluate_all(runs, reuse=True, strict=True)  # other options: the leakage gate has to judge
    assert len(asked) == 4
    (runs[0] / "evaluation" / "report.json").write_text("{}")
    evaluate_all(runs, reuse=True, strict=True)  # a damaged report is replaced
    assert len(asked) == 5
    evaluate_all(runs[:1], strict=True)
    assert len(asked) == 6


def test_an_evaluation_by_another_version_is_made_again(
    catalogue: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = lay_out(tmp_path / "run", catalogue)
    evaluate_all([run], date="2024-01-01")
    report = run / "evaluation" / "report.json"
    stored = json.loads(report.read_text())
    stored["facts"]["versions"]["shelfwise"] = "0.0.9"
    report.write_text(json.dumps(stored))
    assert evaluate_all([run], reuse=True)[0].facts.date is None


@pytest.mark.parametrize("name", ["table.pdf", "table"])
def test_a_table_that_can_not_be_written_is_refused_before_anything_is_evaluated(
    name: str, catalogue: Path, tmp_path: Path
) -> None:
    run = lay_out(tmp_path / "run", catalogue)
    with pytest.raises(InputError, match=r"written as \.json, \.csv, \.md, \.html"):
        evaluate_all([run], table=tmp_path / name)
    (tmp_path / "folder.md").mkdir()
    with pytest.raises(InputError, match="is a folder"):
        evaluate_all([run], table=tmp_path / "folder.md")
    assert not (run / "evaluation").exists()


def test_a_run_that_is_none_or_is_named_twice_is_refused_before_any_is_evaluated(
    catalogue: Path, tmp_path: Path
) -> None:
    run = lay_out(tmp_path / "run", catalogue)
    with pytest.raises(RunFolderError, match="nowhere"):
        evaluate_all([run, tmp_path / "nowhere"])
    with pytest.raises(InputError, match="named twice"):
        evaluate_all([run, tmp_path / "x" / ".." / "run"])
    with pytest.raises(InputError, match="one folder for 2 runs"):
        evaluate_all([run, tmp_path / "other"], out=tmp_path / "out")
    assert not (run / "evaluation").exists()


def test_the_command_prints_one_table_of_several_runs_and_where_their_reports_are(
    three_splits: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    table = tmp_path / "table.html"
    assert shelfwise(["evaluate", *map(str, three_splits), "--reuse", "--table", str(table)]) == 0
    told = capsys.readouterr().out
    assert [word for word in told.split() if word in ("random", "grouped", "brand")][:2] == ["random", "random"]
    assert told.count("Report: ") == 3
    assert f"Table: {table}" in told
    assert table.read_text().startswith("<!doctype html>")


def test_the_command_prints_several_runs_as_one_document(
    three_splits: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert shelfwise(["evaluate", *map(str, three_splits), "--reuse", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [each["facts"]["split"] for each in told["evaluations"]] == ["random", "grouped", "brand"]
    assert [line["run"] for line in told["table"]] == ["random", "grouped", "brand"]


def test_the_command_refuses_one_folder_for_several_runs(
    three_splits: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert shelfwise(["evaluate", *map(str, three_splits), "--out", str(tmp_path / "out")]) == 2
    assert "--out" in capsys.readouterr().err


def test_a_table_never_replaces_another_file_unless_forced(
    three_splits: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "table.csv"
    table.write_text("another", encoding="utf-8")
    call = ["evaluate", str(three_splits[0]), "--reuse", "--table", str(table)]
    assert shelfwise(call) == 2
    printed = capsys.readouterr()
    assert f"{table}: there already is such a file. Choose another name, or overwrite with --force." in printed.err
    assert printed.out == ""
    assert table.read_text(encoding="utf-8") == "another"
    assert shelfwise([*call, "--force"]) == 0
    assert table.read_text(encoding="utf-8").startswith("run,")


def test_a_table_never_replaces_a_catalogue(three_splits: list[Path], tmp_path: Path) -> None:
    catalogue = configs.load(three_splits[0] / "config.yaml").catalogue
    assert catalogue is not None
    before = catalogue.read_bytes()
    for given in (None, catalogue):
        with pytest.raises(InputError, match="would overwrite the catalogue"):
            evaluate_all(three_splits[:1], given, table=catalogue, reuse=True, force=True)
    assert catalogue.read_bytes() == before
