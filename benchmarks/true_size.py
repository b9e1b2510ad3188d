"""LLaMA2-7B and Falcon-7B at their true shapes, through the code that trains real ones.

    python benchmarks/true_size.py CATALOGUE --work DIR --out benchmarks/results

The weights are random, which is right for speed, memory and numerics and says nothing about accuracy. Each model is
written to disk, loaded as any folder is, trained some steps on the catalogue by each method, saved, loaded again from
its run folder, and compared with what it answered before. The tokenizers are trained on the catalogue, for the real
ones lie on the hub; their vocabulary is chosen to give names about as many tokens as the real ones do.
"""

from __future__ import annotations

import argparse
import gc
import shutil
import statistics
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

import _bench

BATCH, STEPS, ANSWERED = 256, 8, 256


def shape(architecture: str, tiny: bool) -> Any:
    """The published configurations, or the same architectures small enough to try this script on a CPU."""
    from transformers import FalconConfig, LlamaConfig

    if architecture == "llama":
        small = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4}
        return LlamaConfig(vocab_size=32000, **(small if tiny else {}))  # LLaMA2-7B's shape is the default
    size = {"hidden_size": 4544, "num_hidden_layers": 32, "num_attention_heads": 71}
    small = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    return FalconConfig(
        vocab_size=65024,
        multi_query=True,
        parallel_attn=True,
        new_decoder_architecture=False,
        bias=False,
        alibi=False,
        **(small if tiny else size),
    )


def build(architecture: str, folder: Path, texts: list[str], tiny: bool) -> None:
    """Write a base model of random weights, in bf16, with a tokenizer, as a plain transformers folder."""
    import torch
    from transformers import AutoModelForCausalLM

    from shelfwise.modeling import tiny as tokenizers

    began = time.perf_counter()
    tokenizer = {"llama": tokenizers.llama_tokenizer, "falcon": tokenizers.falcon_tokenizer}[architecture](texts, 4000)
    tokenizer.save_pretrained(folder)
    config = shape(architecture, tiny)
    config.bos_token_id, config.eos_token_id = tokenizer.bos_token_id, tokenizer.eos_token_id
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder, max_shard_size="5GB")
    _bench.say(f"{architecture}: {model.num_parameters() / 1e9:.2f}B parameters in {time.perf_counter() - began:.0f} s")


@contextmanager
def base_model(architecture: str, texts: list[str], options: argparse.Namespace) -> Iterator[Path]:
    """The folder of a base model under --work; with --keep it is left there, and one that is there is taken."""
    base: Path = options.work / f"{architecture}-base"
    whole = base / "whole"
    if not (options.keep and whole.is_file()):
        shutil.rmtree(base, ignore_errors=True)
        build(architecture, base, texts, options.tiny)
        whole.touch()
    yield base
    if not options.keep:
        shutil.rmtree(base)


