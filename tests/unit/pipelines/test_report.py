from __future__ import annotations

import base64
import hashlib
import io
import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from shelfwise.labels import Labels
from shelfwise.metrics import Interval, Paired
from shelfwise.pipelines import figures, insights, pages, report
from shelfwise.pipelines.details import Grid
from shelfwise.pipelines.evaluate import evaluate
from shelfwise.pipelines.evaluation import Evaluation, LeakageNote, TypePromise
from shelfwise.pipelines.pages import Line
from shelfwise.pipelines.report_rows import band_groups, type_rows
from shelfwise.pipelines.scoring import Rows
from support.answers import answers_of, products
from support.evaluations import NASTY, answering, lay_out, rows, write_catalogue

FEW = Rows.of(products(["a", "a", "a", "b", "c", "c"]), Labels(("a", "b", "c")), None)
FOUR = ([answers_of(FEW, [1, 1, 2, 1, 0, 2])], FEW)
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
    assert not [value for name, value in attributes if name in {"src", "action", "srcset"} or name[:2] == "on"]
    links = [value for name, value in attributes if name == "href"]
    places = {value for name, value in attributes if name == "id"}
    assert links
    assert all(link.startswith("#") and link[1:] in places for link in links)  # within the page, and to what is there
    assert "url(" not in text
    assert "@import" not in text
    script = text.split("<script>")[1].split("</script>")[0]
    policy = next(value for _, value in attributes if value.startswith("default-src"))
    assert f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" in policy
    assert policy.startswith("default-src 'none'")


def test_every_type_with_a_product_has_its_line(evaluated: tuple[Evaluation, str]) -> None:
    found, text = evaluated
    body = text.split('<table class="types sortable" id="types">')[1].split("</table>")[0]
    assert body.count("<tr data-text=") == 4
    assert found.facts.n_labels == 4

    assert [row.scores.support for row in type_rows(insights.details(*FOUR), ())] == [3, 2, 1]


def test_a_type_shows_what_became_of_its_accepted_answers(evaluated: tuple[Evaluation, str]) -> None:
    found, text = evaluated
    assert found.subject.decisions
    assert found.subject.decisions.types
    body = text.split('id="types">')[1].split("</table>")[0]
    for held in found.subject.decisions.types:
        row = re.search(
            rf'data-value="{held.accepted}">{held.accepted}</td>\s*<td[^>]*data-value="{held.verdict}">', body
        )
        assert row, held
        assert f"<small>{held.right} right</small>" in body


def test_broken_promises_are_listed_by_name(evaluated: tuple[Evaluation, str]) -> None:
    found, _ = evaluated
    decisions = found.subject.decisions
    assert decisions
    broken = TypePromise("Rice <br>", 90, 60, Interval(0.56, 0.75), "broken")
    held = TypePromise("Rice, Ready", 90, 88, Interval(0.92, 0.99), "kept")
    subject = replace(found.subject, decisions=replace(decisions, types=(broken, held)))
    text = report.render(replace(found, standings=(*found.standings[:-1], subject)), insights.details(*FOUR))
    told = "".join(Page(text).text)
    assert "Of the 2 types with an accepted answer the promise is kept for 1 and broken for 1. The table" in told
    assert "Rice <br>9067%56 to 75%" in told
    assert "Rice, Ready90" not in told


def test_the_page_tells_of_leakage_of_none_and_of_not_looking(evaluated: tuple[Evaluation, str]) -> None:
    found, _ = evaluated
    note = LeakageNote("same_product", "test products that <b>training</b> has", 7, True, ("x.csv:3: <i>Rice</i>",))

    def told(leakage: tuple[LeakageNote, ...] | None) -> str:
        text = report.render(replace(found, leakage=leakage), insights.details(*FOUR))
        return "".join(Page(text).text)

    assert "The gate found nothing" in told(())
    assert "not looked for: the training rows are out of reach" in told(None)
    shown = told((note,))
    assert "7 test products that <b>training</b> has: makes the numbers too good" in shown
    assert "x.csv:3: <i>Rice</i>" in shown


def test_bands_of_the_run_stand_above_those_of_its_baseline(evaluated: tuple[Evaluation, str]) -> None:
    found, text = evaluated
    lines = [Line(each.name, "red", each, None) for each in found.standings]
    groups = band_groups(lines)
    shown = [(row.title, row.n) for group in groups for row in group.rows]
    assert sorted(shown) == sorted((band.title, band.n) for band in found.subject.bands)
    assert len(shown) > 2
    for group in groups:
        for row in group.rows:
            assert [line.standing.kind for line, _ in row.bars] == ["model", "baseline"]
    told = " ".join(" ".join(Page(text).text).split())
    assert all(title in told for title, _ in shown)


def test_the_page_says_how_to_make_it_again(evaluated: tuple[Evaluation, str]) -> None:
    found, _ = evaluated
    facts = replace(
        found.facts, command="shelfwise train 'a <b>.csv'\nshelfwise evaluate run", hardware="Abacus, 2 rods"
    )
    told = "".join(Page(report.render(replace(found, facts=facts), insights.details(*FOUR))).text)
    assert facts.command in told
    assert facts.hardware in told


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
