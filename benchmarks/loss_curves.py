"""Loss curves on the same rows in the same order: plain transformers' Trainer, ours with padding, ours without.

    python benchmarks/loss_curves.py CATALOGUE --steps 16 --batch 32 --out benchmarks/results

SmolLM2-135M with a head, full and LoRA, float32 by default. Plain Trainer gets the rows in the order that our sampler
gives them, the same rates, decay, clipping and initial weights, and nothing else of ours.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

import _bench


def config_of(options: argparse.Namespace, method: str, packed: bool) -> Any:
    from shelfwise.config import parse

    return parse(
        {
            "catalogue": str(options.catalogue),
            "model": options.model,
            "method": method,
            "baseline": False,
            "lora": {"dropout": 0.0},
            "split": {"strategy": "random", "validation_size": 0},
            "training": {
                "max_steps": options.steps,
                "batch_size": options.batch,
                "micro_batch_size": options.batch,
                "learning_rate": {"full": 4e-4, "lora": 2e-3}[method],
                "precision": options.precision,
                "packed": packed,
                "evaluations_per_epoch": 0,
                "pretraining_epochs": 0,
                "head_init": "random",
            },
        },
        "loss_curves",
    )


def ours(options: argparse.Namespace, method: str, packed: bool) -> list[float]:
    from shelfwise import artifact
    from shelfwise.pipelines.train import train

    run = options.work / "run"
    shutil.rmtree(run, ignore_errors=True)
    train(config_of(options, method, packed), run)
    lines = (run / artifact.METRICS).read_text(encoding="utf-8").splitlines()
    shutil.rmtree(run)
    return [entry["loss"] for entry in map(json.loads, lines) if "loss" in entry]


def plain(options: argparse.Namespace, method: str) -> list[float]:
    """transformers' Trainer, PEFT's model, torch's AdamW; our encoder and order, for the rows have to be the same."""
    import torch
    from torch.utils.data import SequentialSampler
    from transformers import DataCollatorWithPadding, Trainer, TrainerCallback, TrainingArguments

    from shelfwise.modeling import adapters, backbone, encoding, registry
    from shelfwise.modeling.batching import StepSampler
    from shelfwise.modeling.encoding import Encoder
    from shelfwise.pipelines import finetune
    from shelfwise.pipelines.base_model import load_settings
    from shelfwise.pipelines.run import prepare
    from shelfwise.prompts import PromptFormat

    config = config_of(options, method, False)
    prepared = prepare(config)
    folder = registry.resolve(config.model, None).folder
    assert folder is not None
    encoder = Encoder(encoding.load_tokenizer(folder), PromptFormat())
    items = finetune.encode_items(encoder, "head", prepared)
    order = list(StepSampler([len(item.input_ids) for item in items], options.batch, options.batch, 0))
    rows = []
    for i in order[: options.steps * options.batch]:
        ids = items[i].input_ids
        rows.append({"input_ids": ids, "attention_mask": [1] * len(ids), "labels": items[i].target})
    torch.manual_seed(config.training.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    settings = load_settings(config, len(prepared.labels), device, options.precision)
    model: Any = backbone.load(folder, settings, encoder.tokenizer.pad_token_id)
    if method == "lora":
        model = adapters.attach(model, config.lora, "head")
    losses: list[float] = []

    class Keep(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if logs and "loss" in logs:
                losses.append(logs["loss"])

    class InOrder(Trainer):
        def _get_train_sampler(self, *_: Any) -> Any:
            return SequentialSampler(rows)

    arguments = TrainingArguments(
        output_dir=str(options.work / "plain"), per_device_train_batch_size=options.batch, max_steps=options.steps,
        learning_rate=config.training.learning_rate, weight_decay=config.training.weight_decay, logging_steps=1,
        lr_scheduler_type="cosine", warmup_steps=int(np.ceil(config.training.warmup_ratio * options.steps)),
        bf16=options.precision == "bf16", save_strategy="no", report_to="none", disable_tqdm=True,
        remove_unused_columns=False, use_cpu=device.type == "cpu",
    )  # fmt: skip
    InOrder(
        model=model,
        args=arguments,
        train_dataset=rows,
        data_collator=DataCollatorWithPadding(encoder.tokenizer),
        callbacks=[Keep()],
    ).train()
    return [float(loss) for loss in losses]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("catalogue", type=Path)
    parser.add_argument("--out", type=Path, default=_bench.RESULTS)
    parser.add_argument("--work", type=Path, default=Path("runs"))
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--methods", nargs="+", choices=["full", "lora"], default=["full", "lora"])
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--name", default="loss_curves", help="of the result file")
    options = parser.parse_args()
    rows = []
    for method in options.methods:
        wanted = plain(options, method)
        for way in ("padded", "packed"):
            found = ours(options, method, way == "packed")
            differences = [abs(a - b) for a, b in zip(found, wanted, strict=True)]
            rows.append(
                {
                    "model": options.model,
                    "method": method,
                    "precision": options.precision,
                    "path": way,
                    "batch": options.batch,
                    "steps": options.steps,
                    "losses": [round(loss, 4) for loss in found],
                    "plain_trainer_losses": [round(loss, 4) for loss in wanted],
                    "largest_difference": round(max(differences), 5),
                }
            )
            _bench.say(rows[-1])
            _bench.write(options.name, rows, options.out)


if __name__ == "__main__":
    main()
