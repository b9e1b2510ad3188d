"""How often intervals hold the truth and tests err, on rows drawn from worlds whose true figures are known.

    python benchmarks/intervals.py [--worlds 500] [--large-worlds 200]

The worlds are those of the unit tests (`tests/support/worlds.py`): types as unequal as a catalogue's, of which the
rare ones are harder. "large" has 426 types and 5,511 rows, as BigBasket's test part; what can only be asked of it
with patience is asked less often. Each row of the result is a figure, a method, what the truth is, and the share of
draws in which the interval held it. "mean of such tests" is the mean of the figure over tests of as many rows, "all
products" its value over rows without end.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import _bench

sys.path.insert(0, str(_bench.ROOT / "tests"))

from shelfwise import bootstrap, metrics
from shelfwise.pipelines.robustness import drop_interval
from shelfwise.resampling import Resamples, SumFigures, draws_of
from support.worlds import World, confidences, held

DRAWS = 500
SEED = 20
SIZES = {"small": (25, 400), "medium": (100, 1500), "large": (426, 5511)}  # types, rows


@dataclass
class Tally:
    """Intervals of one method, held against one truth."""

    truth: float
    inside: list[bool] = field(default_factory=list)
    below: int = 0  # intervals that lie wholly below the truth
    widths: list[float] = field(default_factory=list)

    def add(self, low: float, high: float) -> None:
        self.inside.append(held(low, high, self.truth))
        self.below += high < self.truth
        self.widths.append(high - low)

    def row(self) -> dict[str, Any]:
        n, inside = len(self.inside), sum(self.inside)
        return {
            "true_value": round(self.truth, 4),
            "worlds": n,
            "coverage": round(inside / n, 3),
            "too_low": round(self.below / n, 3),
            "too_high": round((n - inside - self.below) / n, 3),
            "mean_width": round(float(np.mean(self.widths)), 4),
        }


def told(rows: list[dict[str, Any]], tallies: dict[tuple[str, str, str], Tally], common: dict[str, Any]) -> None:
    for (figure, method, truth), tally in tallies.items():
        rows.append({"figure": figure, "method": method, "truth": truth, **common, **tally.row()})
        _bench.say(rows[-1])


def percentiles(draws: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(low), float(high)


def ends(interval: metrics.Interval) -> tuple[float, float]:
    return interval.low, interval.high


def shares(rows: list[dict[str, Any]], random: np.random.Generator, worlds: int) -> None:
    """Wilson's interval, for few rows and many."""
    for n in (20, 100, 5511):
        for share in (0.5, 0.8, 0.97):
            tally = Tally(share)
            for right in random.binomial(n, share, worlds * 10):
                tally.add(*ends(metrics.accuracy_interval(int(right), n)))
            told(rows, {("accuracy", "Wilson", "all products"): tally}, {"rows": n})


