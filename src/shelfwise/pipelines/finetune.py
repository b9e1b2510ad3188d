"""The language model's side of `train`: resolve, load, fine-tune, calibrate, save."""

from __future__ import annotations

import shutil
import statistics
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from shelfwise import artifact, processes
from shelfwise.config import TrainConfig
from shelfwise.errors import ConfigError
from shelfwise.modeling import backbone, checkpoint, distributed, hardware, memory, parallel, registry, sharding
from shelfwise.modeling.batching import Item
from shelfwise.modeling.encoding import Encoder
from shelfwise.modeling.engine import Engine
from shelfwise.modeling.head_init import init_from_labels
from shelfwise.modeling.job import Job, StopRequest, TrainProgress, Validation
from shelfwise.modeling.packed.choice import goes_packed
from shelfwise.modeling.packed.tiles import computed_shares
from shelfwise.modeling.trainer import ShelfwiseTrainer, stochastic_rounding_adamw
from shelfwise.pipelines import shrinking, training_time
from shelfwise.pipelines.base_model import BaseModel
from shelfwise.pipelines.pretraining import Pretraining, forget, items_of, settings
from shelfwise.pipelines.run import (
    Calibrated,
    Hooks,
    Prepared,
    TrainedRun,
    append_metrics,
    begin,
    calibrate,
    targets_of,
)
from shelfwise.pipelines.stopping import interrupted, stopping_on_signals

if TYPE_CHECKING:
    from shelfwise.config import Precision
    from shelfwise.records import Method


def finetune(
    config: TrainConfig, prepared: Prepared, out: Path, *, resume: bool, device: str, hooks: Hooks
) -> tuple[TrainedRun, Calibrated]:
    """Fine-tune a base model and save it into the run folder.

    Returns:
        The run, and what the model's calibration on the validation part came to.
    """
    quiet_libraries()
    base = BaseModel.find(config, prepared, device)
    items = encode_items(base.encoder, config.objective, prepared)
    precision = hardware.resolve_precision(config.training.precision, base.device)
    asked_for = config.training.micro_batch_size
    config, choice = settle(config, base.resolved, base.config, items, base.device, precision)
    # Names whole are targets, so what fits the memory is another question.
    reading = shrinking.with_micro_batch(config, asked_for)
    hooks.note(_plan_line(config, choice, base.device))

    def started() -> None:
        # Only when a model was loaded: one that can't be leaves no run behind.
        if not resume and processes.is_first() and not (out / artifact.CONFIG).is_file():
            begin(out, config, prepared)

    start = checkpoint.latest_for_all(out / artifact.CHECKPOINTS) if resume else None
    names = Pretraining.of(out)
    before = None
    if config.training.pretraining_epochs and start is None and not names.is_done:
        before = _read_names(names, reading, base, prepared, out, started, hooks)

    def prepare(engine: Engine) -> None:
        if start is not None:  # its weights replace all that stand here
            return
        if config.training.pretraining_epochs:
            names.give_to(engine.model)
        if config.objective == "head" and config.training.head_init == "labels":
            init_from_labels(engine)

    engine = base.engine(config, prepared.labels, items, choice.shards, prepare)
    started()
    job = _job(config, prepared, items, engine.precision, out, hooks)
    if start is not None:
        hooks.note(f"going on from {start.name}")
    run = _optimise(engine, job, config, out, start, hooks)
    _save(engine, config, out)
    run = run.after(before) if before else replace(run, seconds=run.seconds + training_time.read(names.checkpoints))
    if processes.is_first():
        shutil.rmtree(names.folder, ignore_errors=True)
    return run, calibrate(engine, prepared)


def _read_names(
    names: Pretraining,
    config: TrainConfig,
    base: BaseModel,
    prepared: Prepared,
    out: Path,
    started: Callable[[], None],
    hooks: Hooks,
) -> TrainedRun:
    """Train on names alone, and keep what was learned for the run that follows."""
    items = items_of(prepared, base.encoder)
    precision: Any = config.training.precision  # settled
    config, choice = settle(
        settings(config, len(items)), base.resolved, base.config, items, base.device, precision, all_targets=True
    )
    training = config.training
    often = f"for {training.max_steps} steps" if training.max_steps else f"{training.epochs:g} times over"
    hooks.note(f"before the labels: reading {len(items):,} names {often}, held-out ones excepted")
    engine = base.engine(config, prepared.labels, items, choice.shards, lambda _: None, scores=False)
    started()
    job = _job(config, prepared, items, engine.precision, out, hooks)
    job = replace(job, checkpoints=names.checkpoints, trackers=(), report=_as_pretraining(job.report))
    start = checkpoint.latest_for_all(names.checkpoints)
    if start is not None:
        hooks.note(f"going on from {start.name} of the names")
    run = _optimise(engine, job, config, out, start, hooks)
    names.keep(engine.model)
    del engine, job
    forget(base.device)
    return run


