"""Continued pretraining: a base model reads the catalogue's own product names before it learns their types.

Next-token prediction on what it is about to classify (Gururangan et al. 2020, "Don't Stop Pretraining"), with the
adapters or weights that are trained afterwards. Names need no type for it, so a catalogue of which a part was sorted
by hand is used whole. What is held out for validation and test is not read.

In the run folder, until the run ends, `pretraining/` holds the trained tensors, so that a resumed run need not read the
names again.
"""

from __future__ import annotations

import gc
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from shelfwise import artifact, processes
from shelfwise.config import TrainConfig
from shelfwise.errors import CorruptArtifactError
from shelfwise.modeling import checkpoint, distributed, sharding
from shelfwise.modeling.backbone import HEADS
from shelfwise.modeling.batching import Item
from shelfwise.modeling.encoding import Encoder
from shelfwise.pipelines.run import Prepared

_WEIGHTS = "weights"
_FILE = "model.safetensors"


@dataclass(frozen=True, slots=True)
class Pretraining:
    """What a run has of the names that it read before its labels."""

    folder: Path

    @classmethod
    def of(cls, run: Path) -> Pretraining:
        """Of a run folder, which need not exist yet."""
        return cls(run / artifact.PRETRAINING)

    @property
    def checkpoints(self) -> Path:
        """Where a stop leaves a checkpoint."""
        return self.folder / artifact.CHECKPOINTS

    @property
    def is_done(self) -> bool:
        """Whether its weights lie in the run folder."""
        return (self.folder / _WEIGHTS).is_dir()

    def keep(self, model: nn.Module) -> None:
        """Write the trained tensors by their names. In several processes all have to call it."""
        whole = sharding.whole_weights(model)
        if whole is None:
            whole = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
        if processes.is_first():
            tensors = {name: tensor.to("cpu").contiguous() for name, tensor in _distinct(whole.items())}
            with artifact.atomic_folder(self.folder / _WEIGHTS) as staging, checkpoint.disk_errors():
                save_file(tensors, staging / _FILE)
        distributed.wait_for_all()

    def give_to(self, model: nn.Module) -> None:
        """Copy the trained tensors into a model that is whole, which may have another head.

        Raises:
            CorruptArtifactError: the file can't be read, or is of another model.
        """
        path = self.folder / _WEIGHTS / _FILE
        targets: dict[str, Tensor] = dict(model.named_parameters(remove_duplicate=False))
        file: Any
        try:
            with torch.no_grad(), safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118  # the file is no mapping
                    if name in targets:
                        targets[name].copy_(file.get_tensor(name))
                    elif HEADS["completion"] not in name:
                        raise ValueError(f"there is no {name} in this model")
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise CorruptArtifactError(
                f"{path}: does not hold what this run has read so far ({error}). Start again with another --out."
            ) from error


def settings(config: TrainConfig, names: int) -> TrainConfig:
    """How a run reads so many names: a `completion` run of its own. One of a few steps reads for as many at most.

    Args:
        config: the run's, settled, with `pretraining_epochs`.
        names: that there are to read.
    """
    training = config.training
    epochs = training.pretraining_epochs or 0.0
    fewer = training.max_steps and training.max_steps * training.batch_size < epochs * names
    changes = {
        "epochs": epochs,
        "max_steps": training.max_steps if fewer else None,
        "label_smoothing": 0.0,
        "evaluations_per_epoch": 0,
        "patience": None,
    }
    return config.model_copy(update={"objective": "completion", "training": training.model_copy(update=changes)})


def items_of(prepared: Prepared, encoder: Encoder) -> list[Item]:
    """The names as rows of which every token but the first is a target."""
    return [Item(ids, 0, 1) for ids in encoder.plain(texts_of(prepared)) if len(ids) > 1]


def texts_of(prepared: Prepared) -> list[str]:
    """The names that may be read: each with its brand, of all products but those of validation and test."""
    held_out = {product.id for product in prepared.validation}
    held_out.update(product.id for product in prepared.splits.parts(prepared.catalogue).test)
    return [
        f"{product.brand} {product.name}" if product.brand else product.name
        for product in prepared.catalogue.products
        if product.id not in held_out
    ]


def _distinct(named: Iterable[tuple[str, Tensor]]) -> Iterable[tuple[str, Tensor]]:
    """Tied weights once, under their first name that is no head's."""
    seen: set[int] = set()
    for name, tensor in sorted(named, key=lambda item: HEADS["completion"] in item[0]):
        if tensor.numel() and tensor.data_ptr() not in seen:
            seen.add(tensor.data_ptr())
            yield name, tensor


def forget(device: torch.device) -> None:
    """Give back a model's memory before the next one is loaded."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
