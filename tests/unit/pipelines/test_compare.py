from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from shelfwise.cli import run as shelfwise
from shelfwise.errors import CorruptArtifactError, InputError, RunFolderError
from shelfwise.metrics import mcnemar
from shelfwise.pipelines.compare import Prices, compare
from shelfwise.pipelines.evaluate import evaluate
from shelfwise.pipelines.robustness import drop_interval
from support.evaluations import answering, lay_out, rows, weighed, write_catalogue


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with runs that were evaluated on the same rows: two models and a baseline."""
    folder = tmp_path_factory.mktemp("compare")
    catalogue = write_catalogue(folder / "products.csv")
    for name, but in (("tiny-llama", ""), ("tiny-falcon", "Brown")):
        with answering(but=but):
            evaluate(lay_out(folder / name, catalogue, model=name))
    evaluate(lay_out(folder / "linear", catalogue))
    return folder


@pytest.fixture
def runs(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "runs"))


def correct(run: Path, column: str = "correct") -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    return np.array(parquet.read_table(run / "evaluation" / "predictions.parquet")[column].to_pylist())


def test_runs_stand_beside_each_other_with_the_baseline_once(runs: Path) -> None:
    found = compare([runs / "tiny-llama", runs / "tiny-falcon"])
    assert [each.title for each in found.contestants] == ["baseline", "tiny-llama", "tiny-falcon"]
    assert [each.title for each in found.runs] == ["tiny-llama", "tiny-falcon"]
    assert found.rows == 44
    assert found.notes == ()
    accuracies = [each.standing.scores.accuracy for each in found.contestants]
    assert accuracies == [
        correct(runs / "tiny-llama", "baseline_correct").mean(),
        correct(runs / "tiny-llama").mean(),
        correct(runs / "tiny-falcon").mean(),
    ]
    votes = correct(runs / "tiny-llama", "baseline_correct").astype(int)
    votes += correct(runs / "tiny-llama").astype(int) + correct(runs / "tiny-falcon")
    assert (found.all_right, found.none_right) == ((votes == 3).sum(), (votes == 0).sum())


def test_every_pair_is_tested_on_the_same_rows(runs: Path) -> None:
    found = compare([runs / "tiny-llama", runs / "tiny-falcon"])
    llama, falcon = correct(runs / "tiny-llama"), correct(runs / "tiny-falcon")
    baseline = correct(runs / "tiny-llama", "baseline_correct")
    assert {(pair.first, pair.second): pair.paired for pair in found.pairs} == {
        ("tiny-llama", "baseline"): mcnemar(llama, baseline),
        ("tiny-falcon", "baseline"): mcnemar(falcon, baseline),
        ("tiny-llama", "tiny-falcon"): mcnemar(llama, falcon),
    }
    pair = found.pair("tiny-llama", "tiny-falcon")
    assert pair.accuracy == pytest.approx(llama.mean() - falcon.mean())
    assert pair.accuracy_interval == drop_interval(llama, falcon)
    scores = {each.title: each.standing.scores for each in found.contestants}
    assert pair.macro_f1.value == scores["tiny-llama"].macro_f1 - scores["tiny-falcon"].macro_f1
    assert pair.macro_f1.interval.low < pair.macro_f1.value < pair.macro_f1.interval.high
    assert pair.macro_f1.p_value < 0.05  # tiny-falcon gets no product with "Brown" in its name right
    assert found.pair("baseline", "tiny-llama") is None


def test_gains_and_losses_are_told_by_type_and_by_category(runs: Path) -> None:
    pair = compare([runs / "tiny-llama", runs / "tiny-falcon"]).pair("tiny-llama", "tiny-falcon")
    table = parquet.read_table(runs / "tiny-llama" / "evaluation" / "predictions.parquet")
    truth, above = (np.array(table[name].to_pylist()) for name in ("true_type", "true_category"))
    apart = correct(runs / "tiny-llama") & ~correct(runs / "tiny-falcon")
    assert {gain.name: gain.gains for gain in pair.types.found} == {
        name: count for name in set(truth) if (count := (apart & (truth == name)).sum())
    }
    assert {gain.name: gain.gains for gain in pair.categories.found} == {"Food": (apart & (above == "Food")).sum()}
    assert {gain.category for gain in pair.types.found} == {"Food"}
    assert pair.types.groups == 4
    assert pair.categories.groups == 3


def test_an_evaluation_of_before_categories_were_written_is_compared_without_them(runs: Path) -> None:
    for name in ("tiny-llama", "tiny-falcon"):
        path = runs / name / "evaluation" / "predictions.parquet"
        parquet.write_table(parquet.read_table(path).drop_columns(["true_category"]), path)
    out = runs / "c.html"
    found = compare([runs / "tiny-llama", runs / "tiny-falcon"], out=out)
    assert {pair.categories for pair in found.pairs} == {None}
    assert found.pairs[-1].types.found
    assert "Category</th>" not in out.read_text(encoding="utf-8")


def test_the_verdict_says_whether_the_best_model_is_worth_it_and_where(runs: Path) -> None:
    found = compare([runs / "tiny-llama", runs / "tiny-falcon"])
    assert found.worth.run == "tiny-llama"
    assert found.worth.verdict.title == "tiny-llama is not worth it here."  # the baseline gets nearly all right
    assert "Macro-F1, where every type counts the same, is" in found.worth.macro_f1
    assert "lower" in found.worth.macro_f1
    assert "clearly worse in 1 (Rice, Ready)" in found.worth.where
    assert compare([runs / "linear", runs / "tiny-falcon"]).worth.run == "tiny-falcon"


def test_runs_without_a_baseline_among_them_have_no_verdict(runs: Path, tmp_path: Path) -> None:
    alone = []
    for name in ("tiny-llama", "tiny-falcon"):
        with answering(but="Brown" if name == "tiny-falcon" else ""):
            run = lay_out(tmp_path / name, runs / "products.csv", model=name, baseline=False)
            evaluate(run)
            alone.append(run)
    found = compare(alone)
    assert found.worth is None
    assert [(pair.first, pair.second) for pair in found.pairs] == [("tiny-llama", "tiny-falcon")]


def test_a_run_is_compared_by_its_blend_where_that_is_what_it_answers_with(runs: Path, tmp_path: Path) -> None:
    run = lay_out(tmp_path / "both", runs / "products.csv", model="tiny-llama", blend=weighed())
    with answering():
        evaluate(run)
    found = compare([run, runs / "tiny-llama"], out=tmp_path / "c.html", prices=Prices.parse(["both=7"]))
    assert [each.title for each in found.contestants] == ["baseline", "both + baseline", "tiny-llama"]
    assert [each.standing.kind for each in found.contestants] == ["baseline", "blend", "model"]
    pair = found.pair("both + baseline", "baseline")
    assert pair is not None
    assert pair.paired == mcnemar(correct(run), correct(run, "baseline_correct"))
    alone = found.pair("both + baseline", "tiny-llama")
    assert alone is not None
    assert alone.paired == mcnemar(correct(run), correct(run, "model_correct"))
    assert alone.paired.gains > alone.paired.losses
    assert found.worth is not None
    assert found.worth.run == "both + baseline"
    assert found.contestants[1].cost is not None
    assert found.contestants[1].cost.price_per_hour == 7  # under the folder's name
    assert "tiny-llama lora head + baseline" in (tmp_path / "c.html").read_text(encoding="utf-8")


def test_prices_make_costs(runs: Path) -> None:
    found = compare(
        [runs / "tiny-llama", runs / "tiny-falcon"], out=runs / "c.html", prices=Prices.parse(["3", "baseline=0.1"])
    )
    costs = {each.title: each.cost for each in found.contestants}
    assert {title: cost.price_per_hour for title, cost in costs.items()} == {
        "baseline": 0.1,
        "tiny-llama": 3,
        "tiny-falcon": 3,
    }
    seconds = found.contestants[1].standing.seconds
    assert costs["tiny-llama"].hours_per_million == pytest.approx(seconds / 44 * 1e6 / 3600)
    assert "at 3.00 an hour)" in found.worth.cost
    assert "Price of an hour" in (runs / "c.html").read_text(encoding="utf-8")
    with pytest.raises(InputError, match="They are: baseline, tiny-llama, tiny-falcon"):
        compare([runs / "tiny-llama", runs / "tiny-falcon"], prices=Prices.parse(["tiny=3"]))


def test_rows_are_joined_by_id_whatever_their_order(runs: Path) -> None:
    expected = compare([runs / "tiny-llama", runs / "tiny-falcon"]).pairs
    path = runs / "tiny-falcon" / "evaluation" / "predictions.parquet"
    table = parquet.read_table(path)
    parquet.write_table(table.take(np.random.default_rng(0).permutation(len(table))), path)
    assert compare([runs / "tiny-llama", runs / "tiny-falcon"]).pairs == expected


def test_a_run_that_is_the_baseline_stands_for_the_one_beside_the_others(runs: Path) -> None:
    found = compare([runs / "tiny-llama", runs / "linear"])
    assert [each.title for each in found.contestants] == ["tiny-llama", "linear"]
    assert [(pair.first, pair.second) for pair in found.pairs] == [("tiny-llama", "linear")]


def test_evaluation_folders_can_be_named_too(runs: Path) -> None:
    found = compare([runs / "tiny-llama" / "evaluation", runs / "tiny-falcon" / "evaluation"])
    assert [each.title for each in found.runs] == ["tiny-llama/evaluation", "tiny-falcon/evaluation"]


def test_a_run_that_was_not_evaluated_says_how_to(runs: Path) -> None:
    shutil.rmtree(runs / "tiny-falcon" / "evaluation")
    with pytest.raises(RunFolderError, match=r"Run first: shelfwise evaluate .*tiny-falcon"):
        compare([runs / "tiny-llama", runs / "tiny-falcon"])
    with pytest.raises(RunFolderError, match="no such run folder"):
        compare([runs / "tiny-llama", runs / "nothing"])


def test_answers_to_different_rows_are_not_compared(runs: Path, tmp_path: Path) -> None:
    other_rows = lay_out(tmp_path / "other-seed", write_catalogue(tmp_path / "products.csv"), seed=7)
    evaluate(other_rows)
    with pytest.raises(InputError, match=r"share \d+ of 44 and 44 rows. Train them on one saved split"):
        compare([runs / "linear", other_rows])
    other_file = lay_out(tmp_path / "other-file", write_catalogue(tmp_path / "less.csv", rows()[:-2]))
    evaluate(other_file)
    with pytest.raises(InputError, match=r"products\.csv and less\.csv differ in their contents"):
        compare([runs / "linear", other_file])


def test_one_run_is_no_comparison(runs: Path) -> None:
    for named in ([], [runs / "linear"], [runs / "linear", runs / "tiny-llama" / ".." / "linear"]):
        with pytest.raises(InputError, match="two different run folders"):
            compare(named)


def test_baselines_that_differ_are_told(runs: Path) -> None:
    path = runs / "tiny-falcon" / "evaluation" / "predictions.parquet"
    table = parquet.read_table(path)
    swapped = pa.array(["Rice"] * len(table))
    at = table.column_names.index("baseline_predicted_type")
    parquet.write_table(table.set_column(at, "baseline_predicted_type", swapped), path)
    found = compare([runs / "tiny-llama", runs / "tiny-falcon"])
    assert "baselines do not answer alike" in found.notes[0]


def test_a_run_is_held_against_the_baseline_of_its_own_rows_and_columns(runs: Path) -> None:
    path = runs / "tiny-falcon" / "evaluation" / "predictions.parquet"
    table = parquet.read_table(path)
    at = table.column_names.index("baseline_predicted_type")
    rice = pa.array(["Rice"] * len(table))  # the baseline of other columns
    parquet.write_table(table.set_column(at, "baseline_predicted_type", rice), path)
    found = compare(
        [runs / "tiny-llama", runs / "tiny-falcon"], out=runs / "compare.html", prices=Prices.parse(["baseline=0.1"])
    )
    assert [each.title for each in found.contestants] == [
        "baseline of tiny-llama", "baseline of tiny-falcon", "tiny-llama", "tiny-falcon",
    ]  # fmt: skip
    assert [(pair.first, pair.second) for pair in found.pairs] == [
        ("tiny-llama", "baseline of tiny-llama"),
        ("tiny-falcon", "baseline of tiny-falcon"),
        ("tiny-llama", "tiny-falcon"),
    ]
    held = found.against_baseline(found.runs[1])
    assert held is not None
    is_rice = np.array(table["true_type"].to_pylist()) == "Rice"
    assert held.paired == mcnemar(correct(runs / "tiny-falcon"), is_rice)
    assert all(each.cost and each.cost.price_per_hour == 0.1 for each in found.contestants if not each.is_run)
    assert "baseline of tiny-falcon" in (runs / "compare.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("damage", ["cut", "short", "column"])
def test_damaged_predictions_are_told(runs: Path, damage: str) -> None:
    path = runs / "tiny-falcon" / "evaluation" / "predictions.parquet"
    table = parquet.read_table(path)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-50])
    else:
        parquet.write_table(table.slice(1) if damage == "short" else table.drop_columns(["confidence"]), path)
    with pytest.raises(CorruptArtifactError, match=r"predictions\.parquet: .* Write it again"):
        compare([runs / "tiny-llama", runs / "tiny-falcon"])


def test_the_page_says_who_is_best_and_links_to_every_report(runs: Path) -> None:
    out = runs / "pages" / "report.html"
    found = compare([runs / "tiny-llama", runs / "tiny-falcon"], out=out)
    text = out.read_text(encoding="utf-8")
    best = max(found.runs, key=lambda each: each.standing.scores.accuracy)
    assert f"<h1>{best.title} gets" in text
    assert "the baseline" in text
    for name in ("tiny-llama", "tiny-falcon"):
        link = f"../{name}/evaluation/report.html"
        assert f'href="{link}"' in text
        assert (out.parent / link).is_file()
    assert text.count("<details") == len(found.pairs)
    opened = text.partition('<details class="fold" open>')[2].partition("</summary>")[0]
    assert f"{best.title} against baseline" in opened
    assert "Price of an hour" not in text  # none was told
    assert str(runs) not in text  # the page can travel with its runs
    assert "<script" not in text
    with pytest.raises(InputError, match="overwrite with --force"):
        compare([runs / "tiny-llama", runs / "tiny-falcon"], out=out)
    assert out.read_text(encoding="utf-8") == text
    compare([runs / "tiny-llama", runs / "tiny-falcon"], out=out, force=True)
    with pytest.raises(InputError, match="is a folder"):
        compare([runs / "tiny-llama", runs / "tiny-falcon"], out=runs)
    products = runs / "products.csv"
    products.write_text("product\nTea\n")
    with pytest.raises(InputError, match="is written as HTML"):
        compare([runs / "tiny-llama", runs / "tiny-falcon"], out=products)
    assert products.read_text() == "product\nTea\n"
    products.unlink()


def test_the_command_prints_table_tests_and_json(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    named = [str(runs / "tiny-llama"), str(runs / "tiny-falcon")]
    assert shelfwise(["compare", *named, "--out", str(runs / "c.html")]) == 0
    told = capsys.readouterr().out
    assert "tiny-llama against baseline:" in told
    assert told.rstrip().endswith("c.html")
    assert shelfwise(["compare", *named, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [each["title"] for each in document["contestants"]] == ["baseline", "tiny-llama", "tiny-falcon"]
    assert len(document["pairs"]) == 3
    assert {"gains", "losses", "p_value", "macro_f1", "accuracy_interval", "types"} <= set(document["pairs"][0])
    assert document["worth"]["verdict"]["tone"] == "no"
    assert shelfwise(["compare", *named, "--price-per-hour", "2.5", "--price-per-hour", "baseline=0.1"]) == 0
    told = capsys.readouterr().out
    costs = told[told.index("a million products") :].splitlines()
    assert costs[0].split()[-4:] == ["time", "an", "hour", "cost"]
    assert [(line.split()[0], line.split()[-2]) for line in costs[1:4]] == [
        ("baseline", "0.10"),
        ("tiny-llama", "2.50"),
        ("tiny-falcon", "2.50"),
    ]
    assert shelfwise(["compare", *named, "--price-per-hour", "cheap"]) == 2
    assert "'cheap' is no price" in capsys.readouterr().err
    assert shelfwise(["compare", named[0]]) == 2
    assert "two different run folders" in capsys.readouterr().err
