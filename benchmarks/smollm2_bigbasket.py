"""SmolLM2-135M fine-tuned on BigBasket's reference split, beside the linear baseline on the same rows.

    python benchmarks/smollm2_bigbasket.py CATALOGUE --out benchmarks/results [--seeds 0 1 2] [--only full-head]

Every run goes through `shelfwise.train` and `shelfwise.evaluate` with the recipes in `configs/`. The number of epochs
and the rates are those of the recipes, chosen on validation before; test is looked at once a run.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

import _bench

RECIPES = {
    "full-head": "smollm2-135m-full.yaml",
    "lora-head": "smollm2-135m-lora.yaml",
    "lora-completion": "smollm2-135m-completion.yaml",
}


def row_of(standing: Any, config: Any, seed: int) -> dict[str, Any]:
    """One classifier's figures under the keys that all result files share."""
    is_model = standing.kind == "model"
    decisions = standing.decisions
    return {
        "model": config.model if is_model else standing.name,
        **({"method": config.method, "objective": config.objective} if is_model else {}),
        **({"precision": config.training.precision} if is_model else {}),
        "input": "+".join("name" if column == "product" else column for column in config.text_columns),
        "split": config.split.strategy,
        "seeds": [seed] if is_model else [],
        "accuracy": round(standing.scores.accuracy, 4),
        "accuracy_low": round(standing.interval.low, 4),
        "accuracy_high": round(standing.interval.high, 4),
        "macro_f1": round(standing.scores.macro_f1, 4),
        "ece": round(standing.scores.ece, 4),
        **(
            {
                "promise": decisions.promise,
                "accepted_share": round(decisions.accepted_share, 4),
                "accepted_precision": round(decisions.precision, 4),
            }
            if decisions
            else {}
        ),
        **({"products_per_s": round(standing.scores.n / standing.seconds)} if standing.seconds else {}),
    }


def measure(recipe: str, seed: int, options: argparse.Namespace, *, yardsticks: bool) -> list[dict[str, Any]]:
    from shelfwise import config as configs
    from shelfwise.config import SplitConfig
    from shelfwise.pipelines.evaluate import evaluate
    from shelfwise.pipelines.run import Hooks
    from shelfwise.pipelines.train import train

    config = configs.load(_bench.ROOT / "configs" / RECIPES[recipe])
    training = {"seed": seed, **({"max_steps": options.max_steps} if options.max_steps else {})}
    config = config.model_copy(
        update={
            "catalogue": options.catalogue,
            "model": options.model,
            "baseline": yardsticks,
            "split": SplitConfig(strategy="random", validation_size=options.validation_size),
            "training": config.training.model_copy(update=training),
        }
    )
    run = options.work / f"{recipe}-{seed}"
    shutil.rmtree(run, ignore_errors=True)

    def report(progress: Any) -> None:
        if "eval_accuracy" in progress.values:
            _bench.say(f"  {recipe} seed {seed} step {progress.step}/{progress.steps}", progress.values)

    trained = train(config, run, hooks=Hooks(report=report, note=_bench.say))
    found = evaluate(run)
    rows = []
    for standing in found.standings:
        row = row_of(standing, trained.config, seed)
        if standing.kind == "model":
            row["train_rows"] = trained.train_rows
            row["train_s"] = round(trained.seconds, 1)
            if trained.peak_bytes is not None:
                row["peak_gib"] = round(trained.peak_bytes / 2**30, 2)
        elif not yardsticks:
            continue
        elif standing.kind == "baseline" and trained.baseline_seconds is not None:
            row["train_rows"] = trained.train_rows
            row["train_s"] = round(trained.baseline_seconds, 1)
        rows.append(row)
        _bench.say(row)
    shutil.rmtree(run, ignore_errors=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("catalogue", type=Path)
    parser.add_argument("--out", type=Path, default=_bench.RESULTS)
    parser.add_argument("--work", type=Path, default=Path("runs"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--only", nargs="+", choices=list(RECIPES), default=list(RECIPES))
    parser.add_argument("--model", default="smollm2-135m", help="another base model, to try the script at tiny size")
    parser.add_argument("--max-steps", type=int)
    parser.add_argument(
        "--validation-size", type=float, default=0.1, help="0 trains on all 22,044 rows, as published figures do"
    )
    parser.add_argument("--name", default="smollm2_bigbasket", help="of the result file")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for seed in options.seeds:
        for recipe in options.only:
            rows += measure(recipe, seed, options, yardsticks=not rows)
            _bench.write(options.name, rows, options.out)


if __name__ == "__main__":
    main()
