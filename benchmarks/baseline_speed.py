"""How fast the baseline is on a CPU: its margins beside sklearn's way, and file to file.

    python benchmarks/baseline_speed.py CATALOGUE [--rows 500000] [--repeats 3]
    python benchmarks/baseline_speed.py CATALOGUE --run RUN [--rows 2000]      # a language model's run instead
    python benchmarks/baseline_speed.py CATALOGUE --run RUN --whole            # all its rows, names that recur too

A baseline is trained on the catalogue's names. `margins`: its margins of 4,096 names, as sklearn computes features and
a sparse product weighs them, and word by word, in turn. `predict`: `shelfwise predict` in a process of its own, loading
included, on a file of `--rows` rows, of which each name is one of the catalogue with a number behind it, so that next
to none occurs twice. `products_per_s` counts from the command's start to its end; `steady` is the job's own rate
between its first and its last quarter.

`--run` measures a run of a language model likewise, loading included, and what the processor allows: the rate of its
products (2,048 cubed, the best of ten) in the run's precision there, over the multiplications of a name. `taskset -c
0,1 python ...` gives two cores of many. Without `--whole` no two names are the same; with it the file holds the names
of all rows as they come, and those that recur are answered once.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import _bench

AT_ONCE = 4_096


def margins(run: Path, names: list[str], repeats: int) -> list[dict[str, Any]]:
    """Microseconds a name, both ways, in turn."""
    from scipy import sparse

    from shelfwise import artifact
    from shelfwise.baseline import Baseline

    baseline = Baseline.load(run / artifact.BASELINE)
    names = names[:AT_ONCE]

    def by_sklearn() -> None:
        features = sparse.hstack([v.transform(names) for v in baseline.vectorizers], format="csr")
        (features @ baseline.weights).toarray()

    ways = {"sklearn": by_sklearn, "by words": lambda: baseline._words.margins(names)}
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for way in ways.values():
        way()  # what is remembered is remembered
    for _ in range(max(repeats, 5)):
        for name, way in ways.items():
            began = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - began)
    return [
        {
            "what": "margins",
            "way": way,
            "names": len(names),
            "us_a_name": round(statistics.median(of) / len(names) * 1e6, 1),
        }
        for way, of in seconds.items()
    ]


def predicted(run: Path, source: Path, rows: int, workers: int, out: Path) -> dict[str, Any]:
    """One call of the command."""
    from shelfwise.artifact import sha256
    from shelfwise.pipelines.predict_job import EXACT_PART_ROWS, FIRST_PART_ROWS

    words = [
        sys.executable,
        "-m",
        "shelfwise",
        "predict",
        str(run),
        str(source),
        "--out",
        str(out),
        "--device",
        "cpu",
        "--force",
        "--json",
    ]
    began = time.perf_counter()
    process = subprocess.Popen([*words, "--workers", str(workers)], stdout=subprocess.PIPE, text=True)
    parts, stamps = out.with_name(f".{out.name}.parts"), []
    while process.poll() is None:
        done = sum(path.suffix == ".out" for path in parts.iterdir()) if parts.is_dir() else 0
        # The first parts are small, and so may the last one be.
        full = sum(min(FIRST_PART_ROWS << number, EXACT_PART_ROWS) for number in range(done))
        stamps.append((min(full, rows), time.perf_counter()))
        time.sleep(0.1)
    assert process.stdout is not None
    json.loads(process.stdout.read())
    seconds = time.perf_counter() - began
    quarters = [next((stamp for stamp in stamps if stamp[0] >= rows * share), stamps[-1]) for share in (0.25, 0.75)]
    (begun, begun_at), (ended, ended_at) = quarters
    steady = (ended - begun) / (ended_at - begun_at) if ended > begun else None  # few parts come all at once
    return {"seconds": seconds, "steady": steady, "sha256": sha256(out)}


def language_model(run: Path, source: Path, names: list[str], options: argparse.Namespace) -> dict[str, Any]:
    """A trained run, file to file on a CPU, beside the bound of the arithmetic."""
    import torch
    from transformers import AutoConfig

    from inference_speed import matrix_weights
    from shelfwise import artifact
    from shelfwise import config as configs
    from shelfwise.modeling import registry
    from shelfwise.modeling.encoding import Encoder, load_tokenizer
    from shelfwise.modeling.hardware import DTYPES, resolve_precision
    from shelfwise.prompts import PromptFormat

    config = configs.load(run / artifact.CONFIG)
    folder = registry.resolve(config.model).folder
    encoder = Encoder(load_tokenizer(run / artifact.TOKENIZER), PromptFormat.load(run / artifact.PROMPT))
    tokens = statistics.mean(map(len, encoder.encode(names)))
    weights = matrix_weights(AutoConfig.from_pretrained(folder))
    precision = resolve_precision("auto", torch.device("cpu"), weights)
    a, b = torch.randn(2, 2048, 2048).to(DTYPES[precision])
    best = 0.0
    for _ in range(10):
        began = time.perf_counter()
        a @ b
        best = max(best, 2 * 2048**3 / (time.perf_counter() - began))
    runs = [predicted(run, source, len(names), 1, source.with_name("out.csv")) for _ in range(options.repeats)]
    middle = statistics.median(one["seconds"] for one in runs)
    return {
        "what": "predict",
        "model": f"{config.model} {config.method}",
        "rows": len(names),
        "different_names": len(set(names)),
        "cores": len(os.sched_getaffinity(0)),
        "precision": precision,
        "workers": 1,
        "products_per_s": round(len(names) / middle, 1),
        "seconds": [round(one["seconds"], 1) for one in runs],
        "tokens_per_product": round(tokens, 1),
        "gflops": round(best / 1e9),
        "bound_products_per_s": round(best / (2 * weights * tokens), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("catalogue", type=Path)
    parser.add_argument("--rows", type=int)
    parser.add_argument("--run", type=Path, help="of a language model")
    parser.add_argument("--whole", action="store_true", help="the catalogue's rows as they are, for --run")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--name", default="model_speed_cpu", help="of the result file of --run")
    parser.add_argument("--out", type=Path, default=_bench.RESULTS)
    options = parser.parse_args()
    from shelfwise.config import parse
    from shelfwise.data.catalogue import read_catalogue
    from shelfwise.pipelines.train import train

    options.rows = options.rows or (2_000 if options.run else 500_000)
    names = [product.name for product in read_catalogue(options.catalogue).products]
    if options.run:
        some = names if options.whole else random.Random(0).sample(sorted(set(names)), options.rows)
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "feed.csv"
            with source.open("w", encoding="utf-8", newline="") as stream:
                csv.writer(stream).writerows([["product"], *([name] for name in some)])
            row = language_model(options.run, source, some, options)
        _bench.say(row)
        _bench.write(options.name, [row], options.out)
        return
    draw = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        run, source = Path(folder) / "run", Path(folder) / "feed.csv"
        train(parse({"catalogue": str(options.catalogue), "model": "baseline"}, "benchmark"), run, device="cpu")
        with source.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(["sku", "product"])
            writer.writerows([i, f"{draw.choice(names)} {draw.randrange(1, 2_000)} g"] for i in range(options.rows))
        rows = margins(run, names, options.repeats)
        cores = len(os.sched_getaffinity(0))
        found: dict[int, list[dict[str, Any]]] = {1: [], cores: []}
        for repeat in range(options.repeats):
            for workers, runs in found.items():
                runs.append(predicted(run, source, options.rows, workers, Path(folder) / "out.csv"))
                _bench.say(
                    f"{repeat}: {workers} workers, {options.rows / runs[-1]['seconds']:,.0f} products/s", runs[-1]
                )
        same = len({one["sha256"] for runs in found.values() for one in runs}) == 1
        for workers, runs in found.items():
            middle = statistics.median(one["seconds"] for one in runs)
            row = {
                "what": "predict",
                "rows": options.rows,
                "cores": cores,
                "workers": workers,
                "products_per_s": round(options.rows / middle),
                "products_per_s_steady": round(statistics.median(one["steady"] for one in runs)),
                "seconds": [round(one["seconds"], 1) for one in runs],
                "identical": same,
            }
            rows.append(row)
    for row in rows:
        _bench.say(row)
    _bench.write("baseline_speed", rows, options.out)


if __name__ == "__main__":
    main()