def _as_pretraining(report: Callable[[TrainProgress], None]) -> Callable[[TrainProgress], None]:
    """A reporter whose values can't be taken for those of the labels' steps."""

    def told(progress: TrainProgress) -> None:
        values = {f"pretraining_{name}": value for name, value in progress.values.items()}
        report(replace(progress, values=values))

    return told


def quiet_libraries() -> None:
    """Leave the terminal to our own progress: no bars and no advice from the libraries below."""
    import transformers

    transformers.logging.disable_progress_bar()
    transformers.logging.set_verbosity_error()
    # PEFT asks for an attribute that transformers has renamed; nothing that a user could mend.
    warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")


def encode_items(encoder: Encoder, objective: str, prepared: Prepared) -> list[Item]:
    """Training rows; for `completion` each prompt is followed by its label's ids and EOS."""
    targets = targets_of(prepared.train, prepared.labels)
    prompts = encoder.encode([product.text for product in prepared.train])
    if objective == "head":
        return [Item(ids, target, len(ids)) for ids, target in zip(prompts, targets, strict=True)]
    ends = encoder.completions(prepared.labels.names)
    return [Item(ids + ends[target], target, len(ids)) for ids, target in zip(prompts, targets, strict=True)]


def settle(
    config: TrainConfig,
    resolved: registry.ResolvedModel,
    base_config: Any,
    items: Sequence[Item],
    device: torch.device,
    precision: Precision,
    *,
    all_targets: bool = False,
) -> tuple[TrainConfig, memory.Choice]:
    """Fill every None and "auto" of a configuration from the base model's recipe and the memory there is.

    Args:
        config: to be filled.
        resolved: the base model.
        base_config: transformers' configuration of it.
        items: the rows that it is trained on.
        device: where.
        precision: of the step.
        all_targets: every token of `items` is a target.

    Raises:
        ConfigError: the wishes don't go together.
        MissingPackageError: the optimiser's package is not installed.
    """
    training = config.training
    if resolved.folder is None and config.method in ("lora", "qlora"):
        raise ConfigError(
            f"{config.model} starts from fresh weights, so there is nothing for an adapter to adapt: use --method full."
        )
    shape = memory.Shape.of(base_config, backbone.model_class(config.objective))
    precision = hardware.resolve_precision(training.precision, device, shape.parameters)
    fresh = resolved.folder is None
    wish = _wish(config, base_config, items, device, precision, fresh=fresh, all_targets=all_targets)
    choice = parallel.choose(shape, wish, training.parallel, distributed.free_memory(device))
    if choice.shards > 1 and precision == "fp16":
        raise ConfigError("training.precision: fp16 can't be scaled over the pieces of a model; use bf16 or fp32.")
    if choice.optimizer == "adamw_bf16" and choice.method != "full":
        raise ConfigError("training.optimizer: adamw_bf16 is for --method full; adapters are small enough for adamw.")
    if choice.optimizer == "adamw_bf16" and precision == "fp32":
        raise ConfigError(
            "training.optimizer: adamw_bf16 keeps the weights in bf16, which fp32 can't multiply. Use adamw, or a "
            "training.precision of bf16."
        )
    if choice.optimizer == "adamw_bf16":
        stochastic_rounding_adamw()  # that it is missing is told before there is a run to go on with
    filled = training.model_copy(
        update={
            "learning_rate": training.learning_rate or resolved.learning_rates[choice.method],
            "precision": precision,
            "micro_batch_size": choice.micro_batch_size,
            "gradient_checkpointing": choice.checkpointing,
            "optimizer": choice.optimizer,
            "pretraining_epochs": (
                resolved.pretraining_epochs(choice.method)
                if training.pretraining_epochs is None
                else training.pretraining_epochs
            ),
            "head_init": _head_init(config, choice.method, fresh=fresh),
        }
    )
    revision = resolved.revision or None
    return config.model_copy(update={"method": choice.method, "revision": revision, "training": filled}), choice


