"""What base models there are, and what this machine can do with them."""

from __future__ import annotations

from dataclasses import dataclass

from shelfwise.modeling import hardware, memory, registry
from shelfwise.modeling.memory import GIB


@dataclass(frozen=True, slots=True)
class ModelRow:
    """One line of `shelfwise models`."""

    name: str
    parameters: int
    source: str  # where it comes from
    here: str  # the methods that fit this machine's memory
    about: str


def list_models(device: str = "auto") -> list[ModelRow]:
    """The registry, judged by the memory free right now."""
    place = hardware.resolve_device(device)
    free = hardware.free_memory(place)
    rows = []
    for model in registry.MODELS.values():
        source = model.repository + (" (gated)" if model.gated else "") if model.repository else model.source
        rows.append(ModelRow(model.name, model.parameters, source, _methods(model, free, place.type), model.about))
    return rows


def _methods(model: registry.BaseModel, free: int, device: str) -> str:
    """Methods whose weights, gradients and optimiser fit, without activations: a lower bound from the size alone."""
    if model.source == "built in":
        return "full"
    # Layers hold nearly all of a model's weights; adapters of rank 16 about half a percent of them.
    shape = memory.Shape(model.parameters, int(0.95 * model.parameters), int(model.parameters / 3000), 0, 0, 0)
    low = hardware.resolve_precision("auto", hardware.resolve_device(device), model.parameters) != "fp32"
    fits = [
        method
        for method in ("full", "lora", "qlora")
        if memory.estimate(shape, method, tokens=0, low_precision=low).total < 0.9 * free
    ]
    return f"{', '.join(fits) or 'nothing fits'} ({free / GIB:.0f} GiB free, {device})"
