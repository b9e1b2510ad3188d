"""A real Chromium, and the pages that it opens. Without it, these tests are skipped and say why."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from shelfwise.pipelines import report, side_by_side, side_by_side_table
from shelfwise.pipelines.compare import compare
from shelfwise.pipelines.evaluate import evaluate
from support.evaluations import NASTY, answering, lay_out, rows, write_catalogue
from support.large import large

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

NAMES = ("chromium", "chromium-browser", "google-chrome")
DEMANDED = os.environ.get("SHELFWISE_DEMAND_BROWSER") == "1"
DESK, PHONE = 1280, 390


@dataclass
class Opened:
    """A page, and what it did while it was open."""

    page: Page
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)  # console messages, errors and dialogs


def _without(reason: str) -> None:
    if DEMANDED:
        pytest.fail(f"SHELFWISE_DEMAND_BROWSER is set, and {reason}")
    pytest.skip(reason)


# Not for the whole session: while it is open, an event loop of Playwright's runs in this thread, and no other may.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = os.environ.get("SHELFWISE_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if path is None or not Path(path).is_file():
        _without("there is no Chromium: install it, or set SHELFWISE_CHROMIUM to its path")
    try:
        import axe_playwright_python  # noqa: F401
        from playwright.sync_api import sync_playwright
    except ImportError as error:
        _without(f"{error.name} is not installed: pip install 'shelfwise[browser]'")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path)
        yield chromium
        chromium.close()


@pytest.fixture
def opened(browser: Browser) -> Iterator[Callable[..., Opened]]:
    """Opens a file at a width, in a context of its own; other arguments are those of Playwright's `new_context`."""
    contexts = []

    def open_(path: Path, width: int = DESK, **options: object) -> Opened:
        context = browser.new_context(viewport={"width": width, "height": 900}, **options)
        contexts.append(context)
        found = Opened(context.new_page())
        found.page.on("request", lambda request: found.requests.append(request.url))
        found.page.on("console", lambda message: found.complaints.append(message.text))
        found.page.on("pageerror", lambda error: found.complaints.append(str(error)))
        found.page.on("dialog", lambda dialog: (found.complaints.append(dialog.message), dialog.dismiss()))
        found.page.goto(path.as_uri())
        return found

    yield open_
    for context in contexts:
        context.close()


@pytest.fixture(scope="module")
def pages(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:  # none without a browser
    """A small report with hostile names, two pages that set its run beside another, and a report of 426 types."""
    folder = tmp_path_factory.mktemp("pages")
    hostile = [
        (f"{NASTY} {i}" if label == "Soap & Bars" else name, f"{category} <b>&", shelf, brand, label)
        for i, (name, category, shelf, brand, label) in enumerate(rows())
    ]
    catalogue = write_catalogue(folder / "products.csv", hostile)
    runs = [lay_out(folder / f"run-{model}", catalogue, model=model) for model in ("tiny-llama", "tiny-falcon")]
    found = []
    for run, but in zip(runs, ("", "Amber"), strict=True):
        with answering(but=but):
            found.append(evaluate(run, date="2025-11-24", perturb=True))
    compare(runs, out=folder / "compare.html")
    side_by_side_table.write(side_by_side.lines(found), folder / "side-by-side.html")
    (folder / "large.html").write_text(report.render(*large(folder)), encoding="utf-8")
    return {
        "report": runs[0] / "evaluation" / "report.html",
        "compare": folder / "compare.html",
        "side by side": folder / "side-by-side.html",
        "large": folder / "large.html",
    }