def _wish(
    config: TrainConfig,
    base_config: Any,
    items: Sequence[Item],
    device: torch.device,
    precision: Precision,
    *,
    fresh: bool,
    all_targets: bool,
) -> memory.Wish:
    """What a configuration asks of the memory; None where the choice is `memory.choose`'s."""
    training = config.training
    rows = [item.input_ids for item in items]
    lengths = [len(row) for row in rows]
    packed = processes.count() == 1 and goes_packed(
        config, base_config, max(lengths), on_gpu=device.type == "cuda", precision=precision
    )
    return memory.Wish(
        method="full" if fresh else None if config.method == "auto" else config.method,
        optimizer=None if training.optimizer == "auto" else training.optimizer,
        micro_batch_size=training.micro_batch_size,
        checkpointing=None if training.gradient_checkpointing == "auto" else training.gradient_checkpointing,
        batch_size=training.batch_size,
        row_tokens=max(lengths),
        rank=config.lora.r,
        low_precision=precision != "fp32",
        on_gpu=device.type == "cuda",
        objective=config.objective,
        path="packed" if packed else "padded",
        mean_tokens=statistics.fmean(lengths),
        spread_tokens=statistics.pstdev(lengths),
        shares=computed_shares(rows) if packed else (),
        all_targets=all_targets,
    )


def _head_init(config: TrainConfig, method: Method, *, fresh: bool) -> Literal["labels", "random"]:
    """What a head begins with. Under adapters the labels' texts gained nothing (docs/lab-notes.md)."""
    if config.training.head_init != "auto":
        return config.training.head_init
    return "labels" if method == "full" and config.objective == "head" and not fresh else "random"


def _plan_line(config: TrainConfig, choice: memory.Choice, device: torch.device) -> str:
    training = config.training
    free = distributed.free_memory(device) / memory.GIB
    count = processes.count()
    over = f"{count} processes, {'cut into pieces (FSDP2)' if choice.shards > 1 else 'whole on each'}; " * (count > 1)
    return (
        f"{config.model}: {choice.method}, {config.objective}, {training.precision} on {device.type}, learning rate "
        f"{training.learning_rate:g}, batch {training.batch_size} in micro-batches of {training.micro_batch_size}"
        f"{', gradient checkpointing' if choice.checkpointing else ''}; {over}about "
        f"{choice.estimate.total / memory.GIB:.1f} GiB of the {free:.1f} GiB free"
    )


def _job(
    config: TrainConfig, prepared: Prepared, items: Sequence[Item], precision: Precision, out: Path, hooks: Hooks
) -> Job:
    record = append_metrics(out)

    def report(progress: TrainProgress) -> None:
        record(progress)
        hooks.report(progress)

    training = config.training
    assert training.micro_batch_size is not None  # settled
    assert training.learning_rate is not None
    return Job(
        items=items,
        validation=Validation(
            [product.text for product in prepared.validation],
            targets_of(prepared.validation, prepared.labels),
        ),
        config=training,
        micro_batch_size=training.micro_batch_size,
        learning_rate=training.learning_rate,
        precision=precision,
        checkpoints=out / artifact.CHECKPOINTS,
        processes=processes.count(),
        trackers=config.trackers,
        tracker_files=out / artifact.TRACKERS,
        stop=StopRequest(),
        report=report if processes.is_first() else lambda _: None,
        shrunk=shrinking.watch(out, hooks.note),
    )


def _optimise(engine: Engine, job: Job, config: TrainConfig, out: Path, start: Path | None, hooks: Hooks) -> TrainedRun:
    with training_time.leg(job.checkpoints) as keep_time:

        def report(progress: TrainProgress) -> None:
            if "eval_loss" in progress.values:  # a checkpoint follows
                keep_time()
            job.report(progress)

        trainer = ShelfwiseTrainer(engine, replace(job, report=report))
        if engine.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(engine.device)
        with stopping_on_signals(job.stop, hooks.note), shrinking.at_its_end(config, trainer.fitting):
            trainer.train(resume_from_checkpoint=str(start) if start else None)
        seconds = keep_time()
    if job.stop.requested and trainer.state.global_step < job.steps:
        raise interrupted(out, checkpoint.latest_for_all(job.checkpoints))
    trainer.accelerator.free_memory()
    trainer.optimizer = None
    peak = torch.cuda.max_memory_allocated(engine.device) if engine.device.type == "cuda" else None
    config = shrinking.with_micro_batch(config, trainer.fitting.micro_batch_size)
    return TrainedRun(out, config, trainer.state.global_step, seconds, trainer.state.best_metric, peak, len(job.items))


def _save(engine: Engine, config: TrainConfig, out: Path) -> None:
    """Save weights and tokenizer under the ecosystem's own names."""
    name = artifact.MODEL if config.method == "full" else artifact.ADAPTER
    weights = sharding.whole_weights(engine.model)
    if not processes.is_first():
        return
    with artifact.atomic_folder(out / name) as staging:
        checkpoint.save_model(engine.model, staging, weights)
        if config.method == "full":
            # A full model's folder is a plain transformers model: its tokenizer belongs beside it.
            engine.encoder.tokenizer.save_pretrained(staging)
    with artifact.atomic_folder(out / artifact.TOKENIZER) as staging:
        engine.encoder.tokenizer.save_pretrained(staging)
