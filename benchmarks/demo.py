"""The demo, timed: the packaged sample, both tiny models and the baseline.

python benchmarks/demo.py [--out benchmarks/results]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import _bench

MODELS = ("tiny-llama", "tiny-falcon")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=_bench.RESULTS)
    options = parser.parse_args()
    from shelfwise.artifact import EVALUATION, read_manifest
    from shelfwise.pipelines.demo import demo
    from shelfwise.pipelines.evaluation import Evaluation

    with tempfile.TemporaryDirectory() as folder:
        result = demo(Path(folder) / "demo", step=_bench.say)
        trained = {
            model: read_manifest(Path(folder) / "demo" / model, verify=False)["train_seconds"] for model in MODELS
        }
        evaluations = {model: Evaluation.load(Path(folder) / "demo" / model / EVALUATION) for model in MODELS}
    comparison = result.comparison
    lines = [(comparison.majority.name, comparison.majority)]
    lines += [(each.title, each.standing) for each in comparison.contestants]
    alone = {model: evaluation.standing("model") for model, evaluation in evaluations.items()}
    told = {title for title, _ in lines}  # the comparison is of what a run answers with, be it the model alone or not
    lines += [(model, standing) for model, standing in alone.items() if standing is not None and model not in told]
    rows = [
        {
            "model": title,
            "split": "grouped",
            "seeds": [0],
            "accuracy": round(standing.scores.accuracy, 4),
            "accuracy_low": round(standing.interval.low, 4),
            "accuracy_high": round(standing.interval.high, 4),
            "macro_f1": round(standing.scores.macro_f1, 4),
            **({"train_s": trained[title]} if title in trained else {}),
        }
        for title, standing in lines
    ]
    _bench.say(f"{result.seconds:.0f} s in all")
    _bench.write("demo", rows, options.out)


if __name__ == "__main__":
    main()
