"""What `evaluate`, `compare` and `demo` print about classifiers side by side."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import typer

from shelfwise.cli import _shared

if TYPE_CHECKING:
    from rich.table import Table

    from shelfwise.pipelines.comparison import Comparison
    from shelfwise.pipelines.evaluation import Standing


def table(standings: Iterable[tuple[str, Standing]]) -> Table:
    """Classifiers as rows, by the names they are to go by."""
    from rich.table import Table
    from rich.text import Text

    from shelfwise.pipelines.pages import percent

    drawn = Table(box=None, pad_edge=False)
    for heading in ("", "right", "95% interval", "top 3", "macro-F1", "weighted F1", "accepted", "of those right"):
        drawn.add_column(heading, justify="right" if heading else "left", overflow="fold")
    for name, standing in standings:
        scores, decisions = standing.scores, standing.decisions
        drawn.add_row(
            Text(name),  # names are data: square brackets in one are no markup
            percent(scores.accuracy),
            f"{percent(standing.interval.low)} to {percent(standing.interval.high)}",
            percent(scores.top3_accuracy),
            f"{scores.macro_f1:.3f}",
            f"{scores.weighted_f1:.3f}",
            percent(decisions.accepted_share) if decisions else "",
            percent(decisions.precision) if decisions and decisions.accepted else "",
        )
    return drawn


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
