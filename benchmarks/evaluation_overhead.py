"""What an evaluation costs beside the predictions that it is made of, part by part.

    python benchmarks/evaluation_overhead.py CATALOGUE [--run RUN] [--repeats 5]

Without --run a baseline is fitted on the random split of the catalogue, whose test part has 5,511 rows on BigBasket:
the fastest classifier there is, and so the hardest yardstick. The seconds are medians; the shares are of the time of
the predictions. What is measured are the functions that `shelfwise.pipelines.evaluate` calls, while it runs whole.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

import _bench

MEASURING = "measuring, all of it"
# Part by the module and the name under which `evaluate` calls it. Of parts within parts the outer is counted too.
PREDICTIONS = "predictions"
PARTS = {
    "reading the catalogue, the split and the run": ("evaluate", "settle"),
    "leakage, as found before training": ("evaluate", "_leakage"),
    "rows and their known names": ("evaluate", "_rows"),
    "loading the classifier": ("evaluate.Classifier", "load"),
    PREDICTIONS: ("evaluate", "answer"),
    "brands left out, asked again": ("breakdown", "without_brand"),
    "bands: names, brands, frequency, length": ("breakdown", "bands"),
    "bootstrap: draws": ("evaluate.Resamples", "draw"),
    "bootstrap: intervals": ("scoring", "intervals_of"),
    "figures, with the intervals": ("evaluate", "standing"),
    "details of the report": ("insights", "details"),
    "files: tables, predictions, picture": ("evaluation_files", "write"),
    "of these, the picture": ("figures", "grid_png"),
    "report page": ("report", "render"),
    "card in the run folder": ("card_results", "add"),
}
# What is asked of 5,511 rows once they are answered: the figures and their intervals, and what is written of them.
AFTER = (
    "bands: names, brands, frequency, length",
    "bootstrap: draws",
    "figures, with the intervals",
    "details of the report",
    "files: tables, predictions, picture",
    "report page",
    "card in the run folder",
)


def timed(part: str, of: Callable[..., Any], spent: dict[str, float]) -> Callable[..., Any]:
    def call(*words: Any, **named: Any) -> Any:
        started = time.perf_counter()
        try:
            return of(*words, **named)
        finally:
            spent[part] = spent.get(part, 0.0) + time.perf_counter() - started

    return call


def measure(run: Path, folder: Path) -> tuple[dict[str, float], int]:
    """Seconds by part of one evaluation, and its rows."""
    import importlib

    from shelfwise.pipelines.evaluate import evaluate

    spent: dict[str, float] = {}
    with ExitStack() as stack:
        for part, (where, name) in PARTS.items():
            module, _, inside = where.partition(".")
            owner = importlib.import_module(f"shelfwise.pipelines.{module}")
            owner = getattr(owner, inside) if inside else owner
            stack.enter_context(mock.patch.object(owner, name, timed(part, getattr(owner, name), spent)))
        started = time.perf_counter()
        found = evaluate(run, out=folder)
        spent["all"] = time.perf_counter() - started
    return spent, found.facts.rows


def fitted(catalogue: Path, folder: Path) -> Path:
    """A baseline on the random split."""
    from shelfwise.config import SplitConfig, TrainConfig
    from shelfwise.pipelines.train import train

    train(TrainConfig(catalogue=catalogue, model="baseline", split=SplitConfig(strategy="random")), folder)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("catalogue", type=Path)
    parser.add_argument("--run", type=Path, help="a run folder that is there")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=_bench.RESULTS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        run = options.run or fitted(options.catalogue, Path(scratch) / "run")
        measure(run, Path(scratch) / "evaluation")  # imports and caches are not what is asked
        found = [measure(run, Path(scratch) / "evaluation") for _ in range(options.repeats)]
    spent = [each for each, _ in found]
    for each in spent:
        each[MEASURING] = sum(each.get(part, 0.0) for part in AFTER)
    predictions = statistics.median(each[PREDICTIONS] for each in spent)
    rows = []
    for part in [*PARTS, MEASURING, "all"]:
        seconds = statistics.median(each.get(part, 0.0) for each in spent)
        share = round(seconds / predictions, 3)
        rows.append(
            {
                "part": part,
                "products": found[0][1],
                "repeats": options.repeats,
                "seconds": round(seconds, 4),
                "of_predictions": share,
            }
        )
        _bench.say(rows[-1])
    _bench.write("evaluation_overhead", rows, options.out)


if __name__ == "__main__":
    main()
