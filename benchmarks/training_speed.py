"""How fast LLaMA2-7B and Falcon-7B are fine-tuned on BigBasket's names, beside plain transformers and PEFT.

    python benchmarks/training_speed.py CATALOGUE --work DIR --out benchmarks/results

Random weights at the true shapes, real names, one process: the ceiling of the matrix units (a bf16 product of 8192
cubed), our methods through `shelfwise.train`, and peers through transformers' Trainer with PEFT. Tokens are those of
the rows, for ours and peers; padding is counted by nobody, and of what rows begin with alike ours computes less
(`computed_share`, gaps included). Times are medians over the steps after the first ten, each taken over five steps.
"""

from __future__ import annotations

import argparse
import gc
import shutil
import statistics
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import psutil

import _bench
import _profile
from true_size import base_model

NAMES = {"llama": "llama2-7b", "falcon": "falcon-7b"}


@dataclass(frozen=True)
class Ours:
    """A setting of `shelfwise.train`."""

    title: str
    method: str
    batch: int
    steps: int
    training: dict[str, Any]
    micro: int | None = None


@dataclass(frozen=True)
class Peer:
    """A setting of transformers' Trainer with PEFT."""

    title: str
    task: str  # CAUSAL_LM: loss on all tokens of "name ->: type"; SEQ_CLS: a head
    batch: int
    steps: int


# As many steps on names as on labels; the head's rows begin with the labels' texts.
NAMES_FIRST: dict[str, Any] = {"pretraining_epochs": 1, "head_init": "labels"}

OURS = {
    "lora": Ours("lora", "lora", 672, 33, {}),
    "lora-fp8": Ours("lora, fp8 base", "lora", 672, 33, {"fp8_base": True}),
    "lora-1024": Ours("lora, batch 1024", "lora", 1024, 30, {}),
    "lora-fp8-1024": Ours("lora, fp8 base, batch 1024", "lora", 1024, 30, {"fp8_base": True}),
    "lora-256": Ours("lora, batch 256", "lora", 256, 30, {}),
    "lora-64": Ours("lora, batch 64", "lora", 64, 15, {}),
    "lora-padded": Ours("lora, padded", "lora", 256, 15, {"packed": False}),
    "qlora": Ours("qlora", "qlora", 672, 25, {}),
    "qlora-1024": Ours("qlora, batch 1024", "qlora", 1024, 20, {}),
    "qlora-256": Ours("qlora, batch 256", "qlora", 256, 15, {}),
    "qlora-64": Ours("qlora, batch 64", "qlora", 64, 15, {}),
    "qlora-small": Ours("qlora, small card", "qlora", 16, 30, {"gradient_checkpointing": True}, micro=8),
    "full": Ours("full", "full", 1536, 18, {"optimizer": "adamw_bf16"}, micro=768),
    "full-1536": Ours("full, batch 1536 in four", "full", 1536, 15, {"optimizer": "adamw_bf16"}, micro=384),
    "full-1024": Ours("full, batch 1024 in two", "full", 1024, 15, {"optimizer": "adamw_bf16"}, micro=512),
    "full-640": Ours("full, batch 640", "full", 640, 20, {"optimizer": "adamw_bf16"}),
    "full-512": Ours("full, batch 512", "full", 512, 20, {"optimizer": "adamw_bf16"}),
    "full-256": Ours("full, batch 256", "full", 256, 15, {"optimizer": "adamw_bf16"}),
    "full-names": Ours("full, batch 512, names first", "full", 512, 15, {"optimizer": "adamw_bf16", **NAMES_FIRST}),
    "full-64": Ours("full, batch 64", "full", 64, 15, {"optimizer": "adamw_bf16"}),
}
PEERS = {
    "reference": Peer("transformers + PEFT, as the reference notebook", "CAUSAL_LM", 16, 30),
    "peer-64": Peer("transformers + PEFT, batch 64", "CAUSAL_LM", 64, 20),
    "peer-128": Peer("transformers + PEFT, batch 128", "CAUSAL_LM", 128, 20),
    "head": Peer("transformers + PEFT, batch 128, head", "SEQ_CLS", 128, 20),
    "trl": Peer("TRL SFTTrainer, packed", "PACKED", 16, 20),
}
# Random weights have nothing to learn names with, nor to make of labels.
PLAINLY: dict[str, Any] = {"pretraining_epochs": 0, "head_init": "random"}
PACKED_TOKENS = 512  # of a sequence that TRL packs names into


def ceiling() -> float:
    """TFLOP/s of a large bf16 product."""
    import torch

    if not torch.cuda.is_available():
        return 0.0
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    times = []
    for _ in range(30):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        a @ b
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end) / 1e3)
    return 2 * 8192**3 / statistics.median(times[10:]) / 1e12


