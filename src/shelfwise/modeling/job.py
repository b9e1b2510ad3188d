"""What a training is told, and what it tells."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from transformers import TrainingArguments

from shelfwise.config import Precision, TrainingConfig
from shelfwise.modeling.batching import Item


@dataclass(frozen=True, slots=True)
class TrainProgress:
    """Where a training run stands."""

    step: int
    steps: int
    epoch: float
    values: dict[str, float]  # loss, grad_norm, learning_rate, or eval_loss, eval_accuracy, eval_macro_f1


@dataclass(slots=True)
class StopRequest:
    """Set by a signal; the run ends after the step at hand, with a checkpoint."""

    requested: bool = False


@dataclass(frozen=True, slots=True)
class Validation:
    """Texts and label indices that choose the best weights."""

    texts: Sequence[str]
    targets: Sequence[int]


@dataclass(frozen=True, slots=True)
class Job:
    """Everything one training needs beyond the model."""

    items: Sequence[Item]
    validation: Validation
    config: TrainingConfig  # resolved: no None or "auto" where the trainer looks
    micro_batch_size: int
    learning_rate: float
    precision: Precision
    checkpoints: Path
    processes: int = 1  # that share each step
    trackers: tuple[str, ...] = ()
    tracker_files: Path | None = None  # where a tracker that writes files puts them; None: beside the checkpoints
    stop: StopRequest = field(default_factory=StopRequest)
    report: Callable[[TrainProgress], None] = lambda _: None
    shrunk: Callable[[int], None] = lambda _: None  # told of the smaller micro-batch that the memory asked for

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps an epoch, the last of which may be short."""
        return math.ceil(math.ceil(len(self.items) / self.rows_at_once) / self.accumulation)

    @property
    def rows_at_once(self) -> int:
        """Rows that all processes together pass forward at a time."""
        return self.micro_batch_size * self.processes

    @property
    def accumulation(self) -> int:
        """Micro-batches an optimiser step, of each process."""
        return self.config.batch_size // self.rows_at_once

    @property
    def steps(self) -> int:
        """Optimiser steps in all."""
        return self.config.max_steps or max(1, math.ceil(self.steps_per_epoch * self.config.epochs))


def training_arguments(job: Job, device: torch.device) -> TrainingArguments:
    """transformers' arguments for a job on one device of each process."""
    config = job.config
    evaluates = config.evaluations_per_epoch > 0 and len(job.validation.texts) > 0
    every = max(1, job.steps_per_epoch // max(1, config.evaluations_per_epoch))
    arguments = TrainingArguments(
        output_dir=str(job.checkpoints),
        per_device_train_batch_size=job.micro_batch_size,
        gradient_accumulation_steps=job.accumulation,
        learning_rate=job.learning_rate,
        weight_decay=config.weight_decay,
        max_steps=job.steps,
        lr_scheduler_type="cosine",
        warmup_steps=min(job.steps - 1, math.ceil(config.warmup_ratio * job.steps)),
        max_grad_norm=config.max_grad_norm,
        bf16=job.precision == "bf16",
        fp16=job.precision == "fp16",
        eval_strategy="steps" if evaluates else "no",
        eval_steps=every,
        save_strategy="steps" if evaluates else "no",
        save_steps=every,
        load_best_model_at_end=evaluates,
        metric_for_best_model=config.best_metric if evaluates else None,
        greater_is_better=config.best_metric == "macro_f1",
        restore_callback_states_from_checkpoint=True,
        # To log is to wait for the GPU.
        logging_steps=max(5 if device.type == "cuda" else 1, job.steps // 200),
        logging_nan_inf_filter=False,  # Trainer's default hides a NaN loss behind an average
        report_to=list(job.trackers) or "none",
        log_level_replica="error",  # Trainer's default lets all processes but the first warn
        run_name=job.checkpoints.parent.name,
        seed=config.seed,
        data_seed=config.seed,
        disable_tqdm=True,
        remove_unused_columns=False,
        label_names=["labels"],
        dataloader_pin_memory=device.type == "cuda",
        # A copy that waits waits for the whole step before it, and the next one is laid out while the GPU idles.
        accelerator_config={"non_blocking": device.type == "cuda"},
        use_cpu=device.type == "cpu",
    )
    # Left alone, Trainer would spread one process over all GPUs by nn.DataParallel, which knows nothing of our steps.
    if arguments.n_gpu > 1:
        arguments._n_gpu = 1
    return arguments
