from __future__ import annotations

import base64
import hashlib
import io
import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shelfwise.labels import Labels, Taxonomy
from shelfwise.metrics import Paired, Ranked
from shelfwise.pipelines import figures, insights, pages, report
from shelfwise.pipelines.evaluate import evaluate
from shelfwise.pipelines.evaluation import Evaluation, Grid
from shelfwise.pipelines.scoring import Answers, Rows, majority
from shelfwise.records import Product
from support.evaluations import NASTY, answering, lay_out, rows, write_catalogue

VOID = {"meta", "br", "input", "img", "line", "circle", "polyline"}


class Page(HTMLParser):
    """Collects tags, and fails on one that is closed out of turn."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag, f"</{tag}> closes out of turn"

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def attributes(self) -> Iterator[tuple[str, str]]:
        for _, attributes in self.tags:
            yield from ((name, value or "") for name, value in attributes.items())


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Evaluation, str]:
    """An evaluation in which product, type and category names are hostile, with the page about it."""
    folder = tmp_path_factory.mktemp("report")
    hostile = [
        (
            f"{NASTY} {number}" if label == "Soap & Bars" else name,
            f"{category} <b>&",
            shelf,
            brand,
            label.replace("Soap &", 'Suds "x" <i>&'),
        )
        for number, (name, category, shelf, brand, label) in enumerate(rows())
    ]
    run = lay_out(folder / "<u>run", write_catalogue(folder / "products.csv", hostile), model="tiny-llama")
    with answering():
        found = evaluate(run, date="2025-11-24")
    return found, (found.folder / "report.html").read_text(encoding="utf-8")


def test_the_page_is_well_formed_and_starts_with_what_it_means(evaluated: tuple[Evaluation, str]) -> None:
    found, text = evaluated
    page = Page(text)
    assert [tag for tag, _ in page.tags].count("h1") == 1
    told = " ".join(" ".join(page.text).split())
    assert report.headline(found) in told
    assert report.verdict(found).title in told
    for standing in found.standings:
        assert standing.name in told
        assert pages.percent(standing.scores.accuracy) in told
        assert f"{100 * standing.interval.low:.1f} to {pages.percent(standing.interval.high)}" in told


def test_the_page_holds_each_level_above_the_type_against_the_promise(evaluated: tuple[Evaluation, str]) -> None:
    found, text = evaluated
    decisions = found.subject.decisions
    assert decisions is not None
    assert decisions.stricter_types == 1
    sub_category, category = decisions.above
    assert (sub_category.level, sub_category.accepted, sub_category.verdict) == ("sub_category", 0, "nothing accepted")
    assert (category.level, category.precision, category.verdict) == ("category", 1, "kept")
    assert 0 < category.accepted == round(category.accepted_share * found.facts.rows) < found.facts.rows
    shown = re.search(r'<th scope="row"[^>]*>category</th>(.*?)</tr>', text)
    assert shown
    assert f"+{100 * category.accepted_share:.1f}%" in shown[1]
    assert '<span class="kept">kept</span>' in shown[1]
    assert "and more for 1 type that is more often wrong when sure" in text


def test_names_can_not_become_markup(evaluated: tuple[Evaluation, str]) -> None:
    _, text = evaluated
    assert "<script>alert(1)</script>" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text  # shown as an example of what goes wrong
    tags = {tag for tag, _ in Page(text).tags}
    assert "u" in tags  # ours, in the charts
    assert not re.search(r"<(i>&|b>&amp;|u>run)", text)
    assert text.count("<script>") == 1


def test_the_page_loads_nothing_and_runs_only_its_own_script(evaluated: tuple[Evaluation, str]) -> None:
    _, text = evaluated
    page = Page(text)
    assert not {"link", "img", "iframe", "object", "embed", "base", "form"} & {tag for tag, _ in page.tags}
    attributes = list(page.attributes())
    assert not [value for name, value in attributes if name in {"src", "href", "action", "srcset"} or name[:2] == "on"]
    assert "url(" not in text
    assert "@import" not in text
    script = text.split("<script>")[1].split("</script>")[0]
    policy = next(value for _, value in attributes if value.startswith("default-src"))
    assert f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" in policy
    assert policy.startswith("default-src 'none'")


def test_every_type_with_a_product_has_its_line(evaluated: tuple[Evaluation, str]) -> None:
    found, text = evaluated
    body = text.split('<table class="types">')[1].split("</table>")[0]
    assert body.count("<tr data-text=") == 4
    assert found.facts.n_labels == 4


def with_numbers(found: Evaluation, model: float, baseline: float, paired: Paired) -> Evaluation:
    majority_line, beside, subject = found.standings
    return replace(
        found,
        standings=(
            majority_line,
            replace(beside, scores=replace(beside.scores, accuracy=baseline), seconds=1.0),
            replace(subject, scores=replace(subject.scores, accuracy=model), seconds=12.0),
        ),
        against_baseline=paired,
    )


@pytest.mark.parametrize(
    ("paired", "tone", "words"),
    [
        (Paired(90, 40, 0.0001), "yes", "gets 50 more right than the baseline, more than chance explains (p < 0.001)"),
        (Paired(40, 90, 0.02), "no", "gets 50 fewer right than the baseline, more than chance explains (p = 0.020)"),
        (Paired(21, 20, 0.88), "open", "gets 1 more right than the baseline, a difference that chance explains"),
        (Paired(20, 20, 1.0), "open", "gets as many right as the baseline."),
    ],
)
def test_the_verdict_follows_the_test(evaluated: tuple[Evaluation, str], paired: Paired, tone: str, words: str) -> None:
    verdict = report.verdict(with_numbers(evaluated[0], 0.8, 0.7, paired))
    assert verdict.tone == tone
    assert words in verdict.text
    assert verdict.text.endswith("It takes 12 times as long.")


@pytest.mark.parametrize(
    ("model", "baseline", "sentence"),
    [
        (0.872, 0.849, "Gets 87 of 100 products right; the simple baseline, 85."),
        (0.7932, 0.7941, "Gets 79.3 of 100 products right; the simple baseline, 79.4."),
        (0.5, 0.5, "Gets 50 of 100 products right, as the simple baseline does."),
    ],
)
def test_the_headline_never_hides_a_difference(
    evaluated: tuple[Evaluation, str], model: float, baseline: float, sentence: str
) -> None:
    assert report.headline(with_numbers(evaluated[0], model, baseline, Paired(0, 0, 1.0))) == sentence


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (pages.duration(0.0001), "under 1 ms"),
        (pages.duration(0.121), "121 ms"),
        (pages.duration(12.34), "12.3 s"),
        (pages.duration(240), "4 min"),
        (pages.p_value(0.0004), "p < 0.001"),
        (pages.p_value(0.0456), "p = 0.046"),
        (pages.p_value(0.71), "p = 0.71"),
        (pages.count(27555), "27,555"),
    ],
)
def test_numbers_are_written_as_one_reads_them(shown: str, expected: str) -> None:
    assert shown == expected


def products(labels: list[str]) -> list[Product]:
    return [Product(i, f"x.csv:{i + 2}", f"Thing {i}", label, text=f"Thing {i}") for i, label in enumerate(labels)]


def answers_of(rows: Rows, predictions: list[int]) -> Answers:
    from shelfwise.calibration import Calibration

    n = len(predictions)
    ranked = Ranked(np.array(predictions)[:, None], np.linspace(1, 0.5, n, dtype=np.float32)[:, None], np.zeros(n))
    return Answers("model", "m", ranked, Calibration(), 1.0, np.full(n, 3), np.zeros(n, np.bool_))


def test_confusions_are_ranked_by_number_with_examples_of_their_own() -> None:
    rows = Rows.of(products(["a", "a", "a", "b", "c", "c"]), Labels(("a", "b", "c")), None)
    found = insights.confusions(answers_of(rows, [1, 1, 2, 1, 0, 2]), rows)
    assert [(c.true, c.predicted, c.count, c.support) for c in found] == [
        ("a", "b", 2, 3),
        ("a", "c", 1, 3),
        ("c", "a", 1, 2),
    ]
    assert found[0].examples == ("Thing 0", "Thing 1")


def test_the_grid_is_by_category_where_there_is_one_and_loses_no_row() -> None:
    names = [f"t{i:02}" for i in range(40)]
    products_ = products(names * 2)
    answered = [*range(40), *range(1, 40), 0]
    taxonomy = Taxonomy({name: ((f"category {i // 8}", "", 1),) for i, name in enumerate(names)})
    with_categories = Rows.of(products_, Labels(tuple(names), taxonomy), None)
    grid = insights.grid(answers_of(with_categories, answered), with_categories)
    assert (grid.level, len(grid.names)) == ("category", 5)
    assert np.sum(grid.counts) == 80
    assert np.trace(np.array(grid.counts)) == 80 - 5
    without = Rows.of(products_, Labels(tuple(names)), None)
    grid = insights.grid(answers_of(without, answered), without)
    assert (grid.level, len(grid.names), grid.names[-1]) == ("type", insights.SHOWN_TYPES, insights.OTHERS)
    assert np.sum(grid.counts) == 80


def test_coverage_counts_the_surest_answers_first() -> None:
    found = insights.coverage(np.array([0.2, 0.9, 0.6, 0.4]), np.array([False, True, True, False]))
    assert found == ((0.25, 1.0), (0.5, 1.0), (0.75, pytest.approx(2 / 3)), (1.0, 0.5))


def test_the_majority_ranks_types_by_their_number() -> None:
    rows = Rows.of(products(["b", "b", "b", "a", "a", "z"]), Labels(("a", "b", "c")), None)
    found = majority(rows)
    assert found.predictions.tolist() == [1] * 6
    assert found.ranked.answers[0].tolist() == [1, 0, 2]
    assert found.ranked.of_truth[-1] == -np.inf  # z is unknown
    assert found.confidence[0] == pytest.approx(0.6)


@pytest.mark.filterwarnings("error")
def test_the_picture_is_drawn_whatever_the_names_are() -> None:
    names = ("$x_{", "100% & more", "茶 and rice", "a" * 60)
    grid = Grid("type", names, ((5, 0, 1, 0), (0, 0, 0, 0), (1, 0, 9, 0), (2, 2, 2, 2)))
    with Image.open(io.BytesIO(figures.grid_png(grid))) as picture:
        assert picture.format == "PNG"
        assert min(picture.size) > 300


def test_a_report_of_a_baseline_run_asks_for_a_model(tmp_path: Path) -> None:
    found = evaluate(lay_out(tmp_path / "run", write_catalogue(tmp_path / "products.csv")))
    assert report.verdict(found).tone == "open"
    assert "always giving the most frequent type" in report.headline(found)
    Page((found.folder / "report.html").read_text(encoding="utf-8"))
