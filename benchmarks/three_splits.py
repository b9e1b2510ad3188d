"""SmolLM2-135M, the baseline and their blend on three splits, from names alone and from brand and name, in one table.

    python benchmarks/three_splits.py CATALOGUE --log-probs DIR --out benchmarks/results [--seeds 0 1 2]

The language model was trained and asked on a GPU, by `benchmarks/smollm2_bigbasket.py --splits random grouped brand
--inputs name brand+name --seeds 0 1 2 --save-log-probs DIR`. Here what it said of each validation and test row
(uncalibrated log-probabilities, in half precision) goes through `shelfwise.train` in place of the weights, so that
calibration, thresholds, the baseline, the blend, `shelfwise evaluate` and `shelfwise compare` are the current code on
the very same answers. Each run stands there twice: as one that answers with its blend, and as one that answers with
its model.
Times are left out: nothing is computed here but the baseline, which is fitted once for all seeds of a line.

`accepted_share_98`: of test rows, how many are answered without a second look where 98 of 100 accepted answers are
promised to be right, by thresholds fitted on validation for that promise.
"""

from __future__ import annotations

import argparse
import itertools
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

import _bench
from _answers import kept_baseline, normalised, parser

SPLITS = ("random", "grouped", "brand")
INPUTS = {"name": ("product",), "brand+name": ("brand", "product")}


@dataclass(frozen=True)
class Recorded:
    """A scorer that knows its answers by heart."""

    by_text: dict[str, Any]  # (C,) float32 each

    def log_probs(self, texts: Sequence[str]) -> Any:
        return np.stack([self.by_text[text] for text in texts])


def recorded(path: Path, catalogue: Any) -> Recorded:
    """The answers of one run, by the text that was asked."""
    text_of = {product.id: product.text for product in catalogue.products}
    by_text: dict[str, Any] = {}
    with np.load(path, allow_pickle=False) as stored:
        for part in ("validation", "test"):
            table = normalised(stored[f"{part}_log_probs"])
            by_text |= dict(zip((text_of[i] for i in stored[f"{part}_ids"].tolist()), table, strict=True))
    return Recorded(by_text)


def runs_of(split: str, given: str, seed: int, options: argparse.Namespace) -> tuple[Path, Path, dict[str, Any]]:
    """Run folders of these answers, made by `shelfwise.train` and evaluated: of the blend, and of the model alone.

    And what the blend accepts at a promise of 98 in 100.
    """
    from shelfwise import artifact
    from shelfwise import config as configs
    from shelfwise.baseline import Baseline
    from shelfwise.config import SplitConfig
    from shelfwise.data.catalogue import read_catalogue
    from shelfwise.pipelines import breakdown
    from shelfwise.pipelines import train as pipeline
    from shelfwise.pipelines.evaluate import evaluate
    from shelfwise.pipelines.run import TrainedRun, begin, calibrate
    from shelfwise.pipelines.train import facts, train

    fit_baseline = pipeline._fit_baseline

    def fitted_once(prepared: Any, out: Path) -> Any:
        with mock.patch.object(pipeline, "_fit_baseline", fit_baseline):
            kept = kept_baseline(prepared, split, given, options.work)
        shutil.copytree(kept, out / artifact.BASELINE)
        return calibrate(Baseline.load(out / artifact.BASELINE), prepared)

    config = configs.load(_bench.ROOT / "configs" / "smollm2-135m-full.yaml").model_copy(
        update={
            "catalogue": options.catalogue,
            "text_columns": INPUTS[given],
            "split": SplitConfig(strategy=split, validation_size=0.1),
            "classifier": "blend",
        }
    )
    source = read_catalogue(options.catalogue, config.columns, config.text_columns, labels="required")
    scorer = recorded(options.log_probs / f"full-head-{split}-{given.replace('+', '_')}-{seed}.npz", source)
    both, alone = (options.work / f"smollm2-{split}-{given}-{seed}-{who}" for who in ("blend", "model"))
    for run in (both, alone):
        shutil.rmtree(run, ignore_errors=True)

    def from_the_record(config: Any, prepared: Any, out: Path, **_: Any) -> Any:
        begin(out, config, prepared)
        return TrainedRun(out, config, 0, 0.0, None, None, len(prepared.train)), calibrate(scorer, prepared)

    with (
        mock.patch("shelfwise.pipelines.finetune.finetune", from_the_record),
        mock.patch("shelfwise.classifier._engine", return_value=scorer),
        mock.patch.object(pipeline, "_fit_baseline", fitted_once),
        # Brands left out of the text would be new questions, and there is nobody to ask.
        mock.patch.object(breakdown, "without_brand", lambda panel, plain, *_: (None,) * len(plain)),
    ):
        trained = train(config, both)
        shutil.copytree(both, alone)
        settled = trained.config.model_copy(update={"classifier": "model"})
        artifact.write_text(alone / artifact.CONFIG, configs.dump(settled))
        artifact.write_manifest(alone, facts(replace(trained, config=settled)))
        for run in (both, alone):
            evaluate(run)
        return both, alone, accepted_at(0.98, both, source)


