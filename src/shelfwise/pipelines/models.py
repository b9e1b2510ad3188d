"""What base models there are, and what this machine can do with them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from shelfwise.modeling import hardware, memory, registry
from shelfwise.records import Method

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class ModelRow:
    """One line of `shelfwise models`."""

    name: str
    parameters: int
    source: str  # where it comes from
    methods: tuple[Method, ...]  # those that fit this machine's memory
    about: str


@dataclass(frozen=True, slots=True)
class ModelTable:
    """The registry, and what it was judged by."""

    device: str
    free_gib: float  # right now
    models: tuple[ModelRow, ...]


def list_models(device: str = "auto") -> ModelTable:
    """The registry, judged by the memory free right now.

    Raises:
        InputError: no such device here.
    """
    place = hardware.resolve_device(device)
    free = hardware.free_memory(place)
    rows = []
    for model in registry.MODELS.values():
        source = model.repository + (" (gated)" if model.gated else "") if model.repository else model.source
        rows.append(ModelRow(model.name, model.parameters, source, _methods(model, free, place), model.about))
    return ModelTable(place.type, round(free / memory.GIB, 1), tuple(rows))


def _methods(model: registry.BaseModel, free: int, place: torch.device) -> tuple[Method, ...]:
    """Methods whose weights, gradients and optimiser fit, without activations: a lower bound from the size alone."""
    if model.source == "built in":
        return ("full",)  # fresh weights leave an adapter nothing to adapt
    # Layers hold nearly all of a model's weights; adapters of rank 16 about half a percent of them.
    shape = memory.Shape(
        parameters=model.parameters,
        linear_parameters=int(0.95 * model.parameters),
        linear_features=int(model.parameters / 3000),
        hidden=0,
        intermediate=0,
        up_maps=0,
        layers=0,
        vocabulary=0,
        norms=0,
        qkv=0,
    )
    wish = memory.Wish(
        method=None,
        optimizer=None,
        micro_batch_size=None,
        checkpointing=None,
        batch_size=1,
        row_tokens=0,
        rank=16,
        low_precision=hardware.resolve_precision("auto", place, model.parameters) != "fp32",
        on_gpu=place.type == "cuda",
    )
    fitting = {choice.method for choice in memory.variants(shape, wish, free) if choice.fits}
    return tuple(method for method in memory.METHODS if method in fitting)
