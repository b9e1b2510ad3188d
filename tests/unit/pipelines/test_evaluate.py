from __future__ import annotations

import csv
import errno
import html
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from pyarrow import parquet
from sklearn.metrics import confusion_matrix, f1_score

from shelfwise.cli import run as shelfwise
from shelfwise.errors import CatalogueError, CorruptArtifactError, InputError, RunFolderError, StorageError
from shelfwise.metrics import mcnemar
from shelfwise.pipelines import report
from shelfwise.pipelines.evaluate import evaluate
from shelfwise.pipelines.evaluation import Evaluation
from shelfwise.storage import write_manifest
from support.evaluations import answering, lay_out, rows, weighed, write_catalogue

FILES = ["confusion.csv", "confusion.png", "per_type.csv", "predictions.parquet", "report.html", "report.json"]


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_catalogue(tmp_path_factory.mktemp("data") / "products.csv")


@pytest.fixture(scope="module")
def model_run(catalogue: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Evaluation]:
    run = lay_out(tmp_path_factory.mktemp("runs") / "tiny", catalogue, model="tiny-llama")
    with answering():
        return run, evaluate(run, date="2025-11-24")


@pytest.fixture
def baseline_run(catalogue: Path, tmp_path: Path) -> Path:
    return lay_out(tmp_path / "run", catalogue)


def table(path: Path) -> dict[str, list[object]]:
    return parquet.read_table(path).to_pydict()


def test_an_evaluation_folder_holds_every_file(model_run: tuple[Path, Evaluation]) -> None:
    run, found = model_run
    assert found.folder == run / "evaluation"
    assert sorted(path.name for path in found.folder.iterdir()) == FILES
    assert (found.folder / "confusion.png").read_bytes().startswith(b"\x89PNG")


def test_the_numbers_are_those_of_the_predictions(model_run: tuple[Path, Evaluation]) -> None:
    _, found = model_run
    answers = table(found.folder / "predictions.parquet")
    truth = answers["true_type"]
    assert found.facts.rows == len(truth) == 44
    assert [standing.kind for standing in found.standings] == ["majority", "baseline", "model"]
    for kind, prefix in (("model", ""), ("baseline", "baseline_")):
        standing = found.standing(kind)
        assert standing is not None
        predicted = answers[f"{prefix}predicted_type"]
        right = np.array([a == b for a, b in zip(truth, predicted, strict=True)])
        assert answers[f"{prefix}correct"] == right.tolist()
        assert standing.scores.accuracy == pytest.approx(right.mean())
        expected = f1_score(truth, predicted, average="macro", zero_division=0)
        assert standing.scores.macro_f1 == pytest.approx(expected)
        taken = np.array(answers[f"{prefix}decision"]) == "accept"
        assert standing.decisions is not None
        assert standing.decisions.accepted == taken.sum() > 0
        assert standing.decisions.precision == pytest.approx(right[taken].mean())
        assert (standing.decisions.verdict == "kept") == (standing.decisions.precision >= 0.9)
        levels = answers[f"{prefix}level"]
        assert [level == "type" for level in levels] == taken.tolist()
        assert [(step.level, step.accepted) for step in standing.decisions.above] == [
            (level, levels.count(level)) for level in ("sub_category", "category")
        ]
        ranked = [[entry["type"] for entry in top] for top in answers[f"{prefix}top_k"]]
        assert [top[0] for top in ranked] == predicted
        in_top3 = np.mean([t in top[:3] for t, top in zip(truth, ranked, strict=True)])
        assert standing.scores.top3_accuracy == pytest.approx(in_top3)
    assert 0.3 < found.subject.scores.accuracy < 1


def test_the_model_is_tested_against_the_baseline_on_the_same_rows(model_run: tuple[Path, Evaluation]) -> None:
    _, found = model_run
    answers = table(found.folder / "predictions.parquet")
    expected = mcnemar(np.array(answers["correct"]), np.array(answers["baseline_correct"]))
    assert found.against_baseline == expected
    assert expected.losses > 0


def test_the_majority_is_the_best_fixed_answer(model_run: tuple[Path, Evaluation]) -> None:
    _, found = model_run
    truth = table(found.folder / "predictions.parquet")["true_type"]
    most = max(truth.count(label) for label in set(truth))
    assert found.standings[0].scores.accuracy == pytest.approx(most / len(truth))
    assert found.standings[0].decisions is None


