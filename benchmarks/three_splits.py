"""SmolLM2-135M, the baseline and their blend on three splits, from names alone and from brand and name, in one table.

    python benchmarks/three_splits.py CATALOGUE --log-probs DIR --out benchmarks/results

The language model was trained and asked on a GPU, by `benchmarks/smollm2_bigbasket.py --splits random grouped brand
--inputs name brand+name --save-log-probs DIR`. Here what it said of each validation and test row (uncalibrated
log-probabilities, in half precision) goes through `shelfwise.train` in place of the weights, so that calibration,
thresholds, the baseline, the blend, `shelfwise evaluate` and `shelfwise compare` are the current code on the very same
answers. Each run stands there twice: as one that answers with its blend, and as one that answers with its model.
Times are left out: nothing is computed here but the baseline.
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
            table = stored[f"{part}_log_probs"].astype(np.float32)
            table -= np.log(np.exp(table).sum(1, keepdims=True))  # half precision lost the last digits of the sum
            by_text |= dict(zip((text_of[i] for i in stored[f"{part}_ids"].tolist()), table, strict=True))
    return Recorded(by_text)


def runs_of(split: str, given: str, options: argparse.Namespace) -> tuple[Path, Path]:
    """Run folders of these answers, made by `shelfwise.train` and evaluated: of the blend, and of the model alone."""
    from shelfwise import artifact
    from shelfwise import config as configs
    from shelfwise.config import SplitConfig
    from shelfwise.data.catalogue import read_catalogue
    from shelfwise.pipelines import breakdown
    from shelfwise.pipelines.evaluate import evaluate
    from shelfwise.pipelines.run import TrainedRun, begin, calibrate
    from shelfwise.pipelines.train import facts, train

    config = configs.load(_bench.ROOT / "configs" / "smollm2-135m-full.yaml").model_copy(
        update={
            "catalogue": options.catalogue,
            "text_columns": INPUTS[given],
            "split": SplitConfig(strategy=split, validation_size=0.1),
            "classifier": "blend",
        }
    )
    source = read_catalogue(options.catalogue, config.columns, config.text_columns, labels="required")
    scorer = recorded(options.log_probs / f"full-head-{split}-{given.replace('+', '_')}-0.npz", source)
    both, alone = (options.work / f"smollm2-{split}-{given}-{who}" for who in ("blend", "model"))
    for run in (both, alone):
        shutil.rmtree(run, ignore_errors=True)

    def from_the_record(config: Any, prepared: Any, out: Path, **_: Any) -> Any:
        begin(out, config, prepared)
        return TrainedRun(out, config, 0, 0.0, None, None, len(prepared.train)), calibrate(scorer, prepared)

    with (
        mock.patch("shelfwise.pipelines.finetune.finetune", from_the_record),
        mock.patch("shelfwise.classifier._engine", return_value=scorer),
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
    return both, alone


def rows_of(both: Path, alone: Path, split: str, given: str) -> list[dict[str, Any]]:
    """What README's table needs of one run's classifiers."""
    from shelfwise.pipelines.compare import compare
    from shelfwise.pipelines.evaluation import Evaluation

    found = Evaluation.load(both / "evaluation")
    compared = compare([both, alone])
    pairs = {"blend": compared.pair(both.name, "baseline"), "model": compared.pair(alone.name, "baseline")}
    gain = compared.pair(both.name, alone.name)
    rows = []
    for standing in found.standings:
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
            row |= {"seeds": [0], "train_rows": found.facts.train_rows}
            row |= {"more_than_baseline": pair.accuracy, "more_low": pair.accuracy_interval.low}
            row |= {"more_high": pair.accuracy_interval.high, "mcnemar_p": pair.paired.p_value}
            row |= {"macro_f1_more": pair.macro_f1.value, "macro_f1_more_low": pair.macro_f1.interval.low}
            row |= {"macro_f1_more_high": pair.macro_f1.interval.high, "macro_f1_p": pair.macro_f1.p_value}
        if standing.kind == "blend" and found.blend is not None:
            row |= {"weight": found.blend.weight, "validation_accuracy": found.blend.blend.accuracy}
            row |= {"validation_accuracy_model": found.blend.model.accuracy}
            row |= {"validation_accuracy_baseline": found.blend.baseline.accuracy}
            row |= {"more_than_model": gain.accuracy, "more_than_model_low": gain.accuracy_interval.low}
            row |= {"more_than_model_high": gain.accuracy_interval.high, "more_than_model_p": gain.paired.p_value}
        rows.append({key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()})
        _bench.say(rows[-1])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("catalogue", type=Path)
    parser.add_argument("--log-probs", type=Path, required=True, metavar="DIR")
    parser.add_argument("--out", type=Path, default=_bench.RESULTS)
    parser.add_argument("--work", type=Path, default=Path("runs"))
    parser.add_argument("--splits", nargs="+", choices=SPLITS, default=list(SPLITS))
    parser.add_argument("--name", default="three_splits", help="of the result file")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for split, given in itertools.product(options.splits, INPUTS):
        rows += rows_of(*runs_of(split, given, options), split, given)
        _bench.write(options.name, rows, options.out)


if __name__ == "__main__":
    main()
