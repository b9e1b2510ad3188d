"""A thin subclass of transformers' Trainer: only what it lacks.

Steps are random draws, with rows of like length side by side where they are padded; rates go layer by layer, validation
scores every label, a loss that is no number ends the run, and checkpoints are whole and verified. Mixed precision,
accumulation, clipping, trackers and distribution are Trainer's own.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from transformers import EarlyStoppingCallback, Trainer, TrainerCallback
from transformers.integrations import TensorBoardCallback
from transformers.trainer_callback import ExportableState, PrinterCallback, ProgressCallback

from shelfwise import metrics as measures
from shelfwise import storage
from shelfwise.errors import MissingPackageError, TrainingError
from shelfwise.modeling import adapters, checkpoint, distributed, sharding
from shelfwise.modeling.batching import CompletionCollator, HeadCollator, Items, SpanCollator, StepSampler
from shelfwise.modeling.engine import Engine
from shelfwise.modeling.job import Job, TrainProgress, training_arguments
from shelfwise.modeling.out_of_memory import FittingParts
from shelfwise.modeling.packed.tiles import kept_cells
from shelfwise.prompts import IGNORE_INDEX


class ShelfwiseTrainer(Trainer):
    """Trains one model for one job. `train()` and `train(resume_from_checkpoint=...)` are Trainer's own."""

    def __init__(self, engine: Engine, job: Job) -> None:
        """Args:
        engine: the model to be trained, with its tokenizer and labels; also what scores the validation part.
        job: data, configuration and where checkpoints go.
        """
        pad = engine.encoder.tokenizer.pad_token_id
        super().__init__(
            model=engine.model,
            args=training_arguments(job, engine.device),
            data_collator=_collator(engine, pad),
            train_dataset=Items(job.items),
            eval_dataset=Items([]),
            callbacks=[_Watch(self, job)],
        )
        self.engine = engine
        self.job = job
        self.control: Any
        self.optimizer: Any
        self.sampler = StepSampler(
            [len(item.input_ids) for item in job.items],
            job.accumulation * job.rows_at_once,
            job.rows_at_once,
            job.config.seed,
            padded=engine.packed is None,
        )
        self.fitting = FittingParts(job.micro_batch_size, pad, job.shrunk)
        self._first_bad_step = torch.full((), -1, dtype=torch.long, device=self.args.device)
        for callback in (PrinterCallback, ProgressCallback):
            self.remove_callback(callback)
        if job.config.patience is not None and self.args.load_best_model_at_end:
            self.add_callback(EarlyStoppingCallback(job.config.patience))
        for callback in self.callback_handler.callbacks:
            if isinstance(callback, TensorBoardCallback) and callback.logging_dir is None and job.tracker_files:
                callback.logging_dir = str(job.tracker_files / "tensorboard")

    # Several processes

    def create_accelerator_and_postprocess(self) -> None:
        """Trainer's own, but that gradients are averaged here or by FSDP2, whatever way the forward pass is written."""
        super().create_accelerator_and_postprocess()
        # accelerate's `evaluation_mode`: autocast, and no DistributedDataParallel around the model.
        self.accelerator.prepare_model = functools.partial(self.accelerator.prepare_model, evaluation_mode=True)

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Trainer's own for one process. Accelerate's shares would repeat rows where a step can't be shared evenly."""
        if self.job.processes == 1:
            loader: DataLoader[Any] = super().get_train_dataloader()
            return loader
        return DataLoader(
            self.train_dataset,
            batch_sampler=distributed.SharedBatches(self.sampler, self.job.rows_at_once),
            collate_fn=distributed.SharedCollator(self.data_collator, self.job.items[0]),
            pin_memory=self.args.dataloader_pin_memory,
        )

    def _run_epoch(self, *given: Any, **named: Any) -> None:
        """Trainer's own; but a run that is resumed at its end makes no further step."""
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
        else:
            super()._run_epoch(*given, **named)

    # Batches

    def _get_train_sampler(self, train_dataset: Any = None) -> StepSampler:
        return self.sampler

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Tensor]:
        """Micro-batches of one optimiser step, and how many targets they hold over all processes."""
        self.fitting.begin_step()
        samples, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        count = sum((batch["labels"] != IGNORE_INDEX).sum() for batch in samples)
        targets = torch.as_tensor(count, device=device)
        return samples, self.accelerator.gather(targets).sum() if self.args.world_size > 1 else targets

    # The step

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """AdamW (Loshchilov and Hutter 2019) over layer-wise parameter groups."""
        if self.optimizer is None:
            rates = adapters.RateSettings(
                self.job.learning_rate, self.job.config.weight_decay, self.job.config.layer_decay
            )
            groups = adapters.parameter_groups(model or self.model, rates)
            if self.job.config.optimizer == "adamw_bf16":
                self.optimizer = stochastic_rounding_adamw()(groups, bf16_stochastic_round=True)
            else:
                fused = self.args.device.type == "cuda"
                self.optimizer = torch.optim.AdamW(groups, fused=fused)
        optimizer: torch.optim.Optimizer = self.optimizer
        return optimizer

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | None = None,
    ) -> Any:
        """Cross-entropy in nats: summed over the micro-batch's targets, divided by the targets of the whole step."""
        labels = inputs["labels"]
        if self.engine.packed is not None:
            logits = self.engine.packed_logits(inputs["spans"], compiled=True)
            if labels.ndim > 1:
                labels = labels[
                    tuple(at.to(labels.device, non_blocking=True) for at in kept_cells(inputs["spans"].kept))
                ]
        elif self.engine.objective == "head":
            logits = model(input_ids=inputs["input_ids"], use_cache=False).logits
        else:
            # Logits only where some row has a target: the vocabulary is the widest thing there is.
            columns = (labels != IGNORE_INDEX).any(dim=0).nonzero().squeeze(1)
            logits = model(input_ids=inputs["input_ids"], use_cache=False, logits_to_keep=columns).logits
            logits, labels = logits.flatten(0, 1), labels[:, columns].flatten()
        total = F.cross_entropy(
            logits.float(), labels, reduction="sum", label_smoothing=self.job.config.label_smoothing
        )
        targets = num_items_in_batch if num_items_in_batch is not None else (labels != IGNORE_INDEX).sum()
        # Gradients are averaged over processes; targets were counted over all of them.
        loss = total * self.accelerator.num_processes / targets
        return (loss, {"logits": logits}) if return_outputs else loss

    def training_step(
        self, model: nn.Module, inputs: dict[str, Tensor], num_items_in_batch: Tensor | None = None
    ) -> Tensor:
        """One micro-batch forward and backward; remembers the first step whose loss is no number, without a sync."""
        # Trainer divides by the accumulation steps unless it believes the model has counted the targets itself.
        self.model_accepts_loss_kwargs = True
        step = super().training_step
        loss = self.fitting.run(model, inputs, lambda part: step(model, part, num_items_in_batch))
        if self.accelerator.sync_gradients and not sharding.is_sharded(self.model):
            distributed.average_gradients(p for p in self.model.parameters() if p.requires_grad)
        # Numbers go to the GPU with the kernel; `torch.where` would copy one, and wait.
        bad = (self._first_bad_step < 0) & ~torch.isfinite(loss)
        self._first_bad_step += bad * (self.state.global_step + 1 - self._first_bad_step)
        return loss

    def check_finite(self) -> None:
        """End a run whose loss is no longer a number.

        Raises:
            TrainingError: names the step.
        """
        step = distributed.greatest(int(self._first_bad_step))
        if step >= 0:
            raise TrainingError(
                f"The loss was not a finite number at step {step} of {self.job.steps}. Nothing was saved after it; "
                f"the last good checkpoint is kept. Lower --learning-rate (now {self.job.learning_rate:g}) or use "
                "--precision fp32."
            )

    # Validation

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Score the validation part: mean negative log-likelihood of the true label in nats, accuracy, macro-F1."""
        self.check_finite()
        validation = self.job.validation
        scores = measures.scores(self.engine.log_probs(list(validation.texts)), np.asarray(validation.targets))
        values = {
            "eval_loss": scores.mean_nll,
            "eval_accuracy": scores.accuracy,
            "eval_macro_f1": scores.macro_f1,
        }
        self.log(dict(values))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, values)
        return values

    # Checkpoints

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        self.check_finite()
        folder = checkpoint.folder_of(self.job.checkpoints, self.state.global_step)
        best = self._best_checkpoint(folder)
        self.state.best_model_checkpoint = str(best) if best else None
        weights = sharding.whole_weights(self.model)
        optimizer = sharding.whole_optimizer(self.optimizer.state_dict())
        if self.args.should_save:
            self._write_checkpoint(folder, weights, optimizer)
            checkpoint.rotate(self.job.checkpoints, self.job.config.checkpoints_kept, best)
        distributed.wait_for_all()

    def _write_checkpoint(self, folder: Path, weights: dict[str, Tensor] | None, optimizer: dict[str, Any]) -> None:
        for callback in [*self.callback_handler.callbacks, self.control]:
            if isinstance(callback, ExportableState):
                self.state.stateful_callbacks[type(callback).__name__] = callback.state()
        with storage.atomic_folder(folder) as staging:
            checkpoint.save_model(self.model, staging, weights)
            checkpoint.save_training_state(staging, optimizer, self.lr_scheduler, self.accelerator.scaler)
            self.state.save_to_json(str(staging / "trainer_state.json"))
            storage.write_manifest(staging, {"step": self.state.global_step})

    def _best_checkpoint(self, current: Path) -> Path | None:
        if not self.state.best_global_step:
            return None
        best = checkpoint.folder_of(self.job.checkpoints, self.state.best_global_step)
        return best if best == current or best.is_dir() else None

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        if sharding.is_sharded(self.model):
            sharding.load_weights(self.model, Path(resume_from_checkpoint))
        else:
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_best_model(self) -> None:
        if sharding.is_sharded(self.model):
            sharding.load_weights(self.model, Path(self.state.best_model_checkpoint))
        else:
            super()._load_best_model()

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:  # Trainer's name for it
        if checkpoint is not None:
            _load_state(Path(checkpoint), self)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            _load_random(Path(checkpoint))

    def _load_scaler(self, checkpoint: str | None) -> None:
        """Loaded together with the optimiser."""


def _collator(engine: Engine, pad_token_id: int) -> HeadCollator | CompletionCollator | SpanCollator:
    plain = HeadCollator(pad_token_id) if engine.objective == "head" else CompletionCollator(pad_token_id)
    return plain if engine.packed is None else SpanCollator(plain)


def _load_state(folder: Path, trainer: ShelfwiseTrainer) -> None:
    checkpoint.load_training_state(folder, trainer.optimizer, trainer.lr_scheduler, trainer.accelerator.scaler)


def _load_random(folder: Path) -> None:
    checkpoint.load_random_state(folder)


def stochastic_rounding_adamw() -> Any:
    """torchao's AdamW, which can round bf16 weights up or down at random, so that small updates survive in the mean.

    Raises:
        MissingPackageError: torchao is not installed.
    """
    try:
        from torchao.optim import _AdamW
    except ImportError as error:
        raise MissingPackageError("optimizer adamw_bf16 needs torchao: pip install 'shelfwise[torchao]'") from error
    return _AdamW


class _Watch(TrainerCallback):
    """Sets the epoch's order, reports progress, and turns a stop request into a checkpoint and an end."""

    def __init__(self, trainer: ShelfwiseTrainer, job: Job) -> None:
        self._trainer = trainer
        self._job = job

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._job.report(TrainProgress(state.global_step, self._job.steps, float(state.epoch or 0), {}))

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._trainer.sampler.set_epoch(state.global_step // self._job.steps_per_epoch)

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        distributed.seed_step(self._job.config.seed, state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        # A signal may have reached one process of several; all end after the same step.
        self._job.stop.requested = bool(distributed.greatest(self._job.stop.requested))
        if self._job.stop.requested:
            control.should_save = True
            control.should_training_stop = True

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        if logs and "loss" in logs:
            self._trainer.check_finite()
        values = {key: float(value) for key, value in (logs or {}).items() if isinstance(value, (int, float))}
        self._job.report(TrainProgress(state.global_step, self._job.steps, float(state.epoch or 0), values))

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._trainer.check_finite()
