"""Peak memory and time of a training run before anything is downloaded or read. Every number is an estimate."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shelfwise.config import LANGUAGE_MODEL, TrainConfig
from shelfwise.errors import ConfigError, InputError, ModelNotFoundError
from shelfwise.modeling import backbone, hardware, memory, published, registry, speed
from shelfwise.modeling.memory import GIB, Choice, Shape, Wish
from shelfwise.modeling.packed.choice import goes_packed
from shelfwise.pipelines.plan_advice import advise
from shelfwise.pipelines.row_lengths import RowLengths, row_lengths
from shelfwise.records import Method, Objective

if TYPE_CHECKING:
    import torch

# Products that a time is told for where no catalogue says how many there are.
_WITHOUT_CATALOGUE = 10_000
_UNITS = {"gib": GIB, "gb": 10**9, "mib": 2**20, "mb": 10**6}
_MOST = 100 * 2**40  # more than any one device has


@dataclass(frozen=True, slots=True)
class Way:
    """One way of training, with its largest micro-batch that fits, or the one that was asked for. GiB at the peak."""

    method: Method
    optimizer: str
    gradient_checkpointing: bool
    micro_batch_size: int
    weights_gib: float
    gradients_gib: float
    optimizer_gib: float
    activations_gib: float
    peak_gib: float
    fits: bool
    chosen: bool  # what `shelfwise train` would do
    tokens_per_s: int | None  # padding not counted; None where no GPU is known
    seconds: float | None  # for `Plan.products`
    at_least: bool  # a micro-batch under 4,096 tokens: it takes longer than `seconds`


@dataclass(frozen=True, slots=True)
class Plan:
    """What `shelfwise plan` tells."""

    model: str
    parameters: int
    objective: Objective
    batch_size: int
    rows: RowLengths
    products: int  # that `Way.seconds` is for: one epoch of the catalogue, or 10,000
    device: str  # "H100", "a GPU", "this machine's CPU"
    memory_gib: float
    usable_gib: float  # the share of it that a run plans with
    ways: tuple[Way, ...]
    advice: tuple[str, ...]
    notes: tuple[str, ...]  # what the figures rest on


@dataclass(frozen=True, slots=True)
class _Place:
    name: str
    gpu: speed.Gpu | None
    free: int
    device: torch.device | None  # None: a GPU that need not be here

    @property
    def on_gpu(self) -> bool:
        return self.device is None or self.device.type == "cuda"


def plan(
    config: TrainConfig,
    *,
    gpu: str | None = None,
    gpu_memory: int | None = None,
    row_tokens: int | None = None,
) -> Plan:
    """Estimate every way of training a model, and say which `train` would take and what would fit.

    Args:
        config: the run; only its `model` must be known. A `catalogue` gives the rows' lengths and number.
        gpu: a name out of `modeling.speed.GPUS`; None is this machine's.
        gpu_memory: bytes; None is what `gpu` has, or what is free on this machine.
        row_tokens: of the longest row; None is the catalogue's, or that of usual product names.

    Raises:
        InputError: the GPU is unknown, or a number is out of bounds.
        CatalogueError: the catalogue can't be used.
        ConfigError: the method does not go with the model.
        ModelNotFoundError: no such model, or none that transformers knows.
        ModelAccessError: the configuration of a hub model is out of reach.
    """
    if row_tokens is not None and not 1 <= row_tokens <= 1_000_000:
        raise InputError(f"--row-tokens {row_tokens}: the tokens of the longest row, from 1 to 1,000,000.")
    if config.model == "auto":
        config = config.model_copy(update={"model": LANGUAGE_MODEL})
    place = _place(gpu, gpu_memory)
    shape = _shape(config)
    lengths = row_lengths(config, row_tokens)
    wish = _wish(config, shape, lengths, place)
    chosen = memory.choose(shape, wish, place.free)
    products = lengths.products or _WITHOUT_CATALOGUE
    return Plan(
        model=config.model,
        parameters=shape.parameters,
        objective=config.objective,
        batch_size=config.training.batch_size,
        rows=lengths,
        products=products,
        device=place.name,
        memory_gib=_gib(place.free),
        usable_gib=_gib(memory.usable(place.free)),
        ways=tuple(
            _way(shape, wish, choice, place, products * lengths.mean, chosen=choice == chosen)
            for choice in memory.variants(shape, wish, place.free)
        ),
        advice=tuple(advise(shape, wish, chosen, place.free, adaptable=not _is_fresh(config.model))),
        notes=tuple(_notes(place)),
    )


def parse_memory(text: str) -> int:
    """Bytes of a size as people write it: "24GiB", "24 GB", "24000MB".

    Raises:
        InputError: not a number with one of these units, or out of bounds.
    """
    found = re.fullmatch(r"\s*([0-9]{1,12}(?:\.[0-9]{1,6})?)\s*(GiB|GB|MiB|MB)\s*", text, re.IGNORECASE)
    size = int(float(found.group(1)) * _UNITS[found.group(2).lower()]) if found else 0
    if not 0 < size <= _MOST:
        raise InputError(
            f"--gpu-memory {text}: no size of a memory. Give a number and its unit: GiB, GB, MiB or MB, as in 24GiB."
        )
    return size


def _place(gpu: str | None, given: int | None) -> _Place:
    if gpu is not None:
        known = speed.require_gpu(gpu)
        return _Place(known.name, known, given or known.memory, None)
    if given is not None:
        return _Place("a GPU", None, given, None)
    device = hardware.resolve_device()
    name = hardware.gpu_name("auto")
    return _Place(name or "this machine's CPU", speed.find_gpu(name), hardware.free_memory(device), device)


def _shape(config: TrainConfig) -> Shape:
    base = published.config_of(config.model, config.revision)
    try:
        return Shape.of(base, backbone.model_class(config.objective))
    except (AttributeError, ValueError) as error:
        raise ModelNotFoundError(
            f"{config.model}: not the configuration of a causal language model that transformers knows ({error})."
        ) from error


def _wish(config: TrainConfig, shape: Shape, lengths: RowLengths, place: _Place) -> Wish:
    """As `pipelines.finetune.settle` makes it."""
    training = config.training
    fresh = _is_fresh(config.model)
    if fresh and config.method not in ("auto", "full"):
        raise ConfigError(f"{config.model} starts from fresh weights, so it is trained by --method full alone.")
    precision = training.precision
    if place.device is not None:
        precision = hardware.resolve_precision(precision, place.device, shape.parameters)
    elif precision == "auto":
        precision = "bf16"
    base = published.config_of(config.model, config.revision)
    packed = goes_packed(config, base, lengths.longest, on_gpu=place.on_gpu, precision=precision)
    return Wish(
        method="full" if fresh else None if config.method == "auto" else config.method,
        optimizer=None if training.optimizer == "auto" else training.optimizer,
        micro_batch_size=training.micro_batch_size,
        checkpointing=None if training.gradient_checkpointing == "auto" else training.gradient_checkpointing,
        batch_size=training.batch_size,
        row_tokens=lengths.longest,
        rank=config.lora.r,
        low_precision=precision != "fp32",
        on_gpu=place.on_gpu,
        objective=config.objective,
        path="packed" if packed else "padded",
        mean_tokens=lengths.mean,
        spread_tokens=lengths.spread,
        shares=lengths.shares,
    )


def _is_fresh(model: str) -> bool:
    """Whether a base model starts from fresh weights, which leave an adapter nothing to adapt."""
    spec = registry.require_name(model)
    return spec is not None and spec.source == "built in"


def _way(shape: Shape, wish: Wish, choice: Choice, place: _Place, tokens: float, *, chosen: bool) -> Way:
    rate = None
    if place.gpu is not None:
        rate = speed.tokens_per_second(
            shape, choice.method, place.gpu, rank=wish.rank, checkpointing=choice.checkpointing, path=wish.path
        )
    parts = choice.estimate
    return Way(
        method=choice.method,
        optimizer=choice.optimizer,
        gradient_checkpointing=choice.checkpointing,
        micro_batch_size=choice.micro_batch_size,
        weights_gib=_gib(parts.weights),
        gradients_gib=_gib(parts.gradients),
        optimizer_gib=_gib(parts.optimizer),
        activations_gib=_gib(parts.activations),
        peak_gib=_gib(parts.total),
        fits=choice.fits,
        chosen=chosen,
        tokens_per_s=None if rate is None else round(rate),
        seconds=None if rate is None else round(tokens / rate, 1),
        at_least=choice.micro_batch_size * wish.row_tokens < memory.GOOD_TOKENS,
    )


def _notes(place: _Place) -> Iterator[str]:
    yield "All figures are estimates, made from the model's configuration alone."
    if place.gpu is None:
        if place.on_gpu:
            yield f"No time is told for a GPU without a name: give --gpu, one of {', '.join(speed.GPUS)}."
        else:
            yield "No time is told for a CPU."
    elif place.gpu.measured_tera_flops:
        yield (
            f"Time: as much of {place.gpu.measured_tera_flops:g} TFLOP/s, which matrix products reach on this GPU, as "
            "training BigBasket's rows reached."
        )
    else:
        yield (
            f"Time: of this GPU's published {place.gpu.tera_flops:g} TFLOP/s as much as training reached on an H100. "
            "It was not measured on this GPU."
        )


def _gib(size: int) -> float:
    return round(size / GIB, 2)