def test_every_row_of_the_test_part_is_there_with_its_source(model_run: tuple[Path, Evaluation]) -> None:
    run, found = model_run
    answers = table(found.folder / "predictions.parquet")
    assert answers["id"] == json.loads((run / "split.json").read_text())["parts"]["test"]["ids"]
    products = rows()
    for row, source, text, label in zip(*(answers[k] for k in ("id", "source", "text", "true_type")), strict=True):
        assert (text, label) == (products[row][0], products[row][4])
        assert source.endswith(f"products.csv:{row + 2}")


def test_the_confusion_matrix_is_whole_and_named(model_run: tuple[Path, Evaluation]) -> None:
    _, found = model_run
    answers = table(found.folder / "predictions.parquet")
    with (found.folder / "confusion.csv").open(newline="") as stream:
        head, *lines = csv.reader(stream)
    assert head[1:] == [line[0] for line in lines] == ["Green Tea", "Rice", "Rice, Ready", "Soap & Bars"]
    expected = confusion_matrix(answers["true_type"], answers["predicted_type"], labels=head[1:])
    assert [list(map(int, line[1:])) for line in lines] == expected.tolist()


def test_the_per_type_table_has_the_baseline_beside_the_model(model_run: tuple[Path, Evaluation]) -> None:
    _, found = model_run
    with (found.folder / "per_type.csv").open(newline="") as stream:
        lines = list(csv.DictReader(stream))
    assert sum(int(line["support"]) for line in lines) == found.facts.rows
    assert {line["type"]: line["category"] for line in lines}["Rice, Ready"] == "Food"
    mean = np.mean([float(line["baseline_f1"]) for line in lines])
    baseline = found.standing("baseline")
    assert baseline is not None
    assert mean == pytest.approx(baseline.scores.macro_f1, abs=1e-3)


def test_a_report_comes_back_as_it_was(model_run: tuple[Path, Evaluation]) -> None:
    _, found = model_run
    assert Evaluation.load(found.folder) == found
    stored = json.loads((found.folder / "report.json").read_text())
    assert stored["facts"]["date"] == "2025-11-24"
    assert {"shelfwise", "python", "numpy", "scikit-learn"} <= stored["facts"]["versions"].keys()
    assert stored["facts"]["split"] == "random"


def test_a_report_of_an_earlier_version_is_read_without_what_it_lacks(
    model_run: tuple[Path, Evaluation], tmp_path: Path
) -> None:
    stored = json.loads((model_run[1].folder / "report.json").read_text())
    del stored["blend"], stored["against_model"]
    del stored["leakage"], stored["facts"]["hardware"], stored["facts"]["command"], stored["facts"]["train_rows"]
    for standing in stored["standings"]:
        del standing["intervals"], standing["bands"]
        if standing["decisions"]:
            del standing["decisions"]["types"]
    (tmp_path / "report.json").write_text(json.dumps(stored))
    found = Evaluation.load(tmp_path)
    assert found.subject.scores == model_run[1].subject.scores
    assert found.leakage is found.subject.intervals is None
    assert found.subject.bands == ()
    assert found.subject.decisions is not None
    assert found.subject.decisions.types == ()


def test_every_classifier_is_judged_with_intervals_bands_and_type_by_type(model_run: tuple[Path, Evaluation]) -> None:
    _, found = model_run
    majority, *classifiers = found.standings
    assert majority.intervals is None
    assert majority.bands == ()
    for standing in classifiers:
        assert standing.intervals is not None
        assert standing.intervals.macro_f1.low <= standing.scores.macro_f1 <= standing.intervals.macro_f1.high
        assert standing.intervals.hierarchical_f1 is not None
        assert {band.group for band in standing.bands} == {"names", "brand", "frequency", "length"}
        assert standing.decisions is not None
        assert sum(each.accepted for each in standing.decisions.types) == standing.decisions.accepted > 0


def test_leakage_between_training_and_test_stands_in_the_report(tmp_path: Path) -> None:
    doubled = write_catalogue(tmp_path / "doubled.csv", [row for row in rows() for _ in range(2)])
    found = evaluate(lay_out(tmp_path / "run", doubled))
    assert found.leakage is not None
    assert ("same_product", True) in {(note.kind, note.serious) for note in found.leakage}
    assert all(0 < len(note.examples) <= 3 for note in found.leakage)
    assert Evaluation.load(found.folder).leakage == found.leakage


