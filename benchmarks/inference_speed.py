"""How fast LLaMA2-7B and Falcon-7B classify BigBasket's names, file in to file out, beside plain transformers.

    python benchmarks/inference_speed.py CATALOGUE --work DIR --out benchmarks/results [--run RUN]

Random weights at the true shapes and real names, each different name once, so that no answer is saved; and, apart, all
rows of the catalogue as they come, where names that recur are answered once. A run is trained for two steps and loaded
as any run is; then `shelfwise.predict` reads a CSV file and writes one, in bf16 and fp8. The bound is the products'
arithmetic, of what names begin with alike once a tile, at the speed of a bf16 product of 8192 cubed on the same card,
in the same run. Peers: transformers' `pipeline("text-classification")` around the merged model, and text generation as
in the reference notebook.

With `--run`, a trained run of any size: its answers in each precision beside fp32, on the test part.
"""

from __future__ import annotations

import argparse
import gc
import shutil
import statistics
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import _bench
from training_speed import NAMES, PLAINLY, ceiling, computed_share, forget, peak
from true_size import base_model

PRECISIONS = ("bf16", "fp8")
WARM, REPEATS = 3_000, 5


def matrix_weights(config: Any) -> int:
    """Weights that every token is multiplied with: all but embeddings and head."""
    hidden, layers = config.hidden_size, config.num_hidden_layers
    if config.model_type == "llama":
        shared = hidden * config.num_key_value_heads // config.num_attention_heads
        return int(layers * hidden * (2 * hidden + 2 * shared + 3 * config.intermediate_size))
    width = hidden // config.num_attention_heads
    return int(layers * (hidden * (hidden + 2 * width) + 9 * hidden * hidden))


def written(names: list[str], path: Path) -> Path:
    import csv

    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["product"])
        table.writerows([name] for name in names)
    return path


def make_run(base: Path, objective: str, options: argparse.Namespace) -> Path:
    """A run folder with an adapter, trained for two steps."""
    from shelfwise.config import parse
    from shelfwise.pipelines.train import train

    run: Path = options.work / f"run-{objective}"
    shutil.rmtree(run, ignore_errors=True)
    values = {
        "catalogue": str(options.catalogue), "model": str(base), "method": "lora", "objective": objective,
        "baseline": False, "split": {"strategy": "random", "validation_size": 0},
        "training": {**PLAINLY, "max_steps": 2, "batch_size": 32, "micro_batch_size": 32, "packed": False,
                     "evaluations_per_epoch": 0},
    }  # fmt: skip
    train(parse(values, "inference_speed"), run)
    return run


