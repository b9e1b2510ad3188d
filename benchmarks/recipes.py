"""What each way of training SmolLM2-135M is worth on validation, alone and in its blend; test is not looked at.

    python benchmarks/recipes.py CATALOGUE --log-probs DIR --out benchmarks/results

DIR holds what `benchmarks/smollm2_bigbasket.py --save-log-probs DIR --runs RECIPE:SPLIT:INPUT:SEED ...` kept. Each run
is calibrated on its validation rows, and blended there with the linear baseline of the same training rows, as
`shelfwise train` does it. The recipe that ships is the one that does best here.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

import _bench
from _answers import kept_baseline, normalised, parser
from smollm2_bigbasket import INPUTS, RECIPES, Job


def baseline_of(job: Job, options: argparse.Namespace, known: dict[tuple[str, str], Any]) -> tuple[Any, Any]:
    """The data of a line, and the baseline's calibrated answers to its validation rows."""
    from shelfwise.baseline import Baseline
    from shelfwise.config import SplitConfig, TrainConfig
    from shelfwise.data.leakage import Leakage
    from shelfwise.pipelines.run import calibrate, prepare

    if (job.split, job.input) not in known:
        config = TrainConfig(
            catalogue=options.catalogue,
            text_columns=INPUTS[job.input],  # type: ignore[arg-type]
            split=SplitConfig(strategy=job.split),  # type: ignore[arg-type]
            model="baseline",
        )
        with mock.patch("shelfwise.pipelines.run.find_leakage", return_value=Leakage()):
            prepared = prepare(config)
        kept = kept_baseline(prepared, job.split, job.input, options.work)
        known[job.split, job.input] = prepared, calibrate(Baseline.load(kept), prepared)
    return known[job.split, job.input]


def row_of(path: Path, job: Job, prepared: Any, baseline: Any) -> dict[str, Any]:
    from shelfwise.calibration import Calibration
    from shelfwise.metrics import scores
    from shelfwise.pipelines.run import Calibrated, blended, held_out_together, targets_of

    targets = np.asarray(targets_of(prepared.validation, prepared.labels))
    with np.load(path, allow_pickle=False) as stored:
        at = {row: i for i, row in enumerate(stored["validation_ids"].tolist())}
        order = [at[product.id] for product in prepared.validation]
        told = normalised(stored["validation_log_probs"][order])
    clusters = held_out_together(prepared.validation, prepared.splits)
    calibration = Calibration.fit(told, targets, labels=prepared.labels, clusters=clusters)
    both = blended(Calibrated(calibration, calibration.log_probs(told)), baseline, prepared)
    assert both is not None
    blend, _ = both
    alone = scores(calibration.log_probs(told), targets)
    return {
        "recipe": job.recipe, "split": job.split, "input": job.input, "seed": job.seed, "rows": len(targets),
        "accuracy": round(alone.accuracy, 4), "macro_f1": round(alone.macro_f1, 4),
        "mean_nll": round(alone.mean_nll, 4), "weight": round(blend.weight, 3),
        "blend_accuracy": round(blend.blend.accuracy, 4), "blend_mean_nll": round(blend.blend.mean_nll, 4),
        "baseline_accuracy": round(blend.baseline.accuracy, 4),
        "baseline_mean_nll": round(blend.baseline.mean_nll, 4),
    }  # fmt: skip


def main() -> None:
    options = parser(__doc__, "recipes").parse_args()
    rows: list[dict[str, Any]] = []
    known: dict[tuple[str, str], Any] = {}
    for path in sorted(options.log_probs.glob("*.npz")):
        recipe, split, given, seed = path.stem.rsplit("-", 3)
        job = Job(recipe, split, given.replace("_", "+"), int(seed))
        if recipe not in RECIPES or "few" in recipe:
            continue
        rows.append(row_of(path, job, *baseline_of(job, options, known)))
        _bench.say(rows[-1])
    _bench.write(options.name, rows, options.out)


if __name__ == "__main__":
    main()