def labels_in_draws(resamples: Resamples, truth: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """(draws,) how many of the labels that occur among all rows occur in a draw, as a share."""
    present = np.unique(np.concatenate([truth, answers]))
    occurs = ((truth == present[:, None]) | (answers == present[:, None])).astype(np.float32)
    return np.concatenate([(occurs @ (block > 0) > 0).mean(0) for block in resamples.blocks()])


def f1s(rows: list[dict[str, Any]], random: np.random.Generator, size: str, worlds: int) -> None:
    """Intervals of macro and weighted F1: ours and those that were not chosen."""
    labels, n = SIZES[size]
    world = World.zipf(labels, SEED)
    figures = np.array([f1_of(*world.rows(n, random)[:2]) for _ in range(1000)])
    truths = {"mean of such tests": figures.mean(0), "all products": world.f1()}
    tallies: dict[tuple[str, str, str], Tally] = {}
    for _ in range(worlds):
        truth, answers, _ = world.rows(n, random)
        resamples = Resamples.draw(n, DRAWS, seed=int(random.integers(1 << 30)))
        drawn = bootstrap.f1_draws(resamples, truth, answers)
        for at, (figure, value, draws) in enumerate(
            zip(("macro-F1", "weighted F1"), f1_of(truth, answers), drawn, strict=True)
        ):
            low, high = percentiles(draws)
            methods = {
                "recentred percentiles (chosen)": ends(bootstrap.recentred(value, draws)),
                "percentiles": (low, high),
                "basic": (2 * value - high, 2 * value - low),
            }
            if figure == "macro-F1":
                methods["percentiles, labels of all rows"] = percentiles(
                    draws * labels_in_draws(resamples, truth, answers)
                )
            for method, interval in methods.items():
                for name, of in truths.items():
                    tallies.setdefault((figure, method, name), Tally(float(of[at]))).add(*interval)
    told(rows, tallies, {"labels": labels, "rows": n})


def f1_of(truth: np.ndarray, answers: np.ndarray) -> tuple[float, float]:
    """Macro and weighted F1."""
    every = np.ones((len(truth), 1), np.uint8)
    macro, weighted = bootstrap.F1Figures.of(truth, answers).figures(every)[:, 0]
    return float(macro), float(weighted)


def hierarchical(rows: list[dict[str, Any]], random: np.random.Generator, size: str, worlds: int) -> None:
    """Hierarchical F1 in a tree with ten types a shelf; it is the share of nodes that are shared."""
    from shelfwise.hierarchy import overlaps
    from shelfwise.labels import Taxonomy

    labels, n = SIZES[size]
    world = World.zipf(labels, SEED)
    names = [str(label) for label in range(labels)]
    tree = Taxonomy({name: ((f"c{i // 50}", f"s{i // 10}", 1),) for i, name in enumerate(names)})
    true, answered = np.indices((labels, labels)).reshape(2, -1)
    shared = overlaps(true, answered, names, tree).shared.reshape(labels, labels)
    truth = float((world.frequency[:, None] * world.answers[0] * shared).sum() / 3)
    tally = Tally(truth)
    for _ in range(worlds):
        targets, answers, _ = world.rows(n, random)
        of_rows = overlaps(targets, answers, names, tree)
        figures = SumFigures.of(np.full(n, 0.5), targets == answers, of_rows)
        resamples = Resamples.draw(n, DRAWS, seed=int(random.integers(1 << 30)))
        draws = draws_of(resamples, figures)[1]
        tally.add(*ends(bootstrap.recentred(float(of_rows.shared.sum() / (3 * n)), draws)))
    told(
        rows,
        {("hierarchical F1", "recentred percentiles (chosen)", "all products"): tally},
        {"labels": labels, "rows": n},
    )


def calibration(rows: list[dict[str, Any]], random: np.random.Generator, n: int, gap: float, worlds: int) -> None:
    """Intervals of the expected calibration error, whose truth is the gap."""
    tallies = {
        method: Tally(abs(gap)) for method in ("noise taken off twice (chosen)", "percentiles", "basic", "recentred")
    }
    found = []
    for _ in range(worlds):
        confidence, right = confidences(n, gap, random)
        error = metrics.expected_calibration_error(confidence, right)
        figures = SumFigures.of(confidence, right, None)
        draws = draws_of(Resamples.draw(n, DRAWS, seed=int(random.integers(1 << 30))), figures)[0]
        low, high = percentiles(draws)
        tallies["noise taken off twice (chosen)"].add(*ends(bootstrap.without_noise(error, draws)))
        tallies["percentiles"].add(low, high)
        tallies["basic"].add(max(0.0, 2 * error - high), max(0.0, 2 * error - low))
        tallies["recentred"].add(*ends(bootstrap.recentred(error, draws)))
        found.append(error)
    told(
        rows,
        {("ECE", method, "all products"): tally for method, tally in tallies.items()},
        {"rows": n, "mean_figure": round(float(np.mean(found)), 4)},
    )


def pairs(rows: list[dict[str, Any]], random: np.random.Generator, size: str, gain: float, worlds: int) -> None:
    """Two classifiers of which the first is better by `gain` in every type's recall: their intervals and tests."""
    labels, n = SIZES[size]
    world = World.zipf(labels, SEED, gain=gain)
    of_accuracy, of_macro = world.accuracy(0) - world.accuracy(1), world.f1(0)[0] - world.f1(1)[0]
    tallies = {
        ("accuracy difference", "Newcombe", "all products"): Tally(of_accuracy),
        ("macro-F1 difference", "percentiles (chosen)", "all products"): Tally(of_macro),
        ("macro-F1 difference", "recentred", "all products"): Tally(of_macro),
        ("macro-F1 difference", "basic", "all products"): Tally(of_macro),
    }
    of_newcombe, of_percentiles, of_recentred, of_basic = tallies.values()
    p_values: dict[str, list[float]] = {"McNemar mid-p": [], "McNemar exact": [], "paired bootstrap of macro-F1": []}
    for _ in range(worlds):
        truth, first, second = world.rows(n, random)
        right = first == truth, second == truth
        resamples = Resamples.draw(n, DRAWS, seed=int(random.integers(1 << 30)))
        draws = [bootstrap.f1_draws(resamples, truth, answers)[0] for answers in (first, second)]
        found = bootstrap.difference(metrics.macro_f1(truth, first), metrics.macro_f1(truth, second), *draws)
        low, high = ends(found.interval)
        bias = float((draws[0] - draws[1]).mean()) - found.value
        of_newcombe.add(*ends(drop_interval(*right)))
        of_percentiles.add(low, high)
        of_recentred.add(low - bias, high - bias)
        of_basic.add(2 * found.value - high, 2 * found.value - low)
        tested = metrics.mcnemar(*right)
        p_values["McNemar mid-p"].append(tested.p_value)
        p_values["McNemar exact"].append(metrics.sign_test(tested.gains, tested.losses))
        p_values["paired bootstrap of macro-F1"].append(found.p_value)
    told(rows, tallies, {"labels": labels, "rows": n, "gain": gain})
    for test, values in p_values.items():
        rejected = round(float(np.mean(np.array(values) < 0.05)), 3)
        rows.append({"test": test, "labels": labels, "rows": n, "gain": gain, "worlds": worlds, "rejected": rejected})
        _bench.say(rows[-1])


def ask(rows: list[dict[str, Any]], many: int, few: int) -> Iterator[None]:
    """Everything that is asked, a pause after each."""
    random = np.random.default_rng(0)
    shares(rows, random, many)
    yield
    for n in (200, 1000, 5511):
        for gap in (0.0, 0.01, 0.03, 0.1):
            calibration(rows, random, n, gap, few if n == 5511 else many)
            yield
    for size in SIZES:
        worlds = few if size == "large" else many
        f1s(rows, random, size, worlds)
        hierarchical(rows, random, size, worlds)
        for gain in (0.0, 0.03):
            pairs(rows, random, size, gain, worlds)
            yield


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, default=500)
    parser.add_argument("--large-worlds", type=int, default=200)
    parser.add_argument("--out", type=Path, default=_bench.RESULTS)
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for _ in ask(rows, options.worlds, options.large_worlds):
        _bench.write("intervals", rows, options.out)


if __name__ == "__main__":
    main()
