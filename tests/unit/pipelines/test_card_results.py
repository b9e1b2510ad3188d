from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from shelfwise import artifact, storage
from shelfwise.classifier import Classifier
from shelfwise.errors import CorruptArtifactError
from shelfwise.metrics import Interval
from shelfwise.pipelines import card_results
from shelfwise.pipelines.evaluate import evaluate
from shelfwise.pipelines.evaluation import Evaluation, LeakageNote
from support.evaluations import answering, lay_out, write_catalogue

OWN = "# My model\n\nMy words: naïve.\n"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return lay_out(tmp_path / "run", write_catalogue(tmp_path / "products.csv"))


def figures(card: str) -> dict[str, list[str]]:
    """The table of the results, by the first cell of each line."""
    lines = [line.strip("| ").split(" | ") for line in card.splitlines() if line.startswith("| ")]
    return {title: cells for title, *cells in lines}


def test_the_figures_are_those_of_the_report(run: Path) -> None:
    evaluate(run)
    found = Evaluation.load(run / "evaluation")
    shown = figures((run / "README.md").read_text(encoding="utf-8"))
    for i, line in enumerate(found.standings):
        scores, interval = line.scores, line.interval
        assert shown["right answers (accuracy)"][i] == (
            f"{scores.accuracy:.1%} ({100 * interval.low:.1f} to {interval.high:.1%})"
        )
        assert shown["macro-F1"][i].split()[0] == f"{scores.macro_f1:.3f}"
    subject = found.subject
    assert subject.intervals
    assert subject.decisions
    macro = subject.intervals.macro_f1
    assert shown["macro-F1"][-1] == f"{subject.scores.macro_f1:.3f} ({macro.low:.3f} to {macro.high:.3f})"
    assert shown["expected calibration error"][-1].startswith(f"{subject.scores.ece:.3f} (")
    assert shown["accepted without a look"][-1] == f"{subject.decisions.accepted_share:.1%}"
    assert shown["of these right"][-1].startswith(f"{subject.decisions.precision:.1%} (")
    assert shown["promise"] == ["–", f"90%: {subject.decisions.verdict}"]


def test_a_run_loads_after_its_card_was_written(run: Path) -> None:
    evaluate(run)
    artifact.read_manifest(run)
    assert Classifier.load(run).predict(["Amber Basmati Rice 1 kg"])


def test_a_run_whose_manifest_lists_the_card_loads_too(run: Path) -> None:
    artifact.write_text(run / "README.md", OWN)
    storage.write_manifest(run, {}, apart=["evaluation"])  # as it was before evaluations wrote into the card
    assert "README.md" in json.loads((run / "manifest.json").read_text())["files"]
    evaluate(run)
    assert "## Results" in (run / "README.md").read_text(encoding="utf-8")
    artifact.read_manifest(run)
    (run / "labels.json").write_text("{}")
    with pytest.raises(CorruptArtifactError, match=r"labels\.json"):
        artifact.read_manifest(run)


def test_the_owners_words_stay_and_the_results_are_replaced(run: Path) -> None:
    path = run / "README.md"
    path.write_bytes(OWN.encode("latin-1"))
    evaluate(run)
    first = path.read_bytes()
    path.write_bytes(first + b"\nMore words.\n")
    evaluate(run)
    again = path.read_bytes()
    assert again.startswith(OWN.rstrip().encode("latin-1"))
    assert again.endswith(b"\nMore words.\n")
    assert again.count(b"## Results") == 1


def test_an_evaluation_that_goes_elsewhere_leaves_the_card_alone(run: Path, tmp_path: Path) -> None:
    artifact.write_text(run / "README.md", OWN)
    evaluate(run, out=tmp_path / "elsewhere")
    evaluate(run, write_catalogue(tmp_path / "other.csv", [("Rose Soap", "Beauty", "Bath", "Elan", "Soap & Bars")]))
    assert (run / "README.md").read_text(encoding="utf-8") == OWN


def test_names_from_files_are_neither_markdown_nor_html(run: Path) -> None:
    with answering():
        found = evaluate(run)
    note = LeakageNote("near_duplicate", "products\n# like <script>|`x`", 2, True, ())
    facts = replace(found.facts, catalogue="[a](b) *c*.csv", command="shelfwise evaluate '```'\nshelfwise evaluate x")
    text = card_results.results(replace(found, facts=facts, leakage=(note,)))
    assert "- 2 products \\# like &lt;script>\\|\\`x\\` (serious)\n" in text
    assert "\\[a\\](b) \\*c\\*.csv" in text
    assert "    shelfwise evaluate '```'\n    shelfwise evaluate x\n" in text


def test_the_card_says_what_is_known_of_leakage(run: Path) -> None:
    found = evaluate(run)
    assert "none found" in card_results.results(replace(found, leakage=()))
    assert "out of reach" in card_results.results(replace(found, leakage=None))


def test_a_figure_without_an_interval_stands_alone(run: Path) -> None:
    found = evaluate(run)
    plain = replace(found.subject, intervals=None, category_accuracy=None, interval=Interval(0.25, 0.5))
    shown = figures(card_results.results(replace(found, standings=(found.standings[0], plain))))
    assert shown["macro-F1"][-1] == f"{plain.scores.macro_f1:.3f}"
    assert shown["right category"][-1] == "–"
    assert shown["right answers (accuracy)"][-1].endswith("(25.0 to 50.0%)")
