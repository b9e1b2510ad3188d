"""SmolLM2-135M fine-tuned on BigBasket, beside the linear baseline on the same rows.

    python benchmarks/smollm2_bigbasket.py CATALOGUE --out benchmarks/results [--seeds 0 1 2] [--only full-head]
        [--splits random grouped brand] [--inputs name brand+name] [--jobs 4]

Every run goes through `shelfwise.train` and `shelfwise.evaluate` with the recipes in `configs/`. The number of epochs
and the rates are those of the recipes, chosen on validation before; test is looked at once a run.

With `--jobs`, so many runs share each GPU; their times would say nothing and are left out.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import Queue
from typing import Any

import _bench

RECIPES = {
    "full-head": "smollm2-135m-full.yaml",
    "lora-head": "smollm2-135m-lora.yaml",
    "lora-completion": "smollm2-135m-completion.yaml",
    "baseline": None,
}
INPUTS = {"name": ("product",), "brand+name": ("brand", "product")}
TIMES = ("train_s", "peak_gib", "products_per_s")


@dataclass(frozen=True)
class Job:
    """One run."""

    recipe: str
    split: str
    input: str
    seed: int

    @property
    def title(self) -> str:
        return f"{self.recipe}-{self.split}-{self.input}-{self.seed}"

    def words(self) -> list[str]:
        """The command line that makes it alone."""
        return ["--only", self.recipe, "--splits", self.split, "--inputs", self.input, "--seeds", str(self.seed)]


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
                "accepted_precision_low": round(decisions.interval.low, 4),
                "accepted_precision_high": round(decisions.interval.high, 4),
            }
            if decisions
            else {}
        ),
        **({"products_per_s": round(standing.scores.n / standing.seconds)} if standing.seconds else {}),
    }


def configured(job: Job, options: argparse.Namespace, *, yardsticks: bool) -> Any:
    """The recipe's configuration, on this job's split, columns and seed."""
    from shelfwise import config as configs
    from shelfwise.config import SplitConfig, TrainConfig

    recipe = RECIPES[job.recipe]
    config = configs.load(_bench.ROOT / "configs" / recipe) if recipe else TrainConfig(model="baseline")
    training = {"seed": job.seed, **({"max_steps": options.max_steps} if options.max_steps else {})}
    return config.model_copy(
        update={
            "catalogue": options.catalogue,
            "model": options.model if recipe else "baseline",
            "baseline": yardsticks,
            "text_columns": INPUTS[job.input],
            "split": SplitConfig(strategy=job.split, validation_size=options.validation_size),
            "training": config.training.model_copy(update=training),
        }
    )


def measure(job: Job, options: argparse.Namespace, *, yardsticks: bool) -> list[dict[str, Any]]:
    from shelfwise.pipelines.evaluate import evaluate
    from shelfwise.pipelines.run import Hooks
    from shelfwise.pipelines.train import train

    run = options.work / job.title
    shutil.rmtree(run, ignore_errors=True)

    def report(progress: Any) -> None:
        if "eval_accuracy" in progress.values:
            _bench.say(f"  {job.title} step {progress.step}/{progress.steps}", progress.values)

    config = configured(job, options, yardsticks=yardsticks)
    trained = train(config, run, hooks=Hooks(report=report, note=_bench.say))
    found = evaluate(run)
    rows = []
    for standing in found.standings:
        row = row_of(standing, trained.config, job.seed)
        row["train_rows"] = trained.train_rows
        if standing.kind == "model":
            row["train_s"] = round(trained.seconds, 1)
            if trained.peak_bytes is not None:
                row["peak_gib"] = round(trained.peak_bytes / 2**30, 2)
        elif not yardsticks and job.recipe != "baseline":
            continue
        elif standing.kind == "baseline" and trained.baseline_seconds is not None:
            row["train_s"] = round(trained.baseline_seconds, 1)
        rows.append(row)
        _bench.say(row)
    if options.save_log_probs is not None:
        save_log_probs(run, options.save_log_probs / f"{job.title}.npz")
    if not options.keep_runs:
        shutil.rmtree(run, ignore_errors=True)
    return rows


def save_log_probs(run: Path, path: Path) -> None:
    """What the run says of its validation and test rows, uncalibrated, by row id: to try calibrations on."""
    import numpy as np

    from shelfwise import artifact
    from shelfwise import config as configs
    from shelfwise.classifier import Classifier
    from shelfwise.data.catalogue import read_catalogue
    from shelfwise.data.split import Splits

    config = configs.load(run / artifact.CONFIG)
    source = read_catalogue(config.catalogue, config.columns, config.text_columns, labels="required")
    parts = Splits.load(run / artifact.SPLIT).parts(source)
    classifier = Classifier.load(run, which="model")
    arrays: dict[str, Any] = {}
    for name, products in (("validation", parts.validation), ("test", parts.test)):
        arrays[f"{name}_ids"] = np.array([product.id for product in products])
        arrays[f"{name}_targets"] = np.array([classifier.labels.names.index(p.label) for p in products])
        arrays[f"{name}_log_probs"] = classifier.log_probs([p.text for p in products]).astype(np.float16)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **arrays)


def side_by_side(jobs: list[Job], options: argparse.Namespace) -> list[dict[str, Any]]:
    """All jobs, so many at a time on each GPU, each in a process of its own."""
    import torch

    gpus = max(1, torch.cuda.device_count())
    free: Queue[int] = Queue()
    for slot in range(gpus * options.jobs):
        free.put(slot % gpus)

    def one(job: Job) -> list[dict[str, Any]]:
        gpu = free.get()
        folder = options.work / "parts" / job.title
        words = [
            str(options.catalogue),
            "--name",
            options.name,
            "--out",
            str(folder),
            "--work",
            str(options.work),
            *job.words(),
        ]
        words += ["--validation-size", str(options.validation_size), "--model", options.model, "--no-yardsticks"]
        words += ["--max-steps", str(options.max_steps)] if options.max_steps else []
        words += ["--save-log-probs", str(options.save_log_probs)] if options.save_log_probs else []
        words += ["--keep-runs"] if options.keep_runs else []
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": str(gpu), "OMP_NUM_THREADS": "4"}
        try:
            done = subprocess.run([sys.executable, __file__, *words], env=environment, check=False)
        finally:
            free.put(gpu)
        result = folder / f"{options.name}.json"
        if done.returncode or not result.is_file():
            _bench.say(f"{job.title}: failed with status {done.returncode}")
            return []
        rows = json.loads(result.read_text(encoding="utf-8"))["rows"]
        return [{key: value for key, value in row.items() if key not in TIMES} for row in rows]

    rows: list[dict[str, Any]] = []
    with ThreadPoolExecutor(len(jobs)) as pool:
        for found in pool.map(one, jobs):
            rows += found
            _bench.write(options.name, rows, options.out)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("catalogue", type=Path)
    parser.add_argument("--out", type=Path, default=_bench.RESULTS)
    parser.add_argument("--work", type=Path, default=Path("runs"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument(
        "--only", nargs="+", choices=list(RECIPES), default=["full-head", "lora-head", "lora-completion"]
    )
    parser.add_argument("--splits", nargs="+", choices=["random", "grouped", "brand"], default=["random"])
    parser.add_argument("--inputs", nargs="+", choices=list(INPUTS), default=["name"])
    parser.add_argument("--model", default="smollm2-135m", help="another base model, to try the script at tiny size")
    parser.add_argument("--max-steps", type=int)
    parser.add_argument(
        "--validation-size", type=float, default=0.1, help="0 trains on all 22,044 rows, as published figures do"
    )
    parser.add_argument("--name", default="smollm2_bigbasket", help="of the result file")
    parser.add_argument("--jobs", type=int, help="runs that share a GPU; times are then left out")
    parser.add_argument("--no-yardsticks", action="store_true", help="leave the baseline beside the first run out")
    parser.add_argument("--save-log-probs", type=Path, metavar="DIR", help="keep validation and test log-probabilities")
    parser.add_argument("--keep-runs", action="store_true", help="leave the run folders in --work")
    options = parser.parse_args()
    jobs = [Job(*parts) for parts in itertools.product(options.only, options.splits, options.inputs, options.seeds)]
    if options.jobs:
        side_by_side(jobs, options)
        return
    rows: list[dict[str, Any]] = []
    for job in jobs:
        yardsticks = not options.no_yardsticks and (len(options.splits) > 1 or not rows)
        rows += measure(job, options, yardsticks=yardsticks)
        _bench.write(options.name, rows, options.out)


if __name__ == "__main__":
    main()
