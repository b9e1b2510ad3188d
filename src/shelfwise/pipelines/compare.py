"""Runs side by side on the same rows, with the baseline once, and tests of their differences."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shelfwise import artifact, metrics
from shelfwise.bootstrap import Resamples, difference, f1_draws
from shelfwise.errors import InputError
from shelfwise.pipelines import comparison_page
from shelfwise.pipelines.comparison import Comparison, Contestant, Pair
from shelfwise.pipelines.cost import Prices
from shelfwise.pipelines.evaluated_runs import BASELINE, EvaluatedRun, Given, titles
from shelfwise.pipelines.evaluation import Curve, Standing
from shelfwise.pipelines.gains import Grouping
from shelfwise.pipelines.insights import coverage
from shelfwise.pipelines.robustness import drop_interval
from shelfwise.pipelines.worth import worth
from shelfwise.resampling import Draws
from shelfwise.storage import require_new

__all__ = ["Comparison", "Prices", "compare"]


@dataclass(frozen=True, slots=True)
class _Entry:
    """A contestant with its answers and what the bootstrap made of them."""

    contestant: Contestant
    correct: NDArray[np.bool_]  # (N,)
    macro_f1: Draws


def compare(
    runs: Sequence[Path], *, out: Path | None = None, force: bool = False, prices: Prices | None = None
) -> Comparison:
    """Compare evaluated runs.

    Args:
        runs: two or more run folders, or evaluation folders, that were evaluated on the same rows.
        out: an HTML file to write the comparison to, or None. It links to the runs' own reports.
        force: overwrite `out`.
        prices: of an hour of the machines, to reckon what a million products cost; None tells their time alone.

    Raises:
        InputError: fewer than two runs, a run without an evaluation, evaluations of different rows, a price of what
            is not compared, or `out` is there and `force` is not given.
        CorruptArtifactError: an evaluation can't be read.
        StorageError: the disk refused.
    """
    if len(runs) < 2 or len({run.resolve() for run in runs}) < len(runs):
        raise InputError("A comparison needs two different run folders or more.")
    if out is not None:
        _require_page(out, force)
    evaluated = [EvaluatedRun.load(run, title) for run, title in zip(runs, titles(runs), strict=True)]
    for other in evaluated[1:]:
        evaluated[0].require_same_rows(other)
    entries = _entries(evaluated, prices or Prices())
    contestants = tuple(entry.contestant for entry in entries)
    pairs = _pairs(entries, evaluated[0])
    votes = np.sum([entry.correct for entry in entries], axis=0)
    found = Comparison(
        rows=len(evaluated[0].ids),
        majority=evaluated[0].evaluation.standings[0],
        contestants=contestants,
        pairs=pairs,
        all_right=int((votes == len(entries)).sum()),
        none_right=int((votes == 0).sum()),
        notes=_notes(evaluated),
        worth=worth(contestants, pairs),
    )
    if out is not None:
        artifact.write_text(out, comparison_page.render(found, out.parent))
    return found


def _require_page(out: Path, force: bool) -> None:
    if out.is_dir():
        raise InputError(f"{out}: is a folder. Name the HTML file to write.")
    if out.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"{out}: a comparison is written as HTML. End the name with .html.")
    require_new(out, force=force)


@dataclass(frozen=True, slots=True)
class _Named:
    """Whose answers go by a title, and what they are held against."""

    title: str
    of: EvaluatedRun
    given: Given
    standing: Standing
    is_run: bool
    yardstick: str | None  # title of the baseline

    @property
    def priced(self) -> str:
        """What a price is given under."""
        return self.of.name if self.is_run else self.title


def _named(evaluated: Sequence[EvaluatedRun]) -> list[_Named]:
    """Every different baseline once, then the runs, each with the baseline that was fitted on its own rows and columns.

    A run that is itself a baseline stands for those that answer as it does.
    """
    known = [(each.subject, each.title) for each in evaluated if each.evaluation.subject.kind == "baseline"]
    apart: list[EvaluatedRun] = []
    for each in evaluated:
        if each.baseline is not None and _alike(each.baseline, known) is None:
            known.append((each.baseline, each.title))
            apart.append(each)
    names = {each.title: BASELINE if len(apart) == 1 else f"{BASELINE} of {each.name}" for each in apart}
    named = []
    for each in apart:
        standing = each.evaluation.standing("baseline")
        assert standing is not None
        assert each.baseline is not None
        named.append(_Named(names[each.title], each, each.baseline, standing, False, None))
    for each in evaluated:
        yardstick = None
        if each.evaluation.subject.kind != "baseline" and known:
            title = _alike(each.baseline, known) if each.baseline is not None else known[0][1]
            yardstick = names.get(title or "", title)
        named.append(_Named(each.title, each, each.subject, each.evaluation.subject, True, yardstick))
    return named


def _alike(given: Given, known: Sequence[tuple[Given, str]]) -> str | None:
    """The title of the baseline that answers the same."""
    return next((title for other, title in known if np.array_equal(given.types, other.types)), None)


def _entries(evaluated: Sequence[EvaluatedRun], prices: Prices) -> list[_Entry]:
    named = _named(evaluated)
    prices.require_known([*(each.priced for each in named), BASELINE])
    resamples = Resamples.draw(len(evaluated[0].ids))
    return [_entry(each, prices, resamples) for each in named]


def _entry(named: _Named, prices: Prices, resamples: Resamples) -> _Entry:
    of, given, standing = named.of, named.given, named.standing
    correct = of.correct(given)
    curve = Curve(
        standing.kind, named.title, metrics.reliability(given.confidence, correct), coverage(given.confidence, correct)
    )
    contestant = Contestant(
        title=named.title,
        standing=standing,
        facts=of.evaluation.facts,
        folder=of.folder,
        curve=curve,
        is_run=named.is_run,
        cost=prices.cost(named.priced, standing),
        yardstick=named.yardstick,
    )
    position: dict[str, int] = {}
    targets, answers = (
        np.fromiter((position.setdefault(name, len(position)) for name in names), np.int64, len(names))
        for names in (of.truth, given.types)
    )
    return _Entry(contestant, correct, f1_draws(resamples, targets, answers)[0])


def _pairs(entries: Sequence[_Entry], rows: EvaluatedRun) -> tuple[Pair, ...]:
    """Every run against its baseline, then every two runs."""
    by_title = {entry.contestant.title: entry for entry in entries}
    runs = [entry for entry in entries if entry.contestant.is_run]
    couples = [(run, by_title[own]) for run in runs if (own := run.contestant.yardstick) is not None]
    held = [{id(first), id(second)} for first, second in couples]
    couples += [pair for pair in itertools.combinations(runs, 2) if {id(pair[0]), id(pair[1])} not in held]
    types, categories = _groupings(rows)
    return tuple(_pair(first, second, types, categories) for first, second in couples)


def _pair(first: _Entry, second: _Entry, types: Grouping, categories: Grouping | None) -> Pair:
    scores = [entry.contestant.standing.scores for entry in (first, second)]
    return Pair(
        first=first.contestant.title,
        second=second.contestant.title,
        paired=metrics.mcnemar(first.correct, second.correct),
        accuracy=float(first.correct.mean() - second.correct.mean()),
        accuracy_interval=drop_interval(first.correct, second.correct),
        macro_f1=difference(scores[0].macro_f1, scores[1].macro_f1, first.macro_f1, second.macro_f1),
        categories=None if categories is None else categories.gains(first.correct, second.correct),
        types=types.gains(first.correct, second.correct),
    )


def _groupings(rows: EvaluatedRun) -> tuple[Grouping, Grouping | None]:
    """The rows by their true type, and by its category where that is known."""
    types, first_rows, of_row = np.unique(rows.truth, return_index=True, return_inverse=True)
    names = tuple(types.tolist())
    if rows.categories is None:
        return Grouping(names, (None,) * len(names), of_row), None
    above = tuple(rows.categories[first_rows].tolist())
    categories = tuple(sorted({category for category in above if category is not None}))
    position = {category: i for i, category in enumerate(categories)}
    of_type = np.array([-1 if category is None else position[category] for category in above], np.int64)
    by_category = Grouping(categories, (None,) * len(categories), of_type[of_row]) if categories else None
    return Grouping(names, above, of_row), by_category


def _notes(evaluated: Sequence[EvaluatedRun]) -> tuple[str, ...]:
    """What keeps the comparison from being even."""
    notes = []
    read = {each.title: " + ".join(each.evaluation.facts.text_columns) for each in evaluated}
    if len(set(read.values())) > 1:
        told = ", ".join(f"{title}: {columns}" for title, columns in read.items())
        notes.append(f"The runs do not read the same columns ({told}).")
    baselines = [each.baseline.types for each in evaluated if each.baseline is not None]
    if any(not np.array_equal(baselines[0], other) for other in baselines[1:]):
        notes.append(
            "The runs' baselines do not answer alike, so the runs were not trained on the same rows or columns. Each "
            "run is held against its own."
        )
    return tuple(notes)