def test_a_clean_split_has_no_leakage_and_on_other_rows_it_is_unknown(tmp_path: Path) -> None:
    words = ["Aardvark", "Buffalo", "Cheetah", "Dolphin", "Elephant", "Flamingo", "Gorilla", "Hedgehog", "Iguana"]
    apart = [(f"{word} {word[::-1]}", "", "", "", "Rice" if i % 2 else "Soap") for i, word in enumerate(words)]
    run = lay_out(tmp_path / "run", write_catalogue(tmp_path / "apart.csv", apart))
    assert evaluate(run).leakage == ()
    assert evaluate(run, write_catalogue(tmp_path / "other.csv", apart[:4])).leakage is None


@pytest.mark.parametrize("change", [{"format": 9}, {"standings": []}, {"facts": {}}, {"against_baseline": 3}])
def test_a_report_that_was_tampered_with_is_not_read(
    model_run: tuple[Path, Evaluation], tmp_path: Path, change: dict[str, object]
) -> None:
    stored = json.loads((model_run[1].folder / "report.json").read_text())
    (tmp_path / "report.json").write_text(json.dumps(stored | change))
    with pytest.raises(CorruptArtifactError, match="not a readable report"):
        Evaluation.load(tmp_path)


def test_a_run_of_the_baseline_alone_stands_beside_the_majority(baseline_run: Path) -> None:
    found = evaluate(baseline_run)
    assert [standing.kind for standing in found.standings] == ["majority", "baseline"]
    assert found.subject.scores.accuracy > 0.9 > found.standings[0].scores.accuracy
    assert found.against_baseline is None
    assert "baseline_correct" not in table(found.folder / "predictions.parquet")


@pytest.fixture(scope="module")
def blended(catalogue: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Evaluation]:
    run = lay_out(tmp_path_factory.mktemp("runs") / "both", catalogue, model="tiny-llama", blend=weighed())
    with answering():
        return run, evaluate(run, perturb=True)


def test_a_blend_stands_beside_model_and_baseline_and_is_what_the_run_is_about(
    blended: tuple[Path, Evaluation], model_run: tuple[Path, Evaluation]
) -> None:
    run, found = blended
    assert [standing.kind for standing in found.standings] == ["majority", "baseline", "model", "blend"]
    assert found.subject.name == "tiny-llama lora head + baseline"
    assert found.blend == weighed()
    for kind in ("baseline", "model"):  # their numbers are those of a run without a blend
        there, here = model_run[1].standing(kind), found.standing(kind)
        assert there is not None
        assert here is not None
        assert replace(here, seconds=None) == replace(there, seconds=None)
    answers = table(found.folder / "predictions.parquet")
    right = {prefix: np.array(answers[f"{prefix}correct"]) for prefix in ("", "model_", "baseline_")}
    assert found.against_baseline == mcnemar(right[""], right["baseline_"])
    assert found.against_model == mcnemar(right[""], right["model_"])
    assert found.subject.scores.accuracy == pytest.approx(right[""].mean()) != pytest.approx(right["model_"].mean())
    assert [each.kind for each in found.robustness] == ["baseline", "model", "blend"]
    assert Evaluation.load(run / "evaluation") == found


def test_the_report_the_card_and_the_output_say_how_the_blend_was_made(
    blended: tuple[Path, Evaluation], capsys: pytest.CaptureFixture[str]
) -> None:
    run, found = blended
    with answering():
        assert shelfwise(["evaluate", str(run), "--reuse", "--perturb"]) == 0
    card = (run / "README.md").read_text(encoding="utf-8")
    page = html.unescape((found.folder / "report.html").read_text(encoding="utf-8"))
    assert found.against_model is not None
    more = found.against_model.gains - found.against_model.losses
    assert more > 0
    for text in (card, page, capsys.readouterr().out):
        text = " ".join(text.split())
        assert "The blend weighs the language model 0.50 and the baseline 0.50. On the 20 validation products" in text
        assert "gets 90.0% right, the language model alone 80.0% and the baseline alone 85.0%." in text
        assert f"The run answers with the blend. Of these 44 products the blend gets {more} more right" in text
    assert "<h1>Gets" in page
    assert "the simple baseline" in page.partition("</h1>")[0]  # and not the model, which stands before the last


@pytest.mark.parametrize(("classifier", "gained"), [("model", 0.9), ("auto", 0.7)])
def test_a_run_that_answers_with_the_model_alone_has_it_last_and_the_blend_beside_it(
    classifier: Literal["auto", "model"], gained: float, catalogue: Path, tmp_path: Path
) -> None:
    run = lay_out(tmp_path / "run", catalogue, model="tiny-llama", blend=weighed(blend=gained), classifier=classifier)
    with answering():
        found = evaluate(run)
    assert [standing.kind for standing in found.standings] == ["majority", "baseline", "blend", "model"]
    assert "blend_predicted_type" in table(found.folder / "predictions.parquet")
    assert "The run answers with the model alone." in report.about_blend(found)
    assert found.against_baseline is not None
    assert found.against_model is not None


