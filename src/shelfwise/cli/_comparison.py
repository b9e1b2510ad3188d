"""What `compare` and `demo` print about classifiers on the same rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from shelfwise.cli import _shared, _standings

if TYPE_CHECKING:
    from shelfwise.metrics import Interval
    from shelfwise.pipelines.comparison import Comparison, Contestant, Pair


def print_comparison(found: Comparison) -> None:
    """The table, the tests, what a million products cost, whether the model is worth it, and what to mind."""
    facts = found.contestants[0].facts
    typer.echo(f"{found.rows:,} {'held-out products' if facts.part == 'test' else 'products'} of {facts.catalogue}")
    typer.echo()
    lines = [(found.majority.name, found.majority), *((each.title, each.standing) for each in found.contestants)]
    _shared.console().print(_standings.table(lines))
    typer.echo()
    for pair in found.pairs:
        _print_pair(pair)
    _print_costs(found.contestants)
    if found.worth is not None:
        verdict = found.worth.verdict
        typer.echo()
        typer.echo(f"{verdict.title} {verdict.text}")
        typer.echo(f"{found.worth.macro_f1} {found.worth.where}")
    for note in found.notes:
        typer.echo(f"Mind: {note}")


def _print_pair(pair: Pair) -> None:
    from shelfwise.pipelines.pages import SIGNIFICANT, p_value

    paired, macro_f1 = pair.paired, pair.macro_f1
    typer.echo(
        f"{pair.first} against {pair.second}: {paired.gains:,} only the first gets right, {paired.losses:,} only the "
        f"second; {_sense(paired.p_value < SIGNIFICANT)} ({p_value(paired.p_value)})"
    )
    typer.echo(
        f"  accuracy {100 * pair.accuracy:+.1f} points ({_ends(pair.accuracy_interval, 100, 1)}); macro-F1 "
        f"{macro_f1.value:+.3f} ({_ends(macro_f1.interval, 1, 3)}), {_sense(macro_f1.p_value < SIGNIFICANT)} "
        f"({p_value(macro_f1.p_value)})"
    )


def _sense(real: bool) -> str:
    return "more than chance" if real else "chance explains it"


def _ends(interval: Interval, scale: float, digits: int) -> str:
    return f"{scale * interval.low:+.{digits}f} to {scale * interval.high:+.{digits}f}"


def _print_costs(contestants: Sequence[Contestant]) -> None:
    from rich.table import Table
    from rich.text import Text

    from shelfwise.pipelines.cost import hours, money

    costs = [(each.title, each.cost) for each in contestants if each.cost]
    if not costs:
        return
    priced = any(cost.price_per_hour is not None for _, cost in costs)
    drawn = Table(box=None, pad_edge=False)
    drawn.add_column("a million products", min_width=18, overflow="fold")
    for heading in ("time", "an hour", "cost") if priced else ("time",):
        drawn.add_column(heading, justify="right", no_wrap=True)
    for title, cost in costs:
        prices = ["" if each is None else money(each) for each in (cost.price_per_hour, cost.money_per_million)]
        drawn.add_row(Text(title), hours(cost.hours_per_million), *(prices if priced else ()))
    typer.echo()
    _shared.console().print(drawn)
