"""What a comparison of runs found: the types behind `shelfwise compare --json` and its page."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from shelfwise.bootstrap import Difference
from shelfwise.metrics import Interval, Paired
from shelfwise.pipelines import report
from shelfwise.pipelines.cost import Cost
from shelfwise.pipelines.evaluation import Curve, Facts, Standing
from shelfwise.pipelines.gains import Gains


@dataclass(frozen=True, slots=True)
class Contestant:
    """One classifier among those compared."""

    title: str  # unique: the run folder's name, "baseline", or "baseline of NAME" where the runs' baselines differ
    standing: Standing
    facts: Facts  # of the evaluation that its answers come from
    folder: Path  # of that evaluation
    curve: Curve
    is_run: bool  # one of the runs that were named, not the baseline beside them
    cost: Cost | None  # None where its time is not known
    yardstick: str | None = None  # title of the baseline that a run is held against


@dataclass(frozen=True, slots=True)
class Pair:
    """Two classifiers on the same rows, and how sure it is that they differ."""

    first: str
    second: str
    paired: Paired  # gains: rows that only the first gets right
    accuracy: float  # how much higher the first's is
    accuracy_interval: Interval
    macro_f1: Difference  # how much higher the first's is
    categories: Gains | None  # None where the rows' categories are not known
    types: Gains


@dataclass(frozen=True, slots=True)
class Worth:
    """Whether the best language model is worth it here, and where."""

    run: str  # the best language model, alone or in a blend
    verdict: report.Verdict  # overall, by McNemar's test
    macro_f1: str  # what macro-F1 says of it, in a sentence
    where: str  # the categories and types that it gains or loses, in a sentence or two
    cost: str  # of a million products; empty where the times are not known


@dataclass(frozen=True, slots=True)
class Comparison:
    """Runs side by side on the same rows."""

    rows: int
    majority: Standing
    contestants: tuple[Contestant, ...]  # the baselines first, if there are any, then the runs as they were named
    pairs: tuple[Pair, ...]  # every run with its baseline, then the runs with each other
    all_right: int  # rows that every contestant gets right
    none_right: int  # rows that none does
    notes: tuple[str, ...]  # what keeps the comparison from being even
    worth: Worth | None  # None without a language model among the runs, or without a baseline

    @property
    def runs(self) -> tuple[Contestant, ...]:
        """The runs that were named."""
        return tuple(contestant for contestant in self.contestants if contestant.is_run)

    def against_baseline(self, run: Contestant) -> Pair | None:
        """A run and the baseline that it is held against; None without one."""
        return self.pair(run.title, run.yardstick) if run.yardstick is not None else None

    def pair(self, first: str, second: str) -> Pair | None:
        """These two, if they were compared in this order."""
        return next((pair for pair in self.pairs if (pair.first, pair.second) == (first, second)), None)

    def to_json(self) -> dict[str, object]:
        """The comparison as one JSON document, without curves and folders."""
        return {
            "rows": self.rows,
            "fingerprint": self.contestants[0].facts.fingerprint,
            "majority": asdict(self.majority),
            "contestants": [
                {
                    "title": each.title,
                    "baseline": each.yardstick,
                    **asdict(each.standing),
                    "cost": each.cost and asdict(each.cost),
                }
                for each in self.contestants
            ],
            "pairs": [_pair(pair) for pair in self.pairs],
            "all_right": self.all_right,
            "none_right": self.none_right,
            "notes": list(self.notes),
            "worth": self.worth and asdict(self.worth),
        }


def _pair(pair: Pair) -> dict[str, object]:
    """With McNemar's counts beside the rest, where they were before there was more than accuracy."""
    fields = asdict(pair)
    return {"first": pair.first, "second": pair.second, **fields.pop("paired"), **fields}
