"""The pages as people meet them: in Chromium, at a desk, on a phone, on paper, and without JavaScript."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import DESK, PHONE, Opened

pytestmark = pytest.mark.browser
PAGES = ("report", "compare", "side by side", "large")
MAX_BYTES = 5_000_000
A4 = 688  # CSS pixels between margins of 14 mm
Open = Callable[..., Opened]


def overflowing(opened: Opened) -> list[str]:
    """What sticks out on the right, unless it stands in something that scrolls by itself."""
    return opened.page.evaluate(
        """() => [...document.querySelectorAll("body *")].filter((each) => {
            const box = each.getBoundingClientRect();
            return box.width && box.right > document.documentElement.clientWidth + 1 && !each.closest(".scroll");
        }).map((each) => each.outerHTML.slice(0, 200))"""
    )


def serious_faults(opened: Opened) -> list[str]:
    """What axe-core finds against the page, without what it calls minor or moderate."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(opened.page, options={"resultTypes": ["violations"]}).response
    assert "color-contrast" in {rule["id"] for key in ("passes", "violations") for rule in found[key]}  # it did look
    return [
        f"{rule['id']}: {node['html'][:160]} {node['failureSummary']}"
        for rule in found["violations"]
        if rule["impact"] in {"serious", "critical"}
        for node in rule["nodes"][:4]
    ]


def page_width(opened: Opened) -> int:
    return opened.page.evaluate("document.documentElement.scrollWidth")


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize(("width", "media"), [(DESK, "screen"), (PHONE, "screen"), (A4, "print")])
def test_axe_finds_no_serious_fault(pages: dict[str, Path], opened: Open, name: str, width: int, media: str) -> None:
    # The page's own policy would refuse axe, which is injected as a script.
    found = opened(pages[name], width, bypass_csp=True)
    found.page.emulate_media(media=media)
    for fold in found.page.locator("details").all()[:3]:
        fold.evaluate("each => { each.open = true; }")
    faults = serious_faults(found)
    assert not faults, "\n".join(faults)


def test_axe_would_find_pale_text(pages: dict[str, Path], opened: Open) -> None:
    found = opened(pages["report"], bypass_csp=True)
    found.page.add_style_tag(content="footer { color: #ccc !important; }")
    assert any(fault.startswith("color-contrast: <footer") for fault in serious_faults(found))


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("width", [360, PHONE, 768, DESK])
def test_nothing_sticks_out_at_any_width(pages: dict[str, Path], opened: Open, name: str, width: int) -> None:
    found = opened(pages[name], width)
    found.page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    assert page_width(found) == width
    assert overflowing(found) == []


@pytest.mark.parametrize("name", PAGES)
def test_paper_cuts_nothing_off_and_hides_nothing(pages: dict[str, Path], opened: Open, name: str) -> None:
    found = opened(pages[name], A4)
    found.page.emulate_media(media="print")
    assert page_width(found) == A4
    # On paper nothing scrolls, so even what a screen would scroll must fit.
    wide = "() => [...document.querySelectorAll('.scroll')].filter((each) => each.scrollWidth > innerWidth).length"
    assert found.page.evaluate(wide) == 0
    rows = found.page.locator("tbody tr")
    assert rows.count() > 3
    assert {row.evaluate("each => getComputedStyle(each).breakInside") for row in rows.all()[:20]} == {"avoid"}
    assert all(fold.is_visible() for fold in found.page.locator("details > :not(summary)").all())
    assert not any(tools.is_visible() for tools in found.page.locator(".tools, nav").all())
    assert found.page.pdf(prefer_css_page_size=True).startswith(b"%PDF")


@pytest.mark.parametrize("name", PAGES)
def test_a_page_asks_for_nothing_and_obeys_its_own_policy(pages: dict[str, Path], opened: Open, name: str) -> None:
    found = opened(pages[name])
    found.page.mouse.wheel(0, 20_000)
    found.page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    assert found.requests == [pages[name].as_uri()]
    assert found.complaints == []


@pytest.mark.parametrize("name", PAGES)
def test_names_stay_text(pages: dict[str, Path], opened: Open, name: str) -> None:
    found = opened(pages[name])
    assert found.page.locator("img, iframe, object, main script").count() == 0
    assert found.page.locator("script").count() <= 1
    text = found.page.content()
    assert "&lt;script&gt;" in text or name not in {"report", "large"}
    assert found.complaints == []  # no alert


@pytest.mark.parametrize("name", ["report", "large"])
def test_all_types_can_be_sorted_and_filtered(pages: dict[str, Path], opened: Open, name: str) -> None:
    page = opened(pages[name]).page
    names = page.locator("#types tbody tr:not([hidden]) td:first-child")
    before = names.evaluate_all("all => all.map((each) => each.dataset.value)")
    head = page.locator("#types th", has_text="Type").first
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    after = names.evaluate_all("all => all.map((each) => each.dataset.value)")
    assert sorted(after) == sorted(before)
    assert after == page.evaluate("all => [...all].sort((a, b) => a.localeCompare(b))", after)
    products = page.locator("#types th", has_text="Products")
    for direction, reverse in (("descending", True), ("ascending", False)):
        products.locator("button").click()
        assert products.get_attribute("aria-sort") == direction
        counts = page.locator("#types tbody td:nth-child(2)").evaluate_all(
            "all => all.map((each) => +each.dataset.value)"
        )
        assert counts == sorted(counts, reverse=reverse)
    assert head.get_attribute("aria-sort") is None
    page.get_by_role("searchbox").fill("  RICE ")
    shown = names.evaluate_all("all => all.map((each) => each.dataset.value)")
    assert 0 < len(shown) < len(before)
    assert all("rice" in each.lower() for each in shown)
    assert page.locator(".shown").inner_text() == str(len(shown))
    page.get_by_role("searchbox").fill("")
    assert names.count() == len(before)


def test_a_category_of_the_grid_leads_to_its_types(pages: dict[str, Path], opened: Open) -> None:
    page = opened(pages["large"]).page
    inside = page.locator("#category-3")
    assert not inside.is_visible()
    page.locator(".heat a[href='#category-3']").click()
    assert inside.is_visible()
    assert inside.locator("tbody tr").count() == 8
    assert inside.locator("q").count() > 8


@pytest.mark.parametrize("width", [DESK, PHONE])
def test_the_report_is_whole_without_javascript(pages: dict[str, Path], opened: Open, width: int) -> None:
    page = opened(pages["large"], width, java_script_enabled=False).page
    assert page.locator("h1").is_visible()
    for heading in ("Side by side", "What can be accepted", "Where it is strong", "Where it goes wrong"):
        assert page.get_by_role("heading", name=heading).is_visible()
    rows = page.locator("#types tbody tr")
    assert rows.count() >= 426
    assert rows.last.is_visible()
    # What would do nothing isn't there.
    assert not page.locator(".tools").is_visible()
    assert page.locator("#types button").count() == 0
    inside = page.locator("#category-1")
    assert not inside.is_visible()
    page.locator("details.fold summary").first.click()
    assert inside.is_visible()
    assert page.locator("#rows tbody tr").count() == 30
    assert page.locator("pre").inner_text().startswith("shelfwise train")


def test_426_types_fit_into_a_page_that_can_be_mailed(pages: dict[str, Path], opened: Open) -> None:
    assert pages["large"].stat().st_size < MAX_BYTES
    page = opened(pages["large"]).page
    assert page.locator(".heat tbody tr").count() == 12  # 11 categories, and the types that belong to none
    assert page.locator("details.fold").count() == 12
