"""Loading the model of a finished run, and the fastest way there is here to ask it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from shelfwise.config import Arithmetic, Precision, TrainConfig
from shelfwise.errors import ConfigError, CorruptArtifactError
from shelfwise.labels import Labels
from shelfwise.modeling import adapters, backbone, hardware, registry
from shelfwise.modeling.encoding import Encoder, load_tokenizer
from shelfwise.modeling.engine import Engine
from shelfwise.modeling.hardware import DTYPES, resolve_device, resolve_precision
from shelfwise.modeling.packed.completion import Completion
from shelfwise.modeling.packed.inference import Inference
from shelfwise.prompts import PromptFormat

_SPARE = 2 << 30  # bytes that merging 4-bit weights has to leave free


@dataclass(frozen=True, slots=True)
class Parts:
    """Where the parts of a run's model lie; `artifact` owns the names."""

    model: Path  # of a full run
    adapter: Path  # of a lora or qlora run
    tokenizer: Path


def load_engine(
    config: TrainConfig,
    labels: Labels,
    prompts: PromptFormat,
    parts: Parts,
    *,
    device: str = "auto",
    precision: Arithmetic = "auto",
    plain: bool = False,
) -> Engine:
    """Load the model of a finished run.

    Adapters are merged and answers computed without padding, where the architecture lets them be; on a GPU not in fp32.

    Args:
        config: the run's, settled.
        labels: the run's.
        prompts: the run's.
        parts: where its files lie.
        device: "auto", "cpu", "cuda".
        precision: "auto" is the run's own, so that a reloaded run answers as it did; but fp32 on a CPU that would have
            to emulate it.
        plain: as transformers and PEFT compute it, adapters apart; what faster ways are measured against.

    Raises:
        ConfigError: a precision that this model or this device can't have.
        CorruptArtifactError: a folder can't be loaded.
        ModelAccessError: an adapter's base model can't be had from here.
    """
    place = resolve_device(device)
    fp8 = precision == "fp8"
    if fp8 and not hardware.has_fp8(place):
        raise ConfigError(
            "--precision fp8: needs a GPU with fp8 (compute capability 8.9 or more). Use --precision auto."
        )
    base: Arithmetic = "bf16" if fp8 else precision
    model, settled = load_base(config, labels, parts, device=device, precision=base)
    if config.method != "full":
        model = adapters.load(model, parts.adapter)
    encoder = Encoder(load_tokenizer(parts.tokenizer), prompts)
    inference: Inference | Completion | None = None
    if not plain and (place.type == "cpu" or settled != "fp32"):
        model = _merged_where_it_fits(model, config, DTYPES[settled], place)
        inference = _inference(model, encoder, config, labels, dtype=DTYPES[settled], fp8=fp8)
    if fp8 and inference is None:
        raise ConfigError(f"--precision fp8: {config.model} has layers that can't be computed so. Use 'auto'.")
    engine = Engine.of(model, encoder, config.objective, labels, place, settled)
    return replace(engine, inference=inference)


def _inference(
    model: nn.Module, encoder: Encoder, config: TrainConfig, labels: Labels, *, dtype: torch.dtype, fp8: bool
) -> Inference | Completion | None:
    """The model without padding, where its layers are known."""
    if config.objective == "head":
        return Inference.of(model, dtype=dtype, fp8=fp8)
    return Completion.of(model, encoder.completions(labels.names), dtype=dtype, fp8=fp8)


def _merged_where_it_fits(model: Any, config: TrainConfig, dtype: torch.dtype, place: torch.device) -> nn.Module:
    """Without adapters; a quantised base is left as it is where its weights in 16 bits find no room."""
    if config.method == "full":
        return model  # type: ignore[no-any-return]
    if config.method == "qlora":
        weights = sum(2 * p.numel() for p in model.parameters())  # packed: two weights a byte
        if 2 * weights + _SPARE > hardware.free_memory(place):
            return model  # type: ignore[no-any-return]
    return adapters.merge(model, dtype)


def load_base(
    config: TrainConfig, labels: Labels, parts: Parts, *, device: str, precision: Arithmetic
) -> tuple[nn.Module, Precision]:
    """Load the weights of a finished run: its own of a full one, else those of its base model, without the adapter.

    Returns:
        The model, and the precision that "auto" comes to.
    """
    place = resolve_device(device)
    wanted: Any = config.training.precision if precision == "auto" else precision
    emulated = wanted == "fp16" or (wanted == "bf16" and precision == "auto" and not hardware.native_bf16())
    if place.type == "cpu" and emulated:
        wanted = "fp32"
    settings = backbone.LoadSettings(
        objective=config.objective,
        method=config.method,  # type: ignore[arg-type]  # a finished run's is settled
        n_labels=len(labels),
        device=place,
        precision=resolve_precision(wanted, place),
        trainable=False,
    )
    pad_token_id = load_tokenizer(parts.tokenizer).pad_token_id
    if config.method == "full":
        return backbone.load(parts.model, settings, pad_token_id), settings.precision
    base = registry.resolve(config.model, config.revision).folder
    if base is None:
        raise CorruptArtifactError(f"{parts.adapter}: an adapter of {config.model}, which has no weights to adapt.")
    return backbone.load(base, settings, pad_token_id), settings.precision
