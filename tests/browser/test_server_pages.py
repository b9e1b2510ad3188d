"""The service's pages in Chromium: a day's work of a category manager, by mouse, by keyboard, on a phone."""

from __future__ import annotations

import csv
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from shelfwise.data import sample
from support.serving import Live, live

from .conftest import DESK, PHONE, Opened
from .test_pages import overflowing, page_width, serious_faults

pytestmark = pytest.mark.browser
HOSTILE = [
    "<script>alert(1)</script> Soap",
    '"><img src=x onerror=alert(1)> Tea',
    "'; DROP TABLE items; --",
    '=HYPERLINK("http://x","Rice")',
    "Rice 🍚 👩‍👩‍👧 5 kg",
    "أرز بسمتي ‮eciR‬",
    "{{ 7 * 7 }} ${7*7}",
]
PAGES = ("/", "/upload", "/review", "/report", "/monitor")
UNSURE = "Qwertz Blorp"


def shelfwise(*arguments: str | Path) -> None:
    command = [sys.executable, "-m", "shelfwise", *map(str, arguments)]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert finished.returncode == 0, finished.stderr


@pytest.fixture(scope="module")
def trained(browser: object, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The baseline on the packaged sample, evaluated."""
    run = tmp_path_factory.mktemp("service") / "shelves"
    shelfwise("train", sample.catalogue_path(), "--model", "baseline", "--out", run)
    shelfwise("evaluate", run)
    return run


@dataclass
class Served:
    """A live service, and where its queue is."""

    live: Live
    store: Path

    def at(self, path: str) -> str:
        return self.live.address + path


@pytest.fixture(scope="module")
def served(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    with live([trained, "--store", folder / "review.db", "--data", folder / "data", "--drain-delay", "0"]) as found:
        found.wait_until_ready()
        yield Served(found, folder / "review.db")


@pytest.fixture
def surf(browser, served: Served) -> Iterator[Callable[..., Opened]]:
    """Opens a page of the service in a context of its own: another visitor, with cookies of their own."""
    contexts = []

    def open_(path: str, width: int = DESK, **options: object) -> Opened:
        context = browser.new_context(viewport={"width": width, "height": 900}, **options)
        contexts.append(context)
        found = Opened(context.new_page())
        found.page.on("request", lambda request: found.requests.append(request.url))
        found.page.on("console", lambda message: found.complaints.append(message.text))
        found.page.on("pageerror", lambda error: found.complaints.append(str(error)))
        found.page.on("dialog", lambda dialog: (found.complaints.append(dialog.message), dialog.dismiss()))
        found.page.goto(served.at(path))
        return found

    yield open_
    for context in contexts:
        context.close()


def write_products(path: Path, names: list[str], brand: str = "Amber") -> Path:
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([["product", "brand"], *([name, brand] for name in names)])
    return path


def upload(opened: Opened, file: Path) -> None:
    opened.page.locator("#file").set_input_files(file)
    opened.page.get_by_role("button", name="Classify the file").click()
    opened.page.locator(".tiles").wait_for()


def begin_review(opened: Opened, reviewer: str) -> None:
    opened.page.get_by_label("Your name").fill(reviewer)
    opened.page.keyboard.press("Enter")
    opened.page.locator("#decide, #product").first.wait_for()


def product(opened: Opened) -> str:
    return opened.page.locator("#product").inner_text()


def told(opened: Opened) -> str:
    return opened.page.locator(".told").inner_text()


def decided(opened: Opened, act: Callable[[], object]) -> str:
    """Do something that the server has to confirm, and wait until the page has moved on."""
    with opened.page.expect_response(re.compile("/review/(decide|undo|overrule)")) as answer:
        act()
    answer.value.finished()
    opened.page.locator("#desk:not([aria-busy])").wait_for()
    return told(opened)


def test_types_appear_while_names_are_typed(surf: Callable[..., Opened]) -> None:
    opened = surf("/")
    opened.page.keyboard.type("Basmati Rice 1 kg")  # the field has the focus from the start
    best = opened.page.locator(".answers .best > b")
    best.first.wait_for()
    assert best.all_inner_texts() == ["Rice"]
    opened.page.keyboard.press("Enter")
    opened.page.keyboard.insert_text("\n".join(HOSTILE))
    opened.page.locator(".answers > li").nth(len(HOSTILE)).wait_for()
    assert [text.strip() for text in opened.page.locator(".answers q").all_inner_texts()][1] == HOSTILE[0]
    assert opened.page.locator("main img, main script").count() == 0
    assert opened.complaints == []


def test_try_works_without_javascript(surf: Callable[..., Opened]) -> None:
    opened = surf("/", java_script_enabled=False)
    opened.page.locator("#names").fill("Basmati Rice 1 kg\nNeem Face Wash")
    opened.page.get_by_role("button", name="Classify").click()
    assert opened.page.locator(".answers .best > b").all_inner_texts() == ["Rice", "Face Wash"]
    assert not opened.page.locator(".with-script").first.is_visible()


def test_a_service_that_is_gone_is_told_and_the_answers_stay(surf: Callable[..., Opened]) -> None:
    opened = surf("/")
    opened.page.keyboard.type("Basmati Rice")
    opened.page.locator(".answers li").first.wait_for()
    opened.page.context.set_offline(True)
    opened.page.keyboard.type(" 5 kg")
    opened.page.locator("#complaint", has_text="can't be reached").wait_for()
    assert opened.page.locator(".answers .best > b").all_inner_texts() == ["Rice"]


def test_a_file_is_classified_filtered_and_downloaded(surf: Callable[..., Opened], tmp_path: Path) -> None:
    opened = surf("/upload")
    upload(opened, sample.new_products_path())
    page = opened.page
    page.get_by_role("combobox", name="Show").select_option("to review")
    page.get_by_role("button", name="Show", exact=True).click()
    assert set(page.locator(".rows .tag").all_inner_texts()) == {"to review"}
    page.get_by_label("Name holds").fill("RICE")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("text=RICE"))
    assert page.locator(".rows mark").count() == page.locator(".rows tbody tr").count() > 0
    with page.expect_download() as download:
        page.get_by_role("link", name="CSV").click()
    assert download.value.suggested_filename == "new_products-types.csv"
    download.value.save_as(tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert rows
    assert all("rice" in row["product"].lower() and row["decision"] == "review" for row in rows)
    assert opened.complaints == []


def test_a_file_can_be_dropped_and_a_wrong_one_is_refused_in_words(surf: Callable[..., Opened]) -> None:
    opened = surf("/upload")
    drop = """([name, text]) => {
        const data = new DataTransfer();
        data.items.add(new File([text], name));
        document.getElementById("drop").dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true }));
    }"""
    opened.page.evaluate(drop, ["<b>photo</b>.png", "PNG"])
    opened.page.locator("#complaint", has_text="only CSV").wait_for()
    assert opened.page.locator("#complaint b").count() == 0
    opened.page.evaluate(drop, ["dropped.csv", "product\nBasmati Rice\n"])
    opened.page.locator(".tiles").wait_for()
    assert opened.page.locator("h1").inner_text() == "dropped.csv"


def test_a_job_survives_kill_9(trained: Path, surf: Callable[..., Opened], tmp_path: Path) -> None:
    names = [f"Basmati Rice {i} kg" for i in range(30_000)]
    arguments = [trained, "--data", tmp_path / "data"]
    with live(arguments) as first:
        first.wait_until_ready()
        opened = surf("/upload")
        opened.page.goto(f"{first.address}/upload")
        opened.page.locator("#file").set_input_files(write_products(tmp_path / "many.csv", names))
        opened.page.get_by_role("button", name="Classify the file").click()
        opened.page.wait_for_url(re.compile("/upload/[0-9a-f]{32}"))
        where = opened.page.url.removeprefix(first.address)
        first.process.kill()
        first.process.wait()
    with live(arguments) as second:
        second.wait_until_ready()
        opened.page.goto(second.address + where)
        opened.page.locator(".tiles").wait_for()
        assert opened.page.locator(".tiles b").first.inner_text() == "30,000"


def test_a_queue_is_reviewed_by_keyboard_and_the_model_learns_from_it(
    surf: Callable[..., Opened], served: Served, tmp_path: Path
) -> None:
    """Upload, review, undo, export, train again, and see the corrected answer."""
    names = [f"{UNSURE} {word}" for word in ("Alpha", "Beta", "Gamma", "Delta", "Epsilon")]
    opened = surf("/upload")
    upload(opened, write_products(tmp_path / "odd.csv", [*names, *HOSTILE]))
    opened.page.get_by_role("button", name=re.compile("Review the")).click()
    opened.page.get_by_role("link", name="review queue").click()
    begin_review(opened, "Asha")
    keyboard = opened.page.keyboard
    seen: list[str] = []
    corrected = 0
    while opened.page.locator("#decide").count():
        name = product(opened)
        assert name not in seen
        seen.append(name)
        if name.startswith(UNSURE):
            keyboard.press("/")
            keyboard.type("green tea")
            assert "Green Tea is" not in told(opened)
            line = decided(opened, lambda: keyboard.press("Enter"))
            assert line.startswith(f"Stored: {name} is Green Tea")
            corrected += 1
            if corrected == 1:
                assert decided(opened, lambda: keyboard.press("u")) == f"Taken back: {name}."
                assert product(opened) == name
                seen.remove(name)
        elif len(seen) % 3 == 0:
            assert decided(opened, lambda: keyboard.press("s")) == f"Skipped: {name}."
        else:
            key = "Enter" if len(seen) % 2 else "2"
            assert decided(opened, lambda key=key: keyboard.press(key)).startswith(f"Stored: {name} is ")
        assert opened.page.locator("main img, main script").count() == 0
    assert set(names) <= set(seen)
    assert set(HOSTILE) & set(seen)
    assert "Nothing is left for you" in product(opened)
    assert opened.complaints == []

    catalogue = tmp_path / "new.csv"
    shelfwise("review", "export", "--store", served.store, "--catalogue", sample.catalogue_path(), "--out", catalogue)
    shelfwise("train", catalogue, "--model", "baseline", "--out", tmp_path / "again")
    with live([tmp_path / "again"]) as again:
        again.wait_until_ready()
        opened.page.goto(again.address)
        opened.page.locator("#names").fill(f"{UNSURE} Zeta")
        opened.page.locator(".answers li").first.wait_for()
        assert opened.page.locator(".answers .best > b").inner_text() == "Green Tea"


def put_into_queue(surf: Callable[..., Opened], folder: Path, *names: str) -> Opened:
    opened = surf("/upload")
    upload(opened, write_products(folder / "more.csv", list(names)))
    opened.page.get_by_role("button", name=re.compile("Review the")).click()
    opened.page.locator(".told").wait_for()
    opened.page.goto(opened.page.url.partition("/upload")[0] + "/review")
    return opened


def test_two_reviewers_get_different_products_and_are_told_of_each_other(
    surf: Callable[..., Opened], served: Served, tmp_path: Path
) -> None:
    first = put_into_queue(surf, tmp_path, "Vlorp Snib 1", "Vlorp Snib 2", "Vlorp Snib 3", "Vlorp Snib 4")
    begin_review(first, "Ben")
    second = surf("/review")
    begin_review(second, "Chitra")
    assert product(first) != product(second)
    # Chitra gets hold of what Ben has before him, as after his lease is over.
    item = first.page.locator("#decide [name=item]").input_value()
    version = first.page.locator("#decide [name=version]").input_value()
    shelfwise(
        "review", "decide", item, "--store", served.store, "--reviewer", "Chitra", "--version", version,
        "--type", "Honey", "--new-type",
    )  # fmt: skip
    with first.page.expect_response(re.compile("/review/decide")):
        first.page.keyboard.press("2")
    first.page.locator(".conflict").wait_for()
    assert product(first).startswith("Chitra decided this")
    assert "Honey" in first.page.locator(".conflict").inner_text()
    first.page.keyboard.press("Enter")  # leave it, go on
    first.page.locator("#decide").wait_for()
    assert [text for text in first.complaints if "409" not in text] == []


def test_a_decision_that_fails_stays_and_can_be_sent_again(surf: Callable[..., Opened], tmp_path: Path) -> None:
    opened = put_into_queue(surf, tmp_path, "Grumf Plix 1", "Grumf Plix 2")
    begin_review(opened, "Dev")
    name = product(opened)
    opened.page.context.set_offline(True)
    opened.page.keyboard.press("Enter")
    again = opened.page.get_by_role("button", name="Try again")
    again.wait_for()
    assert product(opened) == name  # nothing moved on
    opened.page.context.set_offline(False)
    assert decided(opened, lambda: opened.page.keyboard.press("Enter")).startswith(f"Stored: {name} is ")


def test_the_review_works_without_javascript(surf: Callable[..., Opened], tmp_path: Path) -> None:
    put_into_queue(surf, tmp_path, "Plumbus Krel 1", "Plumbus Krel 2")
    opened = surf("/review", java_script_enabled=False)
    begin_review(opened, "Esha")
    before = product(opened)
    opened.page.locator("#tree details summary").first.click()
    opened.page.locator("#tree details button").first.click()
    assert product(opened) != before


@pytest.mark.parametrize("width", [DESK, PHONE])
def test_no_page_has_serious_faults_or_overflows_or_complains(
    surf: Callable[..., Opened], served: Served, tmp_path: Path, width: int
) -> None:
    opened = put_into_queue(surf, tmp_path, *(f"Snorg {width} {name}" for name in HOSTILE))
    result = opened.page.url.partition("/review")[0]
    checked = surf("/review", width, bypass_csp=True)  # the page's own policy would refuse axe
    begin_review(checked, f"Fay {width}")
    addresses = [*PAGES, checked.page.locator("header a").last.get_attribute("href")]
    jobs = surf("/upload")
    addresses.append(jobs.page.locator(".jobs a").first.get_attribute("href"))
    for address in dict.fromkeys(addresses):
        checked.page.goto(f"{result}{address}")
        if address == "/":
            checked.page.locator("#names").fill("\n".join(HOSTILE))
            checked.page.locator(".answers li").first.wait_for()
        checked.page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
        faults = serious_faults(checked)
        assert not faults, f"{address}: " + "\n".join(faults)
        assert page_width(checked) == width, address
        assert overflowing(checked) == [], address
    plain = surf("/", width)
    for address in dict.fromkeys(addresses):
        plain.page.goto(f"{result}{address}")
        plain.page.wait_for_load_state("networkidle")
    assert plain.complaints == []
    assert {url.split("/")[2] for url in plain.requests} == {result.removeprefix("http://")}
