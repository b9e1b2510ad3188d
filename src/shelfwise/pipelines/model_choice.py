"""Which model is trained where none is named."""

from __future__ import annotations

from collections.abc import Callable

from shelfwise.config import LANGUAGE_MODEL, TrainConfig
from shelfwise.errors import InputError


def with_model(config: TrainConfig, device: str, note: Callable[[str], None]) -> TrainConfig:
    """A configuration whose `model` is no longer "auto".

    With a GPU, a language model of a size that trains in minutes, and its blend with the baseline: the best answers
    that were measured. Without one the baseline: a fine-tuning that takes a GPU two minutes takes a CPU most of a day,
    for one to two points of accuracy (docs/lab-notes.md). A wish that only a language model can grant chooses it
    anywhere.

    Args:
        config: of the run.
        device: as the user names it.
        note: is told what was chosen, and how to choose the other.

    Raises:
        InputError: the baseline would be chosen, and there are settings that only a language model's training has.
    """
    if config.model != "auto":
        return config
    if _asks_for_a_language_model(config):
        return config.model_copy(update={"model": LANGUAGE_MODEL})
    if _has_gpu(device):
        note(
            f"no model was named: {LANGUAGE_MODEL}, for there is a GPU; for the linear baseline alone: --model baseline"
        )
        return config.model_copy(update={"model": LANGUAGE_MODEL})
    _require_no_training(config)
    note(
        "no model was named: the linear baseline, for there is no GPU, where a language model takes hours; "
        f"to have one all the same: --model {LANGUAGE_MODEL}"
    )
    return config.model_copy(update={"model": "baseline"})


def _asks_for_a_language_model(config: TrainConfig) -> bool:
    plain = TrainConfig()
    return (config.method, config.objective, config.lora, config.classifier, config.trackers) != (
        plain.method, plain.objective, plain.lora, plain.classifier, plain.trackers,
    )  # fmt: skip


def _require_no_training(config: TrainConfig) -> None:
    usual = TrainConfig().training.model_dump()
    if changed := [key for key, value in config.training.model_dump().items() if value != usual[key]]:
        raise InputError(
            f"{', '.join(changed)}: only a language model is trained that way. No model was named, and without a GPU "
            f"that is the linear baseline. Leave that out, or name one, as in --model {LANGUAGE_MODEL}."
        )


def _has_gpu(device: str) -> bool:
    if device == "cpu":
        return False
    from shelfwise.modeling.hardware import resolve_device

    return resolve_device(device).type == "cuda"
