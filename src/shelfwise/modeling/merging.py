"""A run's model as one plain model: adapters merged into the base, quantised layers dequantised first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from shelfwise.config import Precision, TrainConfig
from shelfwise.errors import CorruptArtifactError
from shelfwise.labels import Labels
from shelfwise.modeling import adapters, backbone
from shelfwise.modeling.encoding import Encoder, load_tokenizer
from shelfwise.modeling.engine import Engine
from shelfwise.modeling.hardware import DTYPES, resolve_device
from shelfwise.modeling.loading import Parts, load_base
from shelfwise.prompts import PromptFormat
from shelfwise.records import Objective


def merged(config: TrainConfig, labels: Labels, parts: Parts, device: str, dtype: Precision | None) -> Any:
    """The whole model of a finished run, without adapters and without quantisation.

    Args:
        config: the run's, settled.
        labels: the run's; their names go into the model's configuration.
        parts: where its files lie.
        device: "auto", "cpu", "cuda".
        dtype: of the weights; None: as they were saved (full), or the run's precision.

    Returns:
        A transformers model in eval mode, on the device.

    Raises:
        CorruptArtifactError: a folder can't be loaded.
        ModelAccessError: an adapter's base model can't be had from here.
    """
    base, precision = load_base(config, labels, parts, device=device, precision="auto")
    model: Any = base
    if config.method != "full":
        if config.method == "qlora":
            model = _dequantised(model)
        wanted = DTYPES[dtype or precision]
        model = adapters.merge(adapters.load(model, parts.adapter), wanted).to(wanted)
    elif dtype is not None:
        model = model.to(DTYPES[dtype])
    model.config.id2label = dict(enumerate(labels.names))
    model.config.label2id = {name: position for position, name in enumerate(labels.names)}
    model.config.use_cache = config.objective == "completion"  # whoever generates text with it wants one
    return model.eval()


def precision_of(model: nn.Module) -> Precision:
    """The precision of a model's weights."""
    found = next(parameter.dtype for parameter in model.parameters() if parameter.is_floating_point())
    return next(name for name, dtype in DTYPES.items() if dtype == found)


def engine_around(model: Any, tokenizer: Path, prompts: PromptFormat, objective: Objective, labels: Labels) -> Engine:
    """An engine that scores with a merged model in the precision of its weights."""
    encoder = Encoder(load_tokenizer(tokenizer), prompts)
    device = next(model.parameters()).device
    return Engine.of(model, encoder, objective, labels, device, precision_of(model))


def reload(folder: Path, objective: Objective, device: str) -> Any:
    """Load an exported folder as anyone would: by transformers alone, with nothing of ours.

    Raises:
        CorruptArtifactError: transformers can't load it.
    """
    try:
        model = backbone.model_class(objective).from_pretrained(folder, dtype="auto", local_files_only=True)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise CorruptArtifactError(
            f"{folder}: transformers can't load what was exported ({error}). Export it again."
        ) from error
    return model.to(resolve_device(device)).eval()


def _dequantised(model: Any) -> Any:
    """The model with plain layers in the place of 4-bit ones, holding the values that those stand for."""
    plain = model.dequantize()
    if any(type(module).__name__ == "Linear4bit" for module in plain.modules()):
        raise CorruptArtifactError(
            "A quantised layer could not be dequantised, so its adapter can't be merged. Export on the machine that "
            "trained it, or with the bitsandbytes that it was trained with."
        )
    plain.config.__dict__.pop("quantization_config", None)
    return plain
