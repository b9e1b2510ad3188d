"""The comparison as a page: the finding first, then the table, the tests and the way to each run's own report."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from shelfwise.metrics import Paired
from shelfwise.pipelines import cost, pages
from shelfwise.pipelines.comparison import Comparison, Contestant, Pair
from shelfwise.pipelines.evaluation import REPORT_HTML, Standing
from shelfwise.pipelines.gains import FEWEST_APART
from shelfwise.pipelines.pages import SIGNIFICANT, Line
from shelfwise.resampling import draws_for


@dataclass(frozen=True, slots=True)
class Card:
    """One run's summary and the way to its report."""

    line: Line
    contestant: Contestant
    against_baseline: Paired | None
    link: str  # relative to the page


def render(comparison: Comparison, folder: Path) -> str:
    """The page as one HTML document.

    Args:
        comparison: what was found.
        folder: where the page will stand; links to the runs' reports are relative to it.
    """
    lines = _lines(comparison)
    by_title = {line.title: line for line in lines}
    return pages.render(
        "compare.html",
        comparison=comparison,
        facts=comparison.contestants[0].facts,
        headline=headline(comparison),
        lines=lines,
        curve_lines=[line for line in lines if line.curve],
        floor=pages.chart_floor(lines),
        promise=max((d.promise for line in lines if (d := line.standing.decisions)), default=0.0),
        cards=[
            Card(by_title[run.title], run, _against_baseline(comparison, run), _link(run.folder, folder))
            for run in comparison.runs
        ],
        significant=SIGNIFICANT,
        opened=_opened(comparison),
        draws=draws_for(comparison.rows),
        fewest_apart=FEWEST_APART,
        costs=[each for each in comparison.contestants if each.cost],
        priced=any(each.cost and each.cost.price_per_hour is not None for each in comparison.contestants),
        hours=cost.hours,
        money=cost.money,
    )


def _lines(comparison: Comparison) -> list[Line]:
    majority: Standing = comparison.majority
    lines = [Line(majority.name, "var(--c-majority)", majority, None)]
    runs = 0
    for each in comparison.contestants:
        if each.standing.kind == "baseline":
            color = "var(--c-baseline)"
        else:
            color, runs = f"var(--c-{runs % pages.RUN_COLORS})", runs + 1
        lines.append(Line(each.title, color, each.standing, each.curve))
    return lines


def _link(evaluation: Path, folder: Path) -> str:
    relative = os.path.relpath((evaluation / REPORT_HTML).resolve(), folder.resolve())
    return quote(Path(relative).as_posix())


def _against_baseline(comparison: Comparison, run: Contestant) -> Paired | None:
    pair = comparison.against_baseline(run)
    return pair.paired if pair else None


def _opened(comparison: Comparison) -> Pair:
    """The pair whose gains are shown at once: that of the verdict, else the first."""
    if comparison.worth is not None:
        best = next(run for run in comparison.runs if run.title == comparison.worth.run)
        return comparison.against_baseline(best) or comparison.pairs[0]
    return comparison.pairs[0]


def headline(comparison: Comparison) -> str:
    """The finding in one sentence, best run first."""
    ranked = sorted(comparison.contestants, key=lambda each: -each.standing.scores.accuracy)
    shares = dict(
        zip(
            [each.title for each in ranked],
            pages.of_100(each.standing.scores.accuracy for each in ranked),
            strict=True,
        )
    )
    runs = [each for each in ranked if each.is_run]
    others = [f"{each.title} {shares[each.title]}" for each in runs[1:]]
    others += [f"the {each.title} {shares[each.title]}" for each in ranked if not each.is_run]
    return f"{runs[0].title} gets {shares[runs[0].title]} of 100 products right, {', '.join(others)}."