def ours(
    run: Path, names: list[str], every: list[str], precision: str, top: float, options: argparse.Namespace
) -> dict[str, Any]:
    """File in, file out, the median of repeated jobs with a model that is loaded and warm.

    Args:
        run: with a head.
        names: no two the same.
        every: all rows' names, the same ones again and again.
        precision: of the answers.
        top: TFLOP/s of a large product.
        options: of the script.
    """
    from shelfwise.classifier import Classifier
    from shelfwise.pipelines.predict import predict
    from shelfwise.pipelines.predict_job import PART_ROWS

    began = time.perf_counter()
    classifier = Classifier.load(run, precision=precision)  # type: ignore[arg-type]
    loading = time.perf_counter() - began
    engine: Any = classifier.scorer
    weights = matrix_weights(engine.model.config)
    rows = engine.encoder.encode(names)
    tokens = statistics.mean(map(len, rows))
    parts = options.part_rows or PART_ROWS
    computed = tokens * computed_share(rows, parts)
    began = time.perf_counter()
    classifier.log_probs(names[:1])
    first = time.perf_counter() - began
    warm = written(names[:WARM], options.work / "warm.csv")
    whole = written(names, options.work / "names.csv")
    out = options.work / "answers.csv"
    ask = partial(predict, run, out=out, classifier=classifier, force=True, chunk_rows=options.part_rows)
    ask(warm)

    def timed(source: Path) -> list[float]:
        seconds = []
        for _ in range(options.repeats):
            began = time.perf_counter()
            ask(source)
            seconds.append(time.perf_counter() - began)
        return seconds

    seconds = timed(whole)
    recurring = statistics.median(timed(written(every, options.work / "every.csv")))
    scoring = []
    for _ in range(options.repeats):
        began = time.perf_counter()
        waiting = [classifier.start_log_probs(names[i : i + parts]) for i in range(0, len(names), parts)]
        answers = np.concatenate([wait() for wait in waiting])
        scoring.append(time.perf_counter() - began)
    assert np.isfinite(answers).all()
    rate = len(names) / statistics.median(seconds)
    bound = top * 1e12 / (2 * weights * computed)
    return {
        "method": "shelfwise",
        "precision": precision,
        "objective": "head",
        "products": len(names),
        "tokens_per_product": round(tokens, 2),
        "computed_tokens_per_product": round(computed, 2),
        "part_rows": parts,
        "products_per_s": round(rate),
        "products_per_s_low": round(len(names) / max(seconds)),
        "products_per_s_high": round(len(names) / min(seconds)),
        "scoring_products_per_s": round(len(names) / statistics.median(scoring)),
        "rows_with_recurring_names": len(every),
        "rows_per_s_with_recurring_names": round(len(every) / recurring),
        "bound_bf16_products_per_s": round(bound),
        "share_of_bf16_bound": round(rate / bound, 3) if bound else None,
        "load_s": round(loading, 1),
        "first_answer_s": round(first, 2),
        "peak_gib": round(peak(), 1),
    }


def agreement(run: Path, names: list[str]) -> dict[str, Any]:
    """Answers in fp8 beside those in bf16, at random weights, where answers are as unsure as they can be."""
    from shelfwise.classifier import Classifier

    kept = {}
    for precision in PRECISIONS:
        kept[precision] = Classifier.load(run, precision=precision).probabilities(names)  # type: ignore[arg-type]
        forget()
    a, b = kept["bf16"], kept["fp8"]
    return {
        "method": "fp8 beside bf16",
        "products": len(names),
        "largest_difference": round(float(np.abs(a - b).max()), 5),
        "same_answer": round(float((a.argmax(1) == b.argmax(1)).mean()), 4),
    }