def test_a_blend_that_is_none_makes_a_report_unreadable(blended: tuple[Path, Evaluation], tmp_path: Path) -> None:
    stored = json.loads((blended[1].folder / "report.json").read_text())
    stored["blend"]["weight"] = 2
    (tmp_path / "report.json").write_text(json.dumps(stored))
    with pytest.raises(CorruptArtifactError, match=r"not a readable report .*between 0 and 1"):
        Evaluation.load(tmp_path)


def test_a_run_without_a_baseline_is_measured_too(catalogue: Path, tmp_path: Path) -> None:
    run = lay_out(tmp_path / "run", catalogue, model="tiny-llama", baseline=False)
    with answering():
        found = evaluate(run)
    assert [standing.kind for standing in found.standings] == ["majority", "model"]
    assert found.against_baseline is None


def test_types_that_the_run_was_never_taught_are_told_and_count_as_wrong(baseline_run: Path, tmp_path: Path) -> None:
    known = [("Zephyr Neem Soap", "Beauty", "Bath", "Zephyr", "Soap & Bars")]
    unknown = [(f"Zephyr Kettle {i}", "Kitchen", "Tools", "Zephyr", "=Kettles") for i in range(3)]
    other = write_catalogue(tmp_path / "other.csv", [*known, *unknown, ("Nothing known", "", "", "", "")])
    found = evaluate(baseline_run, other)
    assert found.folder == baseline_run / "evaluation-other"
    assert found.facts.part == "all labelled rows"
    assert (found.facts.rows, found.facts.unlabelled) == (4, 1)
    assert [(u.label, u.rows) for u in found.facts.unknown_types] == [("=Kettles", 3)]
    assert found.subject.scores.accuracy == 0.25
    assert found.standings[0].scores.accuracy == 0.25  # the run has no type for the other three
    assert found.facts.shared_names is None
    with (found.folder / "confusion.csv").open(newline="") as stream:
        assert next(csv.reader(stream))[-1] == "'=Kettles"  # no formula for a spreadsheet to run


def test_a_copy_of_the_runs_own_catalogue_gives_its_test_part_and_not_its_training_rows(
    baseline_run: Path, catalogue: Path, tmp_path: Path
) -> None:
    copy = shutil.copy(catalogue, tmp_path / "moved.csv")
    found = evaluate(baseline_run, copy)
    assert (found.facts.part, found.facts.rows) == ("test", 44)
    assert found.folder == baseline_run / "evaluation"


def test_rows_whose_name_training_had_are_counted_and_the_others_scored_apart(tmp_path: Path) -> None:
    doubled = write_catalogue(tmp_path / "doubled.csv", [row for row in rows()[:60] + rows()[-60:] for _ in range(2)])
    found = evaluate(lay_out(tmp_path / "run", doubled))
    assert found.facts.shared_names is not None
    assert 0 < found.facts.shared_names <= found.facts.rows
    assert found.subject.new_name_accuracy is None or 0 <= found.subject.new_name_accuracy <= 1


def test_identical_texts_are_answered_once_and_alike(tmp_path: Path) -> None:
    doubled = write_catalogue(tmp_path / "doubled.csv", [row for row in rows() for _ in range(2)])
    run = lay_out(tmp_path / "run", doubled)
    told: list[tuple[int, int]] = []
    found = evaluate(run, progress=lambda name, done, total: told.append((done, total)))
    answers = table(found.folder / "predictions.parquet")
    assert told[-1] == (len(set(answers["text"])),) * 2
    by_text: dict[object, set[object]] = {}
    for text, predicted in zip(answers["text"], answers["predicted_type"], strict=True):
        by_text.setdefault(text, set()).add(predicted)
    assert len(by_text) < len(answers["text"])
    assert all(len(predicted) == 1 for predicted in by_text.values())


def test_an_evaluation_can_be_repeated(baseline_run: Path) -> None:
    first, second = evaluate(baseline_run), evaluate(baseline_run)
    assert first.subject.scores == second.subject.scores
    assert [path.name for path in baseline_run.iterdir() if path.name.startswith(".")] == []


