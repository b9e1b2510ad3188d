"""What base models there are, and what this machine can do with them."""

from __future__ import annotations

from dataclasses import dataclass

from shelfwise.modeling import hardware, memory, registry
from shelfwise.records import Method

METHODS: tuple[Method, ...] = ("full", "lora", "qlora")


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
        low = hardware.resolve_precision("auto", place, model.parameters) != "fp32"
        rows.append(ModelRow(model.name, model.parameters, source, _methods(model, free, low), model.about))
    return ModelTable(place.type, round(free / memory.GIB, 1), tuple(rows))


def _methods(model: registry.BaseModel, free: int, low_precision: bool) -> tuple[Method, ...]:
    """Methods whose weights, gradients and optimiser fit, without activations: a lower bound from the size alone."""
    if model.source == "built in":
        return ("full",)  # fresh weights leave an adapter nothing to adapt
    # Layers hold nearly all of a model's weights; adapters of rank 16 about half a percent of them.
    shape = memory.Shape(model.parameters, int(0.95 * model.parameters), int(model.parameters / 3000), 0, 0, 0, 0)
    return tuple(
        method
        for method in METHODS
        if memory.estimate(shape, method, tokens=0, low_precision=low_precision).total < 0.9 * free
    )
