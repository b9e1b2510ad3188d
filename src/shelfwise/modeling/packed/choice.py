"""Whether a run goes without padding, and the model that does."""

from __future__ import annotations

from typing import Any

import torch

from shelfwise.config import Precision, TrainConfig
from shelfwise.errors import ConfigError
from shelfwise.modeling import adapters, hardware
from shelfwise.modeling.packed.model import PackedModel, known_layers
from shelfwise.modeling.packed.tiles import tile_length


def goes_packed(config: TrainConfig, base_config: Any, longest: int, *, on_gpu: bool, precision: Precision) -> bool:
    """Whether a run on one process will go without padding, from the base model's configuration alone.

    Args:
        config: the run's.
        base_config: transformers' configuration of the base model.
        longest: tokens of the longest row.
        on_gpu: whether it runs on CUDA.
        precision: settled.
    """
    training = config.training
    if training.packed is False or training.dropout:
        return False
    if tile_length(longest) is None or not known_layers(base_config):
        return False
    return training.packed is True or training.fp8_base or (on_gpu and precision != "fp32")


def packed_model(
    config: TrainConfig, model: Any, longest: int, device: torch.device, precision: Precision
) -> PackedModel | None:
    """The loaded model without padding, where the configuration and the hardware let it be.

    Raises:
        ConfigError: it is asked for and can't be had.
    """
    training = config.training
    wanted = training.packed is True or training.fp8_base
    if training.fp8_base and (config.method != "lora" or not hardware.has_fp8(device)):
        raise ConfigError("training.fp8_base: needs --method lora and a GPU with fp8 (compute capability 8.9 or more).")
    plain = adapters.plain(model)
    packed = None
    if goes_packed(config, plain.config, longest, on_gpu=device.type == "cuda", precision=precision):
        packed = PackedModel.of(
            model,
            longest,
            dtype=hardware.DTYPES[precision],
            fp8=training.fp8_base,
            checkpointing=bool(training.gradient_checkpointing),
        )
    if packed is None and wanted:
        raise ConfigError(
            f"training.packed: {config.model} has layers or rows that can't be packed. Set packed: auto and fp8_base: "
            "false."
        )
    return packed
