"""The language model's side of `train`: resolve, load, fine-tune, calibrate, save."""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from shelfwise import artifact, processes
from shelfwise.config import TrainConfig
from shelfwise.errors import ConfigError, InputError, ModelNotFoundError
from shelfwise.modeling import (
    adapters,
    backbone,
    checkpoint,
    distributed,
    encoding,
    hardware,
    memory,
    parallel,
    registry,
    sharding,
    tiny,
)
from shelfwise.modeling.batching import Item
from shelfwise.modeling.encoding import Encoder
from shelfwise.modeling.engine import Engine
from shelfwise.modeling.job import Job, StopRequest, TrainProgress, Validation
from shelfwise.modeling.packed.choice import goes_packed, packed_model
from shelfwise.modeling.trainer import ShelfwiseTrainer
from shelfwise.pipelines import shrinking
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
from shelfwise.prompts import PromptFormat

if TYPE_CHECKING:
    from shelfwise.config import Precision


def finetune(
    config: TrainConfig, prepared: Prepared, out: Path, *, resume: bool, device: str, hooks: Hooks
) -> tuple[TrainedRun, Calibrated]:
    """Fine-tune a base model and save it into the run folder.

    Returns:
        The run, and what the model's calibration on the validation part came to.
    """
    quiet_libraries()
    place = distributed.device_of(device)
    if place.index and processes.count() == 1:
        raise InputError(f"--device {device}: training takes the first visible GPU; set CUDA_VISIBLE_DEVICES instead.")
    resolved = distributed.first_goes_ahead(lambda: registry.resolve(config.model, config.revision))
    encoder = Encoder(_tokenizer(resolved, prepared), PromptFormat())
    items = encode_items(encoder, config.objective, prepared)
    base_config = _base_config(resolved, encoder)
    precision = hardware.resolve_precision(config.training.precision, place)
    config, choice = settle(config, resolved, base_config, items, place, precision)
    hooks.note(_plan_line(config, choice, place))
    torch.manual_seed(config.training.seed)
    # A model to be cut need not fit the device while it is whole.
    loading = place if choice.shards == 1 else torch.device("cpu")
    settings = load_settings(config, len(prepared.labels), loading, config.training.precision)
    pad = encoder.tokenizer.pad_token_id
    model: Any = (
        backbone.load(resolved.folder, settings, pad) if resolved.folder else backbone.fresh(base_config, settings, pad)
    )
    if config.training.gradient_checkpointing:
        backbone.enable_gradient_checkpointing(model)
    if config.method != "full":
        model = adapters.attach(model, config.lora, config.objective)
    if choice.shards > 1:
        sharding.shard(model, place, settings.precision)
    else:
        distributed.broadcast_parameters(p for p in model.parameters() if p.requires_grad)
    engine = Engine.of(model, encoder, config.objective, prepared.labels, place, settings.precision)
    if choice.shards == 1 and processes.count() == 1:
        longest = max(len(item.input_ids) for item in items)
        engine = replace(engine, packed=packed_model(config, model, longest, place, settings.precision))
    if not resume and processes.is_first():  # only now: a model that can't be loaded leaves no run behind
        begin(out, config, prepared)
    job = _job(config, prepared, items, settings.precision, out, hooks)
    run = _optimise(engine, job, config, out, resume, hooks)
    _save(engine, config, out)
    return run, calibrate(engine, prepared)


def quiet_libraries() -> None:
    """Leave the terminal to our own progress: no bars and no advice from the libraries below."""
    import transformers

    transformers.logging.disable_progress_bar()
    transformers.logging.set_verbosity_error()
    # PEFT asks for an attribute that transformers has renamed; nothing that a user could mend.
    warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")


def _tokenizer(resolved: registry.ResolvedModel, prepared: Prepared) -> Any:
    if resolved.folder:
        return encoding.load_tokenizer(resolved.folder)
    assert resolved.spec is not None  # only built-in models have no folder
    prompts = PromptFormat()
    texts = [prompts.labelled(product.text, product.label or "") for product in prepared.train]
    return tiny.tokenizer_for(resolved.spec.architecture, texts)


def _base_config(resolved: registry.ResolvedModel, encoder: Encoder) -> Any:
    from transformers import AutoConfig

    if resolved.folder:
        try:
            return AutoConfig.from_pretrained(resolved.folder)
        except (OSError, ValueError, KeyError) as error:
            raise ModelNotFoundError(f"{resolved.folder}: no base model that transformers knows ({error}).") from error
    assert resolved.spec is not None
    return tiny.config_for(resolved.spec.architecture, encoder.tokenizer)


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
) -> tuple[TrainConfig, memory.Choice]:
    """Fill every None and "auto" of a configuration from the base model's recipe and the memory there is.

    Raises:
        ConfigError: the wishes don't go together.
    """
    training = config.training
    if resolved.folder is None and config.method in ("lora", "qlora"):
        raise ConfigError(
            f"{config.model} starts from fresh weights, so there is nothing for an adapter to adapt: use --method full."
        )
    shape = memory.Shape.of(base_config, backbone.model_class(config.objective))
    precision = hardware.resolve_precision(training.precision, device, shape.parameters)
    lengths = [len(item.input_ids) for item in items]
    packed = processes.count() == 1 and goes_packed(
        config, base_config, max(lengths), on_gpu=device.type == "cuda", precision=precision
    )
    wish = memory.Wish(
        method="full" if resolved.folder is None else None if config.method == "auto" else config.method,
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
    )
    choice = parallel.choose(shape, wish, training.parallel, distributed.free_memory(device))
    if choice.shards > 1 and precision == "fp16":
        raise ConfigError("training.precision: fp16 can't be scaled over the pieces of a model; use bf16 or fp32.")
    if choice.optimizer == "adamw_bf16" and choice.method != "full":
        raise ConfigError("training.optimizer: adamw_bf16 is for --method full; adapters are small enough for adamw.")
    filled = training.model_copy(
        update={
            "learning_rate": training.learning_rate or resolved.learning_rates[choice.method],
            "precision": precision,
            "micro_batch_size": choice.micro_batch_size,
            "gradient_checkpointing": choice.checkpointing,
            "optimizer": choice.optimizer,
        }
    )
    revision = resolved.revision or None
    return config.model_copy(update={"method": choice.method, "revision": revision, "training": filled}), choice


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


def load_settings(config: TrainConfig, n_labels: int, device: torch.device, precision: Any) -> backbone.LoadSettings:
    """Load settings of a settled configuration, for training."""
    return backbone.LoadSettings(
        objective=config.objective,
        method=config.method,  # type: ignore[arg-type]  # settled: no longer "auto"
        n_labels=n_labels,
        device=device,
        precision=precision,
        dropout=config.training.dropout,
        bf16_weights=config.training.optimizer == "adamw_bf16",
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


def _optimise(engine: Engine, job: Job, config: TrainConfig, out: Path, resume: bool, hooks: Hooks) -> TrainedRun:
    start = checkpoint.latest_for_all(job.checkpoints) if resume else None
    if start is not None:
        hooks.note(f"going on from {start.name}")
    trainer = ShelfwiseTrainer(engine, job)
    if engine.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(engine.device)
    began = time.perf_counter()
    with stopping_on_signals(job.stop, hooks.note), shrinking.at_its_end(config, trainer.fitting):
        trainer.train(resume_from_checkpoint=str(start) if start else None)
    seconds = time.perf_counter() - began
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