def measure(architecture: str, method: str, base: Path, options: argparse.Namespace) -> dict[str, Any]:
    import torch

    from shelfwise import storage
    from shelfwise.classifier import Classifier
    from shelfwise.config import parse
    from shelfwise.modeling import memory
    from shelfwise.pipelines import finetune
    from shelfwise.pipelines.run import Hooks, prepare
    from shelfwise.pipelines.train import train

    run = options.work / f"{architecture}-{method}"
    shutil.rmtree(run, ignore_errors=True)
    values = {
        "catalogue": str(options.catalogue),
        "model": str(base),
        "method": method,
        "baseline": False,
        "split": {"strategy": "random"},
        "training": {"max_steps": STEPS, "batch_size": BATCH, "evaluations_per_epoch": 0},
    }
    config = parse(values, "true_size")
    seen: list[tuple[float, float]] = []
    kept: dict[str, Any] = {}
    plain_save, plain_settle = finetune._save, finetune.settle

    def report(progress: Any) -> None:
        if "loss" in progress.values:
            seen.append((time.perf_counter(), progress.values["loss"]))

    def save(engine: Any, config: Any, out: Path) -> None:
        kept["answers"] = engine.log_probs(names)
        plain_save(engine, config, out)

    def settle(*given: Any) -> Any:
        kept["choice"] = plain_settle(*given)[1]
        items = given[3]
        kept["mean_tokens"] = statistics.mean(len(item.input_ids) for item in items)
        return plain_settle(*given)

    prepared = prepare(config)
    names = [product.text for product in prepared.validation[:ANSWERED]]
    finetune._save, finetune.settle = save, settle
    began = time.perf_counter()
    try:
        trained = train(config, run, hooks=Hooks(report=report, note=_bench.say))
    finally:
        finetune._save, finetune.settle = plain_save, plain_settle
    whole = time.perf_counter() - began
    gc.collect()  # the trainer and its callbacks hold one another
    torch.cuda.empty_cache()
    began = time.perf_counter()
    again = Classifier.load(run, which="model")
    loading = time.perf_counter() - began
    difference = float(np.abs(np.exp(again.log_probs(names)) - np.exp(kept["answers"])).max())
    flipped = int((again.log_probs(names).argmax(1) != kept["answers"].argmax(1)).sum())
    steps = [b[0] - a[0] for a, b in pairwise(seen[1:])]
    second = statistics.median(steps)
    assert all(np.isfinite(loss) for _, loss in seen), seen
    row = {
        "model": {"llama": "llama2-7b", "falcon": "falcon-7b"}[architecture] + " (random weights)",
        "method": trained.config.method,
        "objective": trained.config.objective,
        "precision": trained.config.training.precision,
        "optimizer": trained.config.training.optimizer,
        "micro_batch": trained.config.training.micro_batch_size,
        "gradient_checkpointing": trained.config.training.gradient_checkpointing,
        "tokens_per_product": round(kept["mean_tokens"], 1),
        "tokens_per_s": round(BATCH * kept["mean_tokens"] / second),
        "products_per_s": round(BATCH / second, 1),
        "peak_gib": round((trained.peak_bytes or 0) / 2**30, 1),
        "estimated_gib": round(kept["choice"].estimate.total / memory.GIB, 1),
        "loss_first": round(seen[0][1], 3),
        "loss_last": round(seen[-1][1], 3),
        "train_s": round(trained.seconds, 1),
        "whole_s": round(whole, 1),
        "load_s": round(loading, 1),
        "reload_max_difference": difference,
        "reload_flipped": flipped,
        "run_gib": round(sum(f.stat().st_size for f in run.rglob("*") if f.is_file()) / 2**30, 2),
        "manifest_files": len(storage.read_manifest(run, verify=False)["files"]),
    }
    shutil.rmtree(run)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("catalogue", type=Path)
    parser.add_argument("--out", type=Path, default=_bench.RESULTS)
    parser.add_argument("--work", type=Path, default=Path("runs"))
    parser.add_argument("--models", nargs="+", choices=["llama", "falcon"], default=["llama", "falcon"])
    parser.add_argument("--methods", nargs="+", choices=["lora", "qlora", "full"], default=["lora", "qlora", "full"])
    parser.add_argument("--name", default="true_size", help="of the result file")
    parser.add_argument("--keep", action="store_true", help="the base models in --work, for the next benchmark")
    parser.add_argument("--tiny", action="store_true", help="small shapes, to try the script on a CPU")
    options = parser.parse_args()
    from shelfwise.data.catalogue import read_catalogue
    from shelfwise.pipelines.finetune import quiet_libraries

    quiet_libraries()
    texts = [product.text for product in read_catalogue(options.catalogue).products]
    rows = []
    for architecture in options.models:
        with base_model(architecture, texts, options) as base:
            for method in options.methods:
                try:
                    rows.append(measure(architecture, method, base, options))
                except Exception as error:  # one that fails is recorded, and the others still run
                    traceback.print_exc()
                    rows.append(
                        {"model": architecture, "method": method, "error": f"{type(error).__name__}: {error}"[:500]}
                    )
                gc.collect()
                _bench.say(rows[-1])
                _bench.write(options.name, rows, options.out)


if __name__ == "__main__":
    main()