def accepted_at(promise: float, run: Path, catalogue: Any) -> dict[str, Any]:
    """What a run's blend accepts of test, and how much of it is right, at another promise than the usual one."""
    from shelfwise import artifact
    from shelfwise.calibration import Calibration
    from shelfwise.classifier import Classifier
    from shelfwise.data.split import Splits
    from shelfwise.pipelines.run import held_out_together
    from shelfwise.thresholds import Shelves

    classifier = Classifier.load(run, which="blend")
    splits = Splits.load(run / artifact.SPLIT)
    parts = splits.parts(catalogue)
    truth = {name: np.array([classifier.labels.names.index(p.label) for p in rows]) for name, rows in
             (("validation", parts.validation), ("test", parts.test))}  # fmt: skip
    calibration = Calibration.fit(
        classifier.log_probs([p.text for p in parts.validation]), truth["validation"], labels=classifier.labels,
        clusters=held_out_together(parts.validation, splits), promise=promise,
    )  # fmt: skip
    told = calibration.probabilities(classifier.log_probs([p.text for p in parts.test]))
    decided = calibration.decide(told, Shelves.of(classifier.labels))
    sure = decided.level == 0
    name = f"{promise:.2f}".partition(".")[2]
    right = float((told.argmax(1) == truth["test"])[sure].mean()) if sure.any() else 0.0
    return {f"accepted_share_{name}": float(sure.mean()), f"accepted_precision_{name}": right}


def rows_of(both: Path, alone: Path, more: dict[str, Any], split: str, given: str, seed: int) -> list[dict[str, Any]]:
    """What README's table needs of one run's classifiers; of the first seed also those that have none."""
    from shelfwise.pipelines.compare import compare
    from shelfwise.pipelines.evaluation import Evaluation

    found = Evaluation.load(both / "evaluation")
    compared = compare([both, alone])
    of_both, of_model = (
        next(each.title for each in compared.contestants if each.title.startswith(run.name)) for run in (both, alone)
    )
    pairs = {"blend": compared.pair(of_both, "baseline"), "model": compared.pair(of_model, "baseline")}
    gain = compared.pair(of_both, of_model)
    assert gain is not None
    rows = []
    for standing in found.standings:
        if seed and standing.kind in ("majority", "baseline"):
            continue
        row: dict[str, Any] = {"model": standing.name, "split": split, "input": given, "rows": standing.scores.n}
        row |= {"accuracy": standing.scores.accuracy, "macro_f1": standing.scores.macro_f1}
        row |= {"accuracy_low": standing.interval.low, "accuracy_high": standing.interval.high}
        if standing.new_name_accuracy is not None:
            row["accuracy_new_names"] = standing.new_name_accuracy
        if standing.hierarchy is not None:
            row |= {"category_accuracy": standing.category_accuracy, "hierarchical_f1": standing.hierarchy.f1}
        if standing.intervals is not None:
            row |= {"macro_f1_low": standing.intervals.macro_f1.low, "macro_f1_high": standing.intervals.macro_f1.high}
            row |= {"ece": standing.scores.ece, "ece_before": standing.ece_before}
        if standing.decisions is not None:
            held = standing.decisions
            row |= {"promise": held.promise, "accepted_share": held.accepted_share, "verdict": held.verdict}
            if held.accepted:
                row |= {"accepted_precision": held.precision, "accepted_precision_low": held.interval.low}
                row |= {"accepted_precision_high": held.interval.high}
            for above in held.above:
                row |= {f"{above.level}_share": above.accepted_share, f"{above.level}_precision": above.precision}
            verdicts = [each.verdict for each in held.types]
            row |= {"types_kept": verdicts.count("kept"), "types_broken": verdicts.count("broken")}
            row["types_too_few"] = verdicts.count("too few to tell")
        if (pair := pairs.get(standing.kind)) is not None:
            row |= {"seeds": [seed], "train_rows": found.facts.train_rows}
            row |= {"more_than_baseline": pair.accuracy, "more_low": pair.accuracy_interval.low}
            row |= {"more_high": pair.accuracy_interval.high, "mcnemar_p": pair.paired.p_value}
            row |= {"macro_f1_more": pair.macro_f1.value, "macro_f1_more_low": pair.macro_f1.interval.low}
            row |= {"macro_f1_more_high": pair.macro_f1.interval.high, "macro_f1_p": pair.macro_f1.p_value}
        if standing.kind == "blend" and found.blend is not None:
            row |= more | {"weight": found.blend.weight, "validation_accuracy": found.blend.blend.accuracy}
            row |= {"validation_accuracy_model": found.blend.model.accuracy}
            row |= {"validation_accuracy_baseline": found.blend.baseline.accuracy}
            row |= {"more_than_model": gain.accuracy, "more_than_model_low": gain.accuracy_interval.low}
            row |= {"more_than_model_high": gain.accuracy_interval.high, "more_than_model_p": gain.paired.p_value}
        rows.append({key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()})
        _bench.say(rows[-1])
    return rows


def main() -> None:
    words = parser(__doc__, "three_splits")
    words.add_argument("--seeds", type=int, nargs="+", default=[0])
    words.add_argument("--inputs", nargs="+", choices=list(INPUTS), default=list(INPUTS))
    words.add_argument("--splits", nargs="+", choices=SPLITS, default=list(SPLITS))
    options = words.parse_args()
    rows: list[dict[str, Any]] = []
    for split, given, seed in itertools.product(options.splits, options.inputs, options.seeds):
        rows += rows_of(*runs_of(split, given, seed, options), split, given, seed)
        _bench.write(options.name, rows, options.out)


if __name__ == "__main__":
    main()
