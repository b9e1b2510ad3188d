"""SmolLM2-135M fine-tuned on BigBasket, beside the linear baseline on the same rows.

    python benchmarks/smollm2_bigbasket.py CATALOGUE --out benchmarks/results [--seeds 0 1 2] [--only full-head]
        [--splits random grouped brand] [--inputs name brand+name] [--jobs 4]

Every run goes through `shelfwise.train` and `shelfwise.evaluate` with the recipes in `configs/`. The number of epochs
and the rates are those of the recipes, chosen on validation before; test is looked at once a run.

With `--jobs`, so many runs share each GPU; their times would say nothing and are left out. With `--runs`, it is those
runs and no others, each as RECIPE:SPLIT:INPUT:SEED. A recipe with "few" in its name is given a random twentieth of the
labelled training rows, drawn by the seed, and its own baseline on them; the names of the others it may read.

With `--save-log-probs` what each run says of its validation and test rows is kept for `benchmarks/three_splits.py`,
which fits the baseline and the blend beside it; `--no-evaluation` then leaves the figures to it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import _bench

BARE = {"pretraining_epochs": 0, "head_init": "random"}
# A recipe of `configs/`, and what of its training is another here.
RECIPES: dict[str, tuple[str | None, dict[str, Any]]] = {
    "full-head": ("smollm2-135m-full.yaml", {}),
    "full-head-bare": ("smollm2-135m-full.yaml", BARE),
    "full-head-few": ("smollm2-135m-full.yaml", {"epochs": 40, "batch_size": 64, "evaluations_per_epoch": 0}),
    "lora-head": ("smollm2-135m-lora.yaml", {}),
    "lora-head-bare": ("smollm2-135m-lora.yaml", BARE),
    "lora-head-labels": ("smollm2-135m-lora.yaml", {"head_init": "labels"}),
    "lora-head-names": ("smollm2-135m-lora.yaml", {"pretraining_epochs": 2, "head_init": "labels"}),
    "lora-completion": ("smollm2-135m-completion.yaml", {}),
    "baseline": (None, {}),
}
FEW = 0.05
SHIPPED = (
    "full-head",
    "full-head-few",
    "lora-completion",
)  # whose test rows are looked at; others have validation alone
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
        return f"{self.recipe}-{self.split}-{self.input}-{self.seed}".replace("+", "_")

    @property
    def word(self) -> str:
        """As `--runs` takes it."""
        return f"{self.recipe}:{self.split}:{self.input}:{self.seed}"

    @classmethod
    def of(cls, word: str) -> Job:
        recipe, split, given, seed = word.split(":")
        if recipe not in RECIPES or given not in INPUTS:
            raise argparse.ArgumentTypeError(f"{word}: no such run")
        return cls(recipe, split, given, int(seed))


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

    recipe, changes = RECIPES[job.recipe]
    config = configs.load(_bench.ROOT / "configs" / recipe) if recipe else TrainConfig(model="baseline")
    training = {**changes, "seed": job.seed, **({"max_steps": options.max_steps} if options.max_steps else {})}
    training |= {"packed": False} if options.padded else {}
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
    began = time.perf_counter()
    with (
        few(job.seed) if "few" in job.recipe else nullcontext(),
        unchecked() if options.no_evaluation else nullcontext(),
    ):
        trained = train(config, run, hooks=Hooks(report=report, note=_bench.say))
    _bench.say(f"{job.title}: {trained.seconds:.0f} s of training, {time.perf_counter() - began:.0f} s in all")
    if options.save_log_probs is not None:
        save_log_probs(run, options.save_log_probs / f"{job.title}.npz", test=job.recipe in SHIPPED)
    if options.no_evaluation:
        if not options.keep_runs and job not in options.keep:
            shutil.rmtree(run, ignore_errors=True)
        return [{"run": job.word, "train_rows": trained.train_rows, "steps": trained.steps}]
    found = evaluate(run)
    rows = []
    for standing in found.standings:
        row = row_of(standing, trained.config, job.seed)
        row |= {"recipe": job.recipe, "train_rows": trained.train_rows}
        if "few" in job.recipe:
            row["seeds"] = [job.seed]
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
    if not options.keep_runs:
        shutil.rmtree(run, ignore_errors=True)
    return rows


@contextmanager
def few(seed: int) -> Iterator[None]:
    """Let `shelfwise.train` see the types of a twentieth of its training rows alone."""
    from shelfwise.pipelines import run as pipeline

    def prepare(*given: Any, **named: Any) -> Any:
        prepared = pipeline.prepare(*given, **named)
        return replace(prepared, train=few_of(prepared.train, seed))

    with mock.patch("shelfwise.pipelines.train.prepare", prepare):
        yield


def unchecked() -> AbstractContextManager[Any]:
    """Leave out the search for leakage, which takes a process 10 s; `benchmarks/three_splits.py` makes it."""
    from shelfwise.data.leakage import Leakage

    return mock.patch("shelfwise.pipelines.run.find_leakage", return_value=Leakage())


def few_of(rows: Any, seed: int) -> Any:
    """A random twentieth of training rows, in their order."""
    import numpy as np

    chosen = np.random.default_rng(seed).choice(len(rows), round(FEW * len(rows)), replace=False)
    return tuple(rows[i] for i in sorted(chosen.tolist()))


def save_log_probs(run: Path, path: Path, *, test: bool) -> None:
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
    kept = {"validation": parts.validation, **({"test": parts.test} if test else {})}
    for name, products in kept.items():
        arrays[f"{name}_ids"] = np.array([product.id for product in products])
        arrays[f"{name}_targets"] = np.array([classifier.labels.names.index(p.label) for p in products])
        arrays[f"{name}_log_probs"] = rounded(classifier.log_probs([p.text for p in products]))
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **arrays)


def rounded(table: Any) -> Any:
    """Log-probabilities that pack into a third: what is likely in half precision, the rest in steps.

    Under one in eight in steps of 1/64 nat, under one in 3,000 in steps of 1/4: no answer and no calibration knows it.
    """
    import numpy as np

    steps = np.where(table < -8, 4.0, 64.0)
    return np.where(table < -2, np.round(table * steps) / steps, table).astype(np.float16)


def side_by_side(jobs: list[Job], options: argparse.Namespace) -> list[dict[str, Any]]:
    """All jobs, shared out to so many processes on each GPU."""
    import torch

    gpus = max(1, torch.cuda.device_count())
    slots = min(gpus * options.jobs, len(jobs))
    words = [str(options.catalogue), "--name", options.name, "--work", str(options.work), "--no-yardsticks"]
    words += ["--validation-size", str(options.validation_size), "--model", options.model]
    words += ["--max-steps", str(options.max_steps)] if options.max_steps else []
    words += ["--save-log-probs", str(options.save_log_probs)] if options.save_log_probs else []
    words += ["--seconds", str(options.seconds)] if options.seconds else []
    words += [
        name
        for name, on in (
            ("--keep-runs", options.keep_runs),
            ("--no-evaluation", options.no_evaluation),
            ("--padded", options.padded),
        )
        if on
    ]
    started = []
    for slot in range(slots):
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": str(slot % gpus), "OMP_NUM_THREADS": "2"}
        mine = [job.word for job in jobs[slot::slots]]
        call = [sys.executable, __file__, *words, "--out", str(options.work / f"part-{slot}"), "--runs", *mine]
        started.append(subprocess.Popen(call, env=environment))
    for process in started:
        if process.wait():
            _bench.say(f"a process ended with status {process.returncode}")
    rows: list[dict[str, Any]] = []
    for slot in range(slots):
        result = options.work / f"part-{slot}" / f"{options.name}.json"
        if result.is_file():
            found = json.loads(result.read_text(encoding="utf-8"))["rows"]
            rows += [{key: value for key, value in row.items() if key not in TIMES} for row in found]
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
    parser.add_argument("--runs", type=Job.of, nargs="+", metavar="RUN", help="these, and no others")
    parser.add_argument("--seconds", type=float, help="no run is begun later than so many seconds after the call")
    parser.add_argument(
        "--keep", type=Job.of, nargs="+", default=[], metavar="RUN", help="whose folders stay in --work"
    )
    parser.add_argument("--padded", action="store_true", help="train through transformers' own layers")
    parser.add_argument("--no-evaluation", action="store_true", help="keep log-probabilities alone")
    parser.add_argument("--jobs", type=int, help="runs that share a GPU; times are then left out")
    parser.add_argument("--no-yardsticks", action="store_true", help="leave the baseline beside the first run out")
    parser.add_argument("--save-log-probs", type=Path, metavar="DIR", help="keep validation and test log-probabilities")
    parser.add_argument("--keep-runs", action="store_true", help="leave the run folders in --work")
    options = parser.parse_args()
    began = time.monotonic()
    product = itertools.product(options.only, options.splits, options.inputs, options.seeds)
    jobs = options.runs or [Job(*parts) for parts in product]
    if options.jobs:
        side_by_side(jobs, options)
        return
    rows: list[dict[str, Any]] = []
    for job in jobs:
        if options.seconds and time.monotonic() - began > options.seconds:
            _bench.say(f"{job.title}: not begun, for {options.seconds:.0f} s are over")
            continue
        # Of few examples there are others for each seed, so each has a baseline of its own.
        yardsticks = "few" in job.recipe or (not options.no_yardsticks and (len(options.splits) > 1 or not rows))
        rows += measure(job, options, yardsticks=yardsticks)
        _bench.write(options.name, rows, options.out)


if __name__ == "__main__":
    main()