def computed_share(rows: Sequence[Sequence[int]], at_once: int) -> float:
    """Tokens that are computed for each token of the rows: what they begin with alike once, gaps and padding too."""
    from shelfwise.modeling.packed.tiles import TILE_LENGTHS, lay, tile_length

    order = np.random.default_rng(0).permutation(len(rows))[: 20 * at_once]
    tokens = computed = 0
    for start in range(0, len(order), at_once):
        some = [rows[i] for i in order[start : start + at_once]]
        tokens += sum(map(len, some))
        for tile in TILE_LENGTHS:
            fitting = [row for row in some if tile_length(len(row)) == tile]
            if fitting:
                computed += len(lay(fitting, [(0, 1)] * len(fitting), tile, 0).ids)
    return computed / tokens


def step_seconds(stamps: list[tuple[int, float]]) -> float:
    """Median seconds of a step from (step, time) stamps, those of the first ten steps left out."""
    late = [stamp for stamp in stamps if stamp[0] >= 10] or stamps
    return statistics.median((b[1] - a[1]) / (b[0] - a[0]) for a, b in pairwise(late) if b[0] > a[0])


def peak() -> float:
    import torch

    return torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else 0.0


def forget() -> None:
    """Leave the next run an empty card."""
    import torch

    gc.collect()
    torch._dynamo.reset()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


PROFILED = (13, 16)  # from this step until before that one


def ours(architecture: str, setting: Ours, base: Path, options: argparse.Namespace) -> dict[str, Any]:
    from shelfwise.config import parse
    from shelfwise.modeling import memory
    from shelfwise.modeling.trainer import ShelfwiseTrainer
    from shelfwise.pipelines import finetune
    from shelfwise.pipelines.run import Hooks
    from shelfwise.pipelines.train import train

    run = options.work / "run"
    shutil.rmtree(run, ignore_errors=True)
    batch = min(setting.batch, options.batch or setting.batch)
    micro = min(setting.micro or batch, batch)
    training = {"max_steps": options.steps or setting.steps, "batch_size": batch, "micro_batch_size": micro}
    training |= PLAINLY | {"evaluations_per_epoch": 0, "gradient_checkpointing": False, **setting.training}
    config = parse(
        {
            "catalogue": str(options.catalogue),
            "model": str(base),
            "method": setting.method,
            "baseline": False,
            "lora": {"dropout": 0.0},
            "split": {"strategy": "random", "validation_size": 0},
            "training": training,
        },
        "training_speed",
    )
    stamps: list[tuple[int, float]] = []
    losses: list[float] = []
    names_stamps: list[tuple[int, float]] = []
    names_losses: list[float] = []
    kept: dict[str, Any] = {}
    plain = finetune.settle

    def report(progress: Any) -> None:
        if "loss" in progress.values:
            stamps.append((progress.step, time.perf_counter()))
            losses.append(progress.values["loss"])
        if "pretraining_loss" in progress.values:
            names_stamps.append((progress.step, time.perf_counter()))
            names_losses.append(progress.values["pretraining_loss"])

    def settle(*given: Any, **named: Any) -> Any:
        items = next(g for g in given if isinstance(g, list) and g and hasattr(g[0], "input_ids"))
        settled = plain(*given, **named)
        of = "names_" if named.get("all_targets") else ""
        kept[f"{of}tokens"] = statistics.mean(len(item.input_ids) for item in items)
        kept[f"{of}rows"] = [item.input_ids for item in items]
        kept[f"{of}estimate"] = settled[1].estimate.total / memory.GIB
        return settled

    save, step = finetune._save, ShelfwiseTrainer.training_step

    steps_made = 0

    def timed_step(*given: Any, **named: Any) -> Any:
        nonlocal steps_made
        steps_made += 1
        if options.profile and steps_made == PROFILED[0]:
            kept["profile"] = _profile.Profile()
            kept["profile"].begin()
        if options.profile and steps_made == PROFILED[1]:
            kept["profile"] = kept["profile"].end(PROFILED[1] - PROFILED[0])
        loss = step(*given, **named)
        if "first" not in kept:
            loss.item()  # waits for the GPU
            kept["first"] = time.perf_counter() - began
        return loss

    ShelfwiseTrainer.training_step = timed_step
    finetune.settle = settle
    if setting.method == "full":  # 13 GB that nobody reads
        finetune._save = lambda *_: None
    began = time.perf_counter()
    try:
        trained = train(config, run, hooks=Hooks(report=report, note=_bench.say))
    finally:
        finetune.settle, finetune._save, ShelfwiseTrainer.training_step = plain, save, step
    seconds = step_seconds(stamps)
    names: dict[str, Any] = {}
    if names_stamps:
        rate = batch / step_seconds(names_stamps)
        names = {
            "names_per_s": round(rate, 1),
            "names_tokens_per_s": round(rate * kept["names_tokens"]),
            "names_estimated_gib": round(kept["names_estimate"], 1),
            "names_loss_first": round(names_losses[0], 3),
            "names_loss_last": round(names_losses[-1], 3),
        }
    size = sum(f.stat().st_size for f in run.rglob("*") if f.is_file()) / 2**30
    shutil.rmtree(run)
    return {
        "method": setting.method,
        "batch": batch,
        "micro_batch": trained.config.training.micro_batch_size,
        "gradient_checkpointing": trained.config.training.gradient_checkpointing,
        "optimizer": trained.config.training.optimizer,
        "tokens_per_product": round(kept["tokens"], 2),
        "tokens_per_s": round(batch * kept["tokens"] / seconds),
        "computed_share": round(computed_share(kept["rows"], micro), 3) if setting.training.get("packed", True) else 1,
        "products_per_s": round(batch / seconds, 1),
        "step_s": round(seconds, 4),
        "train_s": round(trained.seconds, 1),
        # From the call: reading the catalogue, loading, compiling, and the first micro-batch forward and backward.
        "first_step_after_s": round(kept["first"], 1),
        "rows_trained": batch * trained.steps,
        "peak_gib": round((trained.peak_bytes or 0) / 2**30, 1),
        "peak_with_loading_gib": round(peak(), 1),
        "estimated_gib": round(kept["estimate"], 1),
        "run_gib": round(size, 2),
        "loss_first": round(losses[0], 3),
        "loss_last": round(losses[-1], 3),
        **names,
        **({"profile": kept["profile"]} if "profile" in kept else {}),
    }


