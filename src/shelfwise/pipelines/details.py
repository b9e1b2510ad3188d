"""What a report's page shows beyond the numbers of `evaluation`: pairs, pictures and single rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from shelfwise.metrics import TypeScores
from shelfwise.pipelines.evaluation import Curve


@dataclass(frozen=True, slots=True)
class Confusion:
    """Rows of one type that were taken for another."""

    true: str
    predicted: str
    count: int
    support: int  # rows of the true type
    examples: tuple[str, ...]  # product names


@dataclass(frozen=True, slots=True)
class CategoryMistakes:
    """What goes wrong among the rows of one category."""

    category: str
    support: int  # rows
    wrong: int  # of them, answered with another type
    elsewhere: int  # of the wrong, answered with a type of another category
    confusions: tuple[Confusion, ...]  # the first few, most frequent first


@dataclass(frozen=True, slots=True)
class Doubt:
    """One row that a person should look at."""

    name: str
    source: str  # "catalogue.csv:1042"
    given: str  # the type that the catalogue says
    answered: str
    confidence: float  # in the answer
    of_given: float  # probability of the given type; 0 where the run does not know it

    @property
    def margin(self) -> float:
        """How much surer the answer is than the given type; in (0, 1] where they differ."""
        return self.confidence - self.of_given


@dataclass(frozen=True, slots=True)
class Grid:
    """A confusion matrix small enough to look at."""

    level: Literal["category", "type"]
    names: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]  # rows are the truth, columns the answers


@dataclass(frozen=True, slots=True)
class Details:
    """All of it about the subject unless it says otherwise."""

    types: tuple[TypeScores, ...]
    categories: tuple[str | None, ...]  # of `types`, in their order
    baseline_types: tuple[TypeScores, ...] | None  # the baseline's, in the same order; None where it is the subject
    confusions: tuple[Confusion, ...]  # most frequent first
    by_category: tuple[CategoryMistakes, ...]  # in the order of `grid`, those with mistakes; empty without a taxonomy
    grid: Grid
    curves: tuple[Curve, ...]
    suspects: tuple[Doubt, ...]  # probable mistakes of the catalogue, the most probable first
    unsure: tuple[Doubt, ...]  # the least sure answers first
