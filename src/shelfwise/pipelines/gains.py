"""Where one classifier is better than another: which types and categories it gains, and which it loses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shelfwise.metrics import sign_test

CLEAR = 0.05  # share of the groups that are called clear and are not: the false discovery rate
# With fewer rows that only one of the two gets right, not even the most uneven outcome is below 0.05. Such groups are
# not tested, so they don't dilute the others' (Tarone 1990, "A modified Bonferroni method for discrete data").
FEWEST_APART = 6
SHOWN = 10  # groups each way that are kept although they are not clear


@dataclass(frozen=True, slots=True)
class Gain:
    """Two classifiers on the rows of one type or category."""

    name: str
    category: str | None  # of a type, where it is known
    n: int  # rows whose true type or category it is
    gains: int  # rows that only the first gets right
    losses: int  # rows that only the second gets right
    p_value: float  # exact sign test, two-sided
    adjusted_p_value: float  # for the number of groups tested; 1 where too few rows tell them apart

    @property
    def net(self) -> int:
        """How many more rows the first gets right."""
        return self.gains - self.losses

    @property
    def clear(self) -> bool:
        """Whether the difference is more than chance, among so many groups."""
        return self.adjusted_p_value < CLEAR


@dataclass(frozen=True, slots=True)
class Gains:
    """Groups on which two classifiers differ, most gained first."""

    groups: int  # in all
    tested: int  # with enough rows that only one of the two gets right
    found: tuple[Gain, ...]  # all that are clear, and the first few others each way

    @property
    def better(self) -> tuple[Gain, ...]:
        """Where the first is clearly better, most gained first."""
        return tuple(gain for gain in self.found if gain.clear and gain.net > 0)

    @property
    def worse(self) -> tuple[Gain, ...]:
        """Where the first is clearly worse, most lost first."""
        return tuple(gain for gain in reversed(self.found) if gain.clear and gain.net < 0)


@dataclass(frozen=True, slots=True)
class Grouping:
    """What N rows are grouped by."""

    names: tuple[str, ...]
    categories: tuple[str | None, ...]  # of the names
    of_row: NDArray[np.int64]  # (N,) positions in `names`; -1 for a row of no group

    def gains(self, first: NDArray[np.bool_], second: NDArray[np.bool_]) -> Gains:
        """Test every group.

        Args:
            first: (N,) whether the first classifier is right.
            second: (N,) whether the second is.
        """
        size = len(self.names)
        grouped = self.of_row >= 0
        n, won, lost = (
            np.bincount(self.of_row[grouped & rows], minlength=size).tolist()
            for rows in (grouped, first & ~second, second & ~first)
        )
        p_values = [sign_test(a, b) for a, b in zip(won, lost, strict=True)]
        tested = [i for i in range(size) if won[i] + lost[i] >= FEWEST_APART]
        adjusted = dict(zip(tested, benjamini_hochberg([p_values[i] for i in tested]), strict=True))
        all_groups = [
            Gain(name, self.categories[i], n[i], won[i], lost[i], p_values[i], adjusted.get(i, 1.0))
            for i, name in enumerate(self.names)
        ]
        return Gains(size, len(tested), _told(all_groups))


def _told(groups: Sequence[Gain]) -> tuple[Gain, ...]:
    """The groups worth naming: most gained first, most lost last."""
    apart = sorted((group for group in groups if group.net), key=lambda group: (-group.net, group.name))
    last = len(apart) - SHOWN
    return tuple(
        group
        for i, group in enumerate(apart)
        if group.clear or (i < SHOWN and group.net > 0) or (i >= last and group.net < 0)
    )


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted so that, of all below a level, no larger share than the level is expected to be chance.

    Benjamini and Hochberg 1995, "Controlling the false discovery rate".
    """
    adjusted, least = [1.0] * len(p_values), 1.0
    for rank, i in sorted(enumerate(sorted(range(len(p_values)), key=p_values.__getitem__), 1), reverse=True):
        least = min(least, p_values[i] * len(p_values) / rank)
        adjusted[i] = least
    return adjusted
