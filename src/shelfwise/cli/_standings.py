"""What `evaluate`, `compare` and `demo` print about classifiers side by side."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import typer

from shelfwise.cli import _shared

if TYPE_CHECKING:
    from rich.table import Table

    from shelfwise.metrics import Interval
    from shelfwise.pipelines.evaluation import Decisions, LeakageNote, Robustness, Standing
    from shelfwise.pipelines.side_by_side_table import Line


def table(standings: Iterable[tuple[str, Standing]]) -> Table:
    """Classifiers as rows, by the names they are to go by; 95% intervals stand under their figures."""
    from rich.table import Table
    from rich.text import Text

    from shelfwise.pipelines.pages import percent

    drawn = Table(box=None, pad_edge=False)
    drawn.add_column("", min_width=10, overflow="fold")  # two lines, as its neighbours have
    for heading in ("right", "top 3", "macro-F1", "accepted", "of these right"):
        drawn.add_column(heading, justify="right", no_wrap=True)
    for name, standing in standings:
        scores = standing.scores
        macro_f1 = standing.intervals and standing.intervals.macro_f1
        drawn.add_row(
            Text(name),  # names are data: square brackets in one are no markup
            f"{percent(scores.accuracy)}\n{_shares(standing.interval)}",
            percent(scores.top3_accuracy),
            f"{scores.macro_f1:.3f}" + (f"\n{macro_f1.low:.3f} to {macro_f1.high:.3f}" if macro_f1 else ""),
            *_accepted(standing.decisions),
        )
    return drawn


def _accepted(decisions: Decisions | None) -> tuple[str, str]:
    """The share that is accepted; how much of it is right, and whether that keeps the promise."""
    from shelfwise.pipelines.pages import percent

    if decisions is None:
        return "", ""
    if not decisions.accepted:
        return "none", ""
    held = f"{percent(decisions.promise, 0)} {decisions.verdict}"
    return (
        f"{percent(decisions.accepted_share)}\n{held}",
        f"{percent(decisions.precision)}\n{_shares(decisions.interval)}",
    )


def _shares(interval: Interval) -> str:
    """An interval of a share."""
    from shelfwise.pipelines.pages import percent

    return f"{100 * interval.low:.1f} to {percent(interval.high)}"


def print_bands(standings: Sequence[Standing]) -> None:
    """How each classifier fares on some of the products: new names, rare types, short names."""
    from rich.table import Table
    from rich.text import Text

    from shelfwise.pipelines.pages import percent

    told = [standing for standing in standings if standing.bands]
    if not told:
        return
    drawn = Table(box=None, pad_edge=False)
    drawn.add_column("products with", overflow="fold")
    drawn.add_column("products", justify="right", no_wrap=True)
    for standing in told:
        drawn.add_column(Text(f"{standing.name} right"), justify="right", overflow="fold")
    for title, n in {band.title: band.n for standing in told for band in standing.bands}.items():
        of = ({band.title: band.accuracy for band in standing.bands}.get(title) for standing in told)
        drawn.add_row(title, f"{n:,}", *("" if accuracy is None else percent(accuracy) for accuracy in of))
    _shared.console().print(drawn)
    typer.echo()


def print_leakage(notes: Sequence[LeakageNote] | None) -> None:
    """What leaks between training and these products, a line each kind; that nothing does; or that none was sought."""
    if notes is None:
        return
    if not notes:
        typer.echo("Leakage: none found.")
    for note in notes:
        typer.echo(f"Leakage{'' if note.serious else ', to be known'}: {note.count:,} {note.title}")


def side_by_side(lines: Sequence[Line]) -> Table:
    """Classifiers of several runs as rows, the smaller figures under the larger ones."""
    from rich.table import Table
    from rich.text import Text

    from shelfwise.pipelines.side_by_side_table import COLUMNS

    drawn = Table(box=None, pad_edge=False)
    for column in COLUMNS:
        drawn.add_column(column.title, justify="right" if column.numeric else "left", overflow="fold")
    for line in lines:
        drawn.add_row(*(Text(f"{column.value(line)}\n{column.below(line)}".rstrip()) for column in COLUMNS))
    return drawn


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
