"""What a comparison of runs found: the types behind `shelfwise compare --json` and its page."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from shelfwise.metrics import Paired
from shelfwise.pipelines.evaluation import Curve, Facts, Standing


@dataclass(frozen=True, slots=True)
class Contestant:
    """One classifier among those compared."""

    title: str  # unique: the run folder's name, or "baseline"
    standing: Standing
    facts: Facts  # of the evaluation that its answers come from
    folder: Path  # of that evaluation
    curve: Curve
    is_run: bool  # one of the runs that were named, not the baseline beside them


@dataclass(frozen=True, slots=True)
class Pair:
    """Two classifiers, and the test of their difference in accuracy."""

    first: str
    second: str
    paired: Paired  # gains: rows that only the first gets right


@dataclass(frozen=True, slots=True)
class Comparison:
    """Runs side by side on the same rows."""

    rows: int
    majority: Standing
    contestants: tuple[Contestant, ...]  # the baseline first, if there is one, then the runs as they were named
    pairs: tuple[Pair, ...]  # every run with the baseline, then the runs with each other
    all_right: int  # rows that every contestant gets right
    none_right: int  # rows that none does
    notes: tuple[str, ...]  # what keeps the comparison from being even

    @property
    def runs(self) -> tuple[Contestant, ...]:
        """The runs that were named."""
        return tuple(contestant for contestant in self.contestants if contestant.is_run)

    @property
    def baseline(self) -> Contestant | None:
        """The baseline: the one beside the runs, or a run that is one."""
        return next((each for each in self.contestants if each.standing.kind == "baseline"), None)

    def pair(self, first: str, second: str) -> Paired | None:
        """The test of these two, if it was made in this order."""
        return next((pair.paired for pair in self.pairs if (pair.first, pair.second) == (first, second)), None)

    def to_json(self) -> dict[str, object]:
        """The comparison as one JSON document, without curves and folders."""
        return {
            "rows": self.rows,
            "fingerprint": self.contestants[0].facts.fingerprint,
            "majority": asdict(self.majority),
            "contestants": [{"title": each.title, **asdict(each.standing)} for each in self.contestants],
            "pairs": [{"first": pair.first, "second": pair.second, **asdict(pair.paired)} for pair in self.pairs],
            "all_right": self.all_right,
            "none_right": self.none_right,
            "notes": list(self.notes),
        }
