"""What `evaluate`, `compare` and `demo` print about classifiers side by side."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import typer

from shelfwise.cli import _shared

if TYPE_CHECKING:
    from rich.table import Table

    from shelfwise.pipelines.comparison import Comparison
    from shelfwise.pipelines.evaluation import Decisions, Robustness, Standing


def table(standings: Iterable[tuple[str, Standing]]) -> Table:
    """Classifiers as rows, by the names they are to go by."""
    from rich.table import Table
    from rich.text import Text

    from shelfwise.pipelines.pages import percent

    drawn = Table(box=None, pad_edge=False)
    drawn.add_column("", min_width=18, overflow="fold")
    for heading in ("right", "95% interval", "top 3", "macro-F1", "accepted: right"):
        drawn.add_column(heading, justify="right", no_wrap=True)
    for name, standing in standings:
        scores, decisions = standing.scores, standing.decisions
        drawn.add_row(
            Text(name),  # names are data: square brackets in one are no markup
            percent(scores.accuracy),
            f"{100 * standing.interval.low:.1f} to {percent(standing.interval.high)}",
            percent(scores.top3_accuracy),
            f"{scores.macro_f1:.3f}",
            _accepted(decisions) if decisions else "",
        )
    return drawn


def _accepted(decisions: Decisions) -> str:
    """The share that is accepted, and how much of it is right."""
    from shelfwise.pipelines.pages import percent

    if not decisions.accepted:
        return "none"
    return f"{percent(decisions.accepted_share, 0)}: {percent(decisions.precision)}"


def print_robustness(tests: Sequence[Robustness]) -> None:
    """What each kind of perturbation costs each classifier, and the types that it costs most."""
    if not tests:
        return
    from rich.table import Table
    from rich.text import Text

    from shelfwise.pipelines.robustness import TITLES

    drawn = Table(box=None, pad_edge=False)
    drawn.add_column("names written otherwise", overflow="fold")
    drawn.add_column("products", justify="right", no_wrap=True)
    for test in tests:
        drawn.add_column(Text(f"{test.name} loses"), justify="right", overflow="fold")
    for drops in zip(*(test.drops for test in tests), strict=True):
        points = (f"{100 * d.drop:.1f} ({100 * d.interval.low:.1f} to {100 * d.interval.high:.1f})" for d in drops)
        drawn.add_row(TITLES[drops[0].perturbation], f"{drops[0].n:,}", *points)
    _shared.console().print(drawn)
    typer.echo("Losses are points of accuracy, with 95% intervals, on the products that the change applies to.")
    for test in tests:
        if test.worst_types:
            worst = "; ".join(f"{t.label} ({100 * (t.before - t.after):.0f})" for t in test.worst_types)
            typer.echo(f"{test.name} loses most points in: {worst}")
    typer.echo()


def print_comparison(found: Comparison) -> None:
    """The table, the tests, and what keeps them from being even."""
    from shelfwise.pipelines.pages import SIGNIFICANT, p_value

    facts = found.contestants[0].facts
    typer.echo(f"{found.rows:,} {'held-out products' if facts.part == 'test' else 'products'} of {facts.catalogue}")
    typer.echo()
    lines = [(found.majority.name, found.majority), *((each.title, each.standing) for each in found.contestants)]
    _shared.console().print(table(lines))
    typer.echo()
    for pair in found.pairs:
        paired = pair.paired
        sense = "more than chance" if paired.p_value < SIGNIFICANT else "chance explains it"
        typer.echo(
            f"{pair.first} against {pair.second}: {paired.gains:,} only the first gets right, "
            f"{paired.losses:,} only the second; {sense} ({p_value(paired.p_value)})"
        )
    for note in found.notes:
        typer.echo(f"Mind: {note}")