def trl_peer(setting: Peer, base: Path, options: argparse.Namespace) -> dict[str, Any]:
    """TRL's trainer with its own packing, LoRA on all linear layers, loss on all tokens."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    from shelfwise.data.catalogue import read_catalogue
    from shelfwise.prompts import PromptFormat

    products = read_catalogue(options.catalogue).labelled
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    prompts = PromptFormat()
    texts = [prompts.labelled(p.text, p.label or "") for p in products]
    order = torch.randperm(len(texts), generator=torch.Generator().manual_seed(0)).tolist()
    rows = [{"input_ids": tokenizer(texts[i])["input_ids"]} for i in order]
    on_gpu = torch.cuda.is_available()
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16, device_map="cuda" if on_gpu else "cpu")
    arguments = SFTConfig(
        output_dir=str(options.work / "peer"), per_device_train_batch_size=setting.batch,
        max_steps=options.steps or setting.steps, packing=True, max_length=PACKED_TOKENS, learning_rate=1e-4,
        bf16=on_gpu, gradient_checkpointing=False, logging_steps=1000, save_strategy="no", report_to="none",
        disable_tqdm=True, use_cpu=not on_gpu, dataset_kwargs={"skip_prepare_dataset": False},
    )  # fmt: skip
    stamps: list[tuple[int, float]] = []
    trainer = SFTTrainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        peft_config=LoraConfig(task_type="CAUSAL_LM", r=16, lora_alpha=32, target_modules="all-linear"),
        callbacks=[stamping(stamps)],
    )
    filled = statistics.mean(len(row) for row in trainer.train_dataset["input_ids"][:-1])
    trainer.train()
    seconds = step_seconds(stamps)
    per_product = statistics.mean(len(row["input_ids"]) for row in rows)
    return {
        "peer": setting.title,
        "method": "lora",
        "batch": setting.batch,
        "tokens_per_sequence": round(filled, 1),
        "tokens_per_product": round(per_product, 2),
        "tokens_per_s": round(setting.batch * filled / seconds),
        "products_per_s": round(setting.batch * filled / per_product / seconds, 1),
        "step_s": round(seconds, 4),
        "peak_gib": round(peak(), 1),
    }


def stamping(stamps: list[tuple[int, float]]) -> Any:
    """A callback of transformers' Trainer that notes the time of every fifth step."""
    import torch
    from transformers import TrainerCallback

    class Stamp(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step % 5 == 0:
                if torch.cuda.is_available():
                    torch.cuda.synchronize()
                stamps.append((state.global_step, time.perf_counter()))

    return Stamp()


def peer(architecture: str, setting: Peer, base: Path, options: argparse.Namespace) -> dict[str, Any]:
    if setting.task == "PACKED":
        return trl_peer(setting, base, options)
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import (
        AutoModelForCausalLM,
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainingArguments,
    )

    from shelfwise.data.catalogue import read_catalogue
    from shelfwise.labels import Labels
    from shelfwise.prompts import PromptFormat

    products = read_catalogue(options.catalogue).labelled
    labels = Labels.of(products)
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    causal = setting.task == "CAUSAL_LM"
    prompts = PromptFormat()
    texts = [prompts.labelled(p.text, p.label) if causal else prompts.prompt(p.text) for p in products]
    order = torch.randperm(len(texts), generator=torch.Generator().manual_seed(0)).tolist()
    rows = [{"input_ids": tokenizer(texts[i])["input_ids"]} for i in order[: setting.batch * setting.steps]]
    for row, i in zip(rows, order, strict=False):
        row["attention_mask"] = [1] * len(row["input_ids"])
        if not causal:
            row["labels"] = labels.index(products[i].label, "")
    tokens = statistics.mean(len(row["input_ids"]) for row in rows)
    cls = AutoModelForCausalLM if causal else AutoModelForSequenceClassification
    extra = {} if causal else {"num_labels": len(labels)}
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = cls.from_pretrained(base, dtype=torch.bfloat16, device_map=device, **extra)
    model.config.pad_token_id = tokenizer.pad_token_id
    model = get_peft_model(model, LoraConfig(task_type=setting.task, r=16, lora_alpha=32, target_modules="all-linear"))
    padding = DataCollatorWithPadding(tokenizer)

    def collate(items: list[dict[str, Any]]) -> Any:
        batch = padding(items)
        if causal:
            batch["labels"] = torch.where(batch["attention_mask"] == 1, batch["input_ids"], -100)
        return batch

    stamps: list[tuple[int, float]] = []
    arguments = TrainingArguments(
        output_dir=str(options.work / "peer"), per_device_train_batch_size=setting.batch,
        max_steps=options.steps or setting.steps, learning_rate=1e-4, bf16=torch.cuda.is_available(),
        logging_steps=1000, save_strategy="no", report_to="none", disable_tqdm=True, remove_unused_columns=False,
        use_cpu=not torch.cuda.is_available(),
    )  # fmt: skip
    Trainer(
        model=model, args=arguments, train_dataset=rows, data_collator=collate, callbacks=[stamping(stamps)]
    ).train()
    seconds = step_seconds(stamps)
    return {
        "peer": setting.title,
        "method": "lora",
        "batch": setting.batch,
        "tokens_per_product": round(tokens, 2),
        "tokens_per_s": round(setting.batch * tokens / seconds),
        "products_per_s": round(setting.batch / seconds, 1),
        "step_s": round(seconds, 4),
        "peak_gib": round(peak(), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("catalogue", type=Path)
    parser.add_argument("--out", type=Path, default=_bench.RESULTS)
    parser.add_argument("--work", type=Path, default=Path("runs"))
    parser.add_argument("--models", nargs="+", choices=list(NAMES), default=list(NAMES))
    parser.add_argument("--settings", nargs="+", choices=[*OURS, *PEERS], default=[*OURS, *PEERS])
    parser.add_argument("--steps", type=int, help="optimiser steps, to try the script")
    parser.add_argument("--batch", type=int, help="most rows a step, to try the script")
    parser.add_argument("--name", default="training_speed", help="of the result file")
    parser.add_argument("--profile", action="store_true", help="where the time of a step goes, by kernel (ours alone)")
    parser.add_argument("--keep", action="store_true", help="the base models in --work, for the next benchmark")
    parser.add_argument("--tiny", action="store_true", help="small shapes, to try the script on a CPU")
    options = parser.parse_args()
    from shelfwise.data.catalogue import read_catalogue
    from shelfwise.pipelines.finetune import quiet_libraries

    quiet_libraries()
    _bench.say(f"imports took {time.time() - psutil.Process().create_time():.1f} s")
    texts = [product.text for product in read_catalogue(options.catalogue).products]
    top = ceiling()
    _bench.say(f"a bf16 product of 8192 cubed: {top:.0f} TFLOP/s")
    rows: list[dict[str, Any]] = []
    for architecture in options.models:
        with base_model(architecture, texts, options) as base:
            for name in options.settings:
                setting, measure = (OURS[name], ours) if name in OURS else (PEERS[name], peer)
                forget()
                row: dict[str, Any] = {"model": f"{NAMES[architecture]} (random weights)", "setting": setting.title}
                try:
                    row |= {"ceiling_tflops": round(top), **measure(architecture, setting, base, options)}
                except Exception as error:  # one that fails is recorded, and the others still run
                    traceback.print_exc()
                    row["error"] = f"{type(error).__name__}: {error}"[:500]
                rows.append(row)
                _bench.say(row)
                _bench.write(options.name, rows, options.out)


if __name__ == "__main__":
    main()