def completion(run: Path, names: list[str], top: float, options: argparse.Namespace) -> dict[str, Any]:
    """The whole distribution over the labels, by the tree of their tokens."""
    from shelfwise.classifier import Classifier

    classifier = Classifier.load(run)
    engine: Any = classifier.scorer
    some = names[: options.completions]
    classifier.log_probs(some[: len(some) // 4 or 1])
    seconds = []
    for _ in range(2):
        began = time.perf_counter()
        classifier.log_probs(some)
        seconds.append(time.perf_counter() - began)
    nodes = len(engine.tree)
    tokens = statistics.mean(len(row) for row in engine.encoder.encode(some))
    bound = top * 1e12 / (2 * matrix_weights(engine.model.config) * (nodes + tokens))
    return {
        "method": "shelfwise, label tree",
        "precision": engine.precision,
        "objective": "completion",
        "products": len(some),
        "labels": len(classifier.labels),
        "tree_nodes": nodes,
        "products_per_s": round(len(some) / min(seconds), 1),
        "bound_bf16_products_per_s": round(bound, 1),
        "share_of_bf16_bound": round(len(some) / min(seconds) / bound, 3) if bound else None,
        "peak_gib": round(peak(), 1),
    }


def pipeline_peer(run: Path, names: list[str], batch: int, options: argparse.Namespace) -> dict[str, Any]:
    """transformers' own pipeline around the merged model: what a user has without us."""
    import torch
    from transformers import pipeline

    from shelfwise import artifact
    from shelfwise import config as configs
    from shelfwise.labels import Labels
    from shelfwise.modeling import merging
    from shelfwise.modeling.encoding import load_tokenizer
    from shelfwise.modeling.loading import Parts

    parts = Parts(run / artifact.MODEL, run / artifact.ADAPTER, run / artifact.TOKENIZER)
    labels = Labels.load(run / artifact.LABELS)
    dtype: Any = "bf16" if torch.cuda.is_available() else None
    model = merging.merged(configs.load(run / artifact.CONFIG), labels, parts, "auto", dtype)
    classify = pipeline("text-classification", model=model, tokenizer=load_tokenizer(parts.tokenizer))
    some = names[: options.peers]
    classify(some[:batch], batch_size=batch)
    began = time.perf_counter()
    classify(some, batch_size=batch, top_k=1)
    seconds = time.perf_counter() - began
    return {
        "method": f'transformers pipeline("text-classification"), batch {batch}',
        "precision": "bf16",
        "objective": "head",
        "products": len(some),
        "products_per_s": round(len(some) / seconds, 1),
        "peak_gib": round(peak(), 1),
    }


def generation_peer(base: Path, names: list[str], batch: int, options: argparse.Namespace) -> dict[str, Any]:
    """Text that is generated and read as a label, as in the reference notebook but in batches."""
    import torch
    from transformers import AutoModelForCausalLM

    from shelfwise.modeling.encoding import load_tokenizer
    from shelfwise.prompts import PromptFormat

    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokenizer = load_tokenizer(base)
    tokenizer.padding_side = "left"
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16, device_map=device)
    prompts = [PromptFormat().prompt(name) for name in names[: options.peers // 2]]

    def answer(texts: list[str]) -> list[str]:
        given = tokenizer(texts, return_tensors="pt", padding=True, return_token_type_ids=False).to(device)
        made = model.generate(**given, max_new_tokens=8, do_sample=False, pad_token_id=tokenizer.pad_token_id)
        return tokenizer.batch_decode(made[:, given["input_ids"].shape[1] :])

    answer(prompts[:batch])
    began = time.perf_counter()
    for start in range(0, len(prompts), batch):
        answer(prompts[start : start + batch])
    seconds = time.perf_counter() - began
    return {
        "method": f"transformers generate, 8 tokens, batch {batch}",
        "precision": "bf16",
        "objective": "completion",
        "products": len(prompts),
        "products_per_s": round(len(prompts) / seconds, 1),
        "peak_gib": round(peak(), 1),
    }


def held_out(run: Path, catalogue: Path) -> list[Any]:
    """Products of a run's test part, with types that it knows."""
    from shelfwise import artifact
    from shelfwise import config as configs
    from shelfwise.data.catalogue import read_catalogue
    from shelfwise.data.split import Splits
    from shelfwise.labels import Labels

    config, labels = configs.load(run / artifact.CONFIG), Labels.load(run / artifact.LABELS)
    read = read_catalogue(catalogue, config.columns, config.text_columns, labels="required")
    return [product for product in Splits.load(run / artifact.SPLIT).parts(read).test if product.label in labels]


def scored(log_probs: Any, targets: Any, exact: Any) -> dict[str, Any]:
    """Accuracy and calibration of answers, and how they differ from exact ones."""
    from shelfwise import metrics

    scores = metrics.scores(log_probs, targets)
    return {
        "accuracy": round(scores.accuracy, 4),
        "ece": round(scores.ece, 4),
        "mean_nll": round(scores.mean_nll, 4),
        "same_answer": round(float((exact.argmax(1) == log_probs.argmax(1)).mean()), 4),
        "largest_difference": round(float(np.abs(np.exp(exact) - np.exp(log_probs)).max()), 4),
    }


def trained(run: Path, precisions: list[str], catalogue: Path) -> list[dict[str, Any]]:
    """A trained run's answers in each precision: accuracy, calibration and agreement with the first one's, on test."""
    from shelfwise import artifact
    from shelfwise import config as configs
    from shelfwise.classifier import Classifier

    config = configs.load(run / artifact.CONFIG)
    products = held_out(run, catalogue)
    texts = [product.text for product in products]
    rows, exact = [], None
    for precision in precisions:
        classifier = Classifier.load(run, which="model", precision=precision)  # type: ignore[arg-type]
        targets = np.array([classifier.labels.index(product.label, "") for product in products])
        classifier.log_probs(texts[:512])
        seconds = []
        for _ in range(3):
            began = time.perf_counter()
            raw = classifier.log_probs(texts)
            seconds.append(time.perf_counter() - began)
        log_probs = classifier.calibration.log_probs(raw)
        exact = log_probs if exact is None else exact
        rows.append(
            {
                "model": f"{Path(config.model).name} {config.method} (trained)",
                "method": "shelfwise",
                "precision": precision,
                "objective": config.objective,
                "products": len(texts),
                "scoring_products_per_s": round(len(texts) / statistics.median(seconds)),
                "beside": precisions[0],
                **scored(log_probs, targets, exact),
            }
        )
        del classifier
        gc.collect()
        forget()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("catalogue", type=Path)
    parser.add_argument("--out", type=Path, default=_bench.RESULTS)
    parser.add_argument("--work", type=Path, default=Path("runs"))
    parser.add_argument("--models", nargs="*", choices=list(NAMES), default=list(NAMES))
    parser.add_argument("--run", type=Path, help="a trained run, to compare precisions")
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16", "fp8"], help="of the trained run")
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--peers", type=int, default=4096, help="names that peers are given")
    parser.add_argument("--completions", type=int, default=64, help="names that are scored against all labels")
    parser.add_argument("--part-rows", type=int, help="of a prediction job; its default else")
    parser.add_argument("--names", type=int, help="most names, to try the script")
    parser.add_argument("--name", default="inference_speed", help="of the result file")
    parser.add_argument("--only", nargs="+", help="parts: bf16 fp8 agreement completion pipeline generate")
    parser.add_argument("--keep", action="store_true", help="the base models in --work, for the next benchmark")
    parser.add_argument("--tiny", action="store_true", help="small shapes, to try the script on a CPU")
    options = parser.parse_args()
    from shelfwise.data.catalogue import read_catalogue
    from shelfwise.pipelines.finetune import quiet_libraries

    quiet_libraries()
    options.work.mkdir(parents=True, exist_ok=True)
    texts = [product.text for product in read_catalogue(options.catalogue).products]
    every = texts[: options.names]
    names = list(dict.fromkeys(every))
    top = ceiling()
    _bench.say(f"a bf16 product of 8192 cubed: {top:.0f} TFLOP/s; {len(names)} different names")
    rows: list[dict[str, Any]] = []

    def keep(model: str, part: str, ask: Callable[[], dict[str, Any]]) -> None:
        if options.only and part not in options.only:
            return
        gc.collect()
        forget()
        try:
            rows.append({"model": model, "ceiling_tflops": round(top), **ask()})
        except Exception as error:  # one that fails is recorded, and the others still run
            traceback.print_exc()
            rows.append({"model": model, "method": part, "error": f"{type(error).__name__}: {error}"[:500]})
        _bench.say(rows[-1])
        _bench.write(options.name, rows, options.out)

    for architecture in options.models:
        model = f"{NAMES[architecture]} (random weights)"
        with base_model(architecture, list(dict.fromkeys(texts)), options) as base:
            run = make_run(base, "head", options)
            for precision in PRECISIONS:
                keep(model, precision, partial(ours, run, names, every, precision, top, options))
            keep(model, "agreement", partial(agreement, run, names[:2048]))
            for batch in (64, 256):
                keep(model, "pipeline", partial(pipeline_peer, run, names, batch, options))
            keep(model, "generate", partial(generation_peer, base, names, 256, options))
            if not options.only or "completion" in options.only:
                forget()
                whole = make_run(base, "completion", options)
                keep(model, "completion", partial(completion, whole, names, top, options))
    if options.run:
        rows.extend(trained(options.run, options.precisions, options.catalogue))
        _bench.write(options.name, rows, options.out)
        for row in rows[-len(options.precisions) :]:
            _bench.say(row)


if __name__ == "__main__":
    main()
