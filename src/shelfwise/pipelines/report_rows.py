"""The lines of the report's larger tables, with what they need of several places brought together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from shelfwise.metrics import TypeScores
from shelfwise.pipelines.details import Details
from shelfwise.pipelines.evaluation import Band, Group, TypePromise
from shelfwise.pipelines.pages import Line

_GROUPS: dict[Group, str] = {
    "names": "Known names and new ones",
    "brand": "Known brands and new ones",
    "frequency": "How often training saw the type",
    "length": "How long the name is",
}


@dataclass(frozen=True, slots=True)
class TypeRow:
    """One line of the per-type table."""

    scores: TypeScores
    category: str
    baseline_f1: float | None
    promise: TypePromise | None  # None where none of its answers was accepted


@dataclass(frozen=True, slots=True)
class BandRow:
    """Some of the products, and how each classifier fares on them."""

    title: str
    n: int  # rows
    bars: tuple[tuple[Line, Band], ...]  # the subject first


@dataclass(frozen=True, slots=True)
class BandGroup:
    """Bands that tell the products apart by one property."""

    title: str
    rows: tuple[BandRow, ...]


def type_rows(details: Details, promises: Sequence[TypePromise]) -> list[TypeRow]:
    """Types that occur among the truth or the answers, most products first."""
    of_type = {promise.label: promise for promise in promises}
    rows = [
        TypeRow(
            scores,
            details.categories[i] or "",
            details.baseline_types[i].f1 if details.baseline_types else None,
            of_type.get(scores.label),
        )
        for i, scores in enumerate(details.types)
        if scores.support or scores.predicted
    ]
    return sorted(rows, key=lambda row: (-row.scores.support, row.scores.label))


def band_groups(lines: Sequence[Line]) -> list[BandGroup]:
    """The bands of the last line, the subject, with those of the other lines beside them."""
    beside = {(line.title, band.group, band.title): band for line in lines for band in line.standing.bands}
    order = [lines[-1], *lines[:-1]]
    groups = []
    for group, title in _GROUPS.items():
        rows = tuple(
            BandRow(
                mine.title,
                mine.n,
                tuple((line, band) for line in order if (band := beside.get((line.title, group, mine.title)))),
            )
            for mine in lines[-1].standing.bands
            if mine.group == group
        )
        if rows:
            groups.append(BandGroup(title, rows))
    return groups
