"""Loading the model of a finished run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import nn

from shelfwise.config import Precision, TrainConfig
from shelfwise.errors import CorruptArtifactError
from shelfwise.labels import Labels
from shelfwise.modeling import adapters, backbone, registry
from shelfwise.modeling.encoding import Encoder, load_tokenizer
from shelfwise.modeling.engine import Engine
from shelfwise.modeling.hardware import resolve_device, resolve_precision
from shelfwise.prompts import PromptFormat


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
    precision: Precision | Literal["auto"] = "auto",
) -> Engine:
    """Load the model of a finished run.

    Args:
        config: the run's, settled.
        labels: the run's.
        prompts: the run's.
        parts: where its files lie.
        device: "auto", "cpu", "cuda".
        precision: "auto" is the run's own, so that a reloaded run answers as it did.

    Raises:
        CorruptArtifactError: a folder can't be loaded.
        ModelAccessError: an adapter's base model can't be had from here.
    """
    model, settled = load_base(config, labels, parts, device=device, precision=precision)
    if config.method != "full":
        model = adapters.load(model, parts.adapter)
    encoder = Encoder(load_tokenizer(parts.tokenizer), prompts)
    return Engine.of(model, encoder, config.objective, labels, resolve_device(device), settled)


def load_base(
    config: TrainConfig, labels: Labels, parts: Parts, *, device: str, precision: Precision | Literal["auto"]
) -> tuple[nn.Module, Precision]:
    """Load the weights of a finished run: its own of a full one, else those of its base model, without the adapter.

    Returns:
        The model, and the precision that "auto" comes to.
    """
    place = resolve_device(device)
    wanted = config.training.precision if precision == "auto" else precision
    if wanted == "fp16" and place.type == "cpu":
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