def test_a_folder_that_is_no_evaluation_is_left_alone(baseline_run: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("years of work")
    for out in (precious, baseline_run, precious / "thesis.txt"):
        with pytest.raises(RunFolderError, match="is no evaluation folder"):
            evaluate(baseline_run, out=out)
    assert (precious / "thesis.txt").read_text() == "years of work"


def test_a_full_disk_leaves_the_earlier_evaluation(baseline_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluate(baseline_run)
    before = (baseline_run / "evaluation" / "report.html").read_bytes()

    def full(*_: object) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(report, "render", full)
    with pytest.raises(StorageError, match="disk is full"):
        evaluate(baseline_run)
    assert (baseline_run / "evaluation" / "report.html").read_bytes() == before
    assert not list(baseline_run.glob(".evaluation*"))


def test_a_catalogue_that_is_gone_or_changed_is_no_traceback(tmp_path: Path) -> None:
    path = write_catalogue(tmp_path / "products.csv")
    run = lay_out(tmp_path / "run", path)
    write_catalogue(path, rows()[:-1])
    with pytest.raises(CatalogueError, match="another catalogue"):
        evaluate(run)
    path.unlink()
    with pytest.raises(InputError, match="Name a copy of it with --catalogue"):
        evaluate(run)


@pytest.mark.parametrize(
    ("command", "text", "message"),
    [
        ("export", "thing\na\n", "no column is recognised as product names (product, "),
        ("evaluate", "thing\na\n", "no column is recognised as product names (product, "),
        ("evaluate", "product\na\n", "no column is recognised as inventory types (type, "),
        ("evaluate", "product,type\na,\n", "column 'type' is empty in every row. Give that name to the column that"),
    ],
)
def test_a_file_without_its_columns_is_told_with_options_that_the_command_has(
    command: str,
    text: str,
    message: str,
    catalogue: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = lay_out(tmp_path / "run", catalogue, model="tiny-llama")
    (tmp_path / "new.csv").write_text(text, encoding="utf-8")
    given = "--catalogue" if command == "evaluate" else "--names"
    assert shelfwise([command, str(run), given, str(tmp_path / "new.csv"), "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert "--" not in said


def test_a_column_that_the_run_was_trained_on_and_the_file_lacks_is_told_with_the_nearest_one(
    catalogue: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = lay_out(tmp_path / "run", catalogue)
    config = run / "config.yaml"
    config.write_text(config.read_text(encoding="utf-8").replace("type: null", "type: shelf"), encoding="utf-8")
    write_manifest(run, {})
    (tmp_path / "new.csv").write_text("product,shelv\na,b\n", encoding="utf-8")
    assert shelfwise(["evaluate", str(run), "--catalogue", str(tmp_path / "new.csv")]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "there is no column 'shelf' for the type. Did you mean 'shelv'?" in said
    assert "Rename the one that is meant." in said
    assert "--" not in said


def test_a_damaged_run_is_told(baseline_run: Path) -> None:
    (baseline_run / "calibration.json").write_text("{}")
    with pytest.raises(CorruptArtifactError, match=r"calibration\.json"):
        evaluate(baseline_run)


def test_the_command_prints_the_table_and_where_the_report_is(
    baseline_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert shelfwise(["evaluate", str(baseline_run)]) == 0
    told = capsys.readouterr().out
    assert "44 held-out products of products.csv, 4 inventory types" in told
    assert "most frequent" in told
    found = Evaluation.load(baseline_run / "evaluation").subject
    assert found.intervals is not None
    assert f"{found.intervals.macro_f1.low:.3f} to {found.intervals.macro_f1.high:.3f}" in told
    assert [band.title in told for band in found.bands] == [True] * len(found.bands) != []
    assert "Leakage, to be known: 44 test products that differ from one of training or validation" in told
    assert told.rstrip().endswith("report.html")


def test_the_command_prints_json_for_machines(baseline_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert shelfwise(["evaluate", str(baseline_run), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == json.loads((baseline_run / "evaluation" / "report.json").read_text())


def test_a_folder_that_is_no_run_ends_the_command_with_status_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert shelfwise(["evaluate", str(tmp_path)]) == 2
    assert "not a run folder" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.bigbasket
def test_the_baseline_reaches_its_known_accuracy_on_a_tenth_of_the_real_catalogue(
    bigbasket: Path, tmp_path: Path
) -> None:
    lines = bigbasket.read_bytes().split(b"\r\n")
    (tmp_path / "tenth.csv").write_bytes(b"\r\n".join([lines[0], *lines[1:-1:10]]))
    found = evaluate(lay_out(tmp_path / "run", tmp_path / "tenth.csv"))
    assert found.facts.rows == 552
    assert found.subject.scores.accuracy > 0.5
    assert found.standings[0].scores.accuracy < 0.1
