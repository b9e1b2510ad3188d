"""Peak memory of a training run from the model's configuration alone, and the method that fits.

An estimate, checked against measured peaks in `benchmarks/results/` (design decision 10).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from shelfwise.modeling.packed.tiles import TILE_LENGTHS
from shelfwise.records import Method, Objective

GIB = 2**30
# Share of free memory a run may plan with: the rest is fragmentation and the CUDA context.
_USABLE = 0.9
# NF4 with double quantisation: 4 bits, an 8-bit scale every 64 weights, an fp32 scale every 256 of those.
_NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)
# Micro-batches under this many tokens leave a GPU's matrix units waiting (docs/lab-notes.md).
GOOD_TOKENS = 4096
METHODS: tuple[Method, ...] = ("full", "lora", "qlora")

Optimizer = Literal["adamw", "adamw_bf16"]
Path = Literal["padded", "packed"]  # how the layers are run: transformers' own on padded rows, or `modeling.packed`


# Padded path: what it keeps until the backward pass, in tensors of the computation's dtype per token and layer. 10
# hidden-wide and 2 + up_maps intermediate-wide ones, all times 1.15 for adapters' own tensors and fp32 norms: Falcon-7B
# comes to 1.18 times LLaMA2-7B, where the measured peaks differ by 1.15 (docs/lab-notes.md).
_PADDED_HIDDEN, _PADDED_INTERMEDIATE, _PADDED_UP = 11.5, 2.3, 1.15
# Packed path with a four-bit base: the factors of the blocks are kept in fp32, one every 64 weights.
_NF4_PACKED_BYTES = _NF4_BYTES + 4 / 64
# Packed path: workspaces, and the temporaries of a layer's backward pass.
_PACKED_FIXED = GIB // 2
# Packed path: a micro-batch's tokens, should its rows be long ones, and the gaps that its tiles leave where nobody has
# looked at the rows (docs/lab-notes.md).
_DEVIATIONS, _GAPS = 3, 1.02


@dataclass(frozen=True, slots=True)
class Shape:
    """What of a model's configuration decides its memory."""

    parameters: int
    linear_parameters: int  # in the layers' linear maps: what LoRA adapts and QLoRA quantises
    linear_features: int  # sum of (inputs + outputs) of those maps: LoRA adds r times as many parameters
    hidden: int
    intermediate: int
    up_maps: int  # maps of a layer from hidden to intermediate: 2 with a gated MLP (SwiGLU), 1 without
    layers: int
    vocabulary: int
    norms: int  # of a layer
    qkv: int  # outputs of a layer's query, key and value maps together

    @classmethod
    def of(cls, config: Any, model_class: Any) -> Shape:
        """Count on the meta device; nothing is allocated."""
        with torch.device("meta"):
            model = model_class.from_config(config)
        # The output layer stands outside the layers, at the top of the module tree.
        maps = [m for name, m in model.named_modules() if isinstance(m, torch.nn.Linear) and "." in name]
        hidden = config.hidden_size
        intermediate = getattr(config, "intermediate_size", None) or getattr(config, "ffn_hidden_size", 4 * hidden)
        up_maps = sum((m.in_features, m.out_features) == (hidden, intermediate) for m in maps)
        return cls(
            parameters=sum(p.numel() for p in model.parameters()),
            linear_parameters=sum(m.weight.numel() for m in maps),
            linear_features=sum(m.in_features + m.out_features for m in maps),
            hidden=hidden,
            intermediate=intermediate,
            up_maps=up_maps // config.num_hidden_layers,
            layers=config.num_hidden_layers,
            vocabulary=config.vocab_size,
            norms=sum(type(m).__name__.endswith("Norm") for m in model.modules()) // config.num_hidden_layers,
            qkv=sum(
                m.out_features
                for m in maps
                if m.in_features == hidden and (m.in_features, m.out_features) != (hidden, intermediate)
            )
            // config.num_hidden_layers
            - hidden,  # the map out of attention
        )


@dataclass(frozen=True, slots=True)
class Estimate:
    """Bytes at the peak of a training step."""

    weights: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.gradients + self.optimizer + self.activations

    def cut(self, shards: int, layers: int) -> Estimate:
        """What one of several processes holds of a model cut into pieces (`modeling.sharding`).

        Beside its pieces stand two layers' whole weights, the one at work and the one that is fetched meanwhile, and
        one layer's whole gradients.
        """
        if shards == 1:
            return self
        return Estimate(
            self.weights // shards + 2 * self.weights // layers,
            self.gradients // shards + self.gradients // layers,
            self.optimizer // shards,
            self.activations,
        )


def estimate(
    shape: Shape,
    method: Method,
    *,
    tokens: int,
    low_precision: bool,
    optimizer: Optimizer = "adamw",
    rank: int = 16,
    checkpointing: bool = False,
    objective: Objective = "head",
    path: Path = "padded",
    accumulating: bool = False,
    all_targets: bool = False,
) -> Estimate:
    """Estimate a step's peak memory.

    Args:
        shape: of the base model.
        method: full, lora or qlora.
        tokens: of a micro-batch, padding included.
        low_precision: bf16 or fp16 compute; frozen weights are then 2 bytes.
        optimizer: adamw keeps fp32 weights and moments, adamw_bf16 both in bf16 (full only).
        rank: of the adapters.
        checkpointing: only each layer's input is kept, and one layer's inside.
        objective: `completion` also keeps logits over the vocabulary.
        path: how the layers are run.
        accumulating: an optimiser step has more than one micro-batch.
        all_targets: every token is a target of `completion`, as when names are read for themselves.
    """
    half = 2 if low_precision else 4
    if method == "full":
        weights, gradients, moments = _full(shape, optimizer, low_precision)
    else:
        numbers = rank * shape.linear_features
        rest = shape.parameters - shape.linear_parameters
        four_bit = _NF4_BYTES if path == "padded" else _NF4_PACKED_BYTES
        base = (four_bit if method == "qlora" else half) * shape.linear_parameters
        # Adapters are fp32. The padded path's autocast keeps a copy of them in half precision.
        weights = int(base + half * rest + (4 + half if path == "padded" else 4) * numbers)
        gradients, moments = 4 * numbers, 8 * numbers
    inside = half * _inside(shape, path)
    kept = shape.layers * half * shape.hidden + inside if checkpointing else shape.layers * inside
    if objective == "completion":
        # Logits in the compute dtype and in fp32, their logarithmic softmax and its gradient in fp32: at all positions,
        # for the micro-batch with the longest row has targets in nearly every column; packed, at targets alone.
        kept += int((1.0 if path == "padded" or all_targets else 0.5) * shape.vocabulary * (half + 12))
    if path == "padded":
        return Estimate(weights, gradients, moments, tokens * kept)
    activations = tokens * kept + _PACKED_FIXED
    # Gradients are made while activations are given back, so of a step's first micro-batch the larger of the two stands
    # at the peak. Later ones meet the gradients of those before, one set in the dtype of the weights, to which autograd
    # adds in place (docs/lab-notes.md): there both stand.
    added = gradients if accumulating else max(0, gradients - activations)
    return Estimate(weights, added, moments, activations)


def _inside(shape: Shape, path: Path) -> int:
    """Numbers that a layer keeps of each token until its backward pass."""
    if path == "padded":
        wide = _PADDED_INTERMEDIATE + _PADDED_UP * shape.up_maps
        return int(_PADDED_HIDDEN * shape.hidden + wide * shape.intermediate)
    # What each norm takes and gives, queries, keys and values, what attention gives; the up maps' outputs and the
    # activation. Nothing else is kept (modeling/packed).
    return (2 * shape.norms + 1) * shape.hidden + shape.qkv + (1 + shape.up_maps) * shape.intermediate


def _full(shape: Shape, optimizer: Optimizer, low_precision: bool) -> tuple[int, int, int]:
    """Bytes of weights, gradients and moments when all weights are trained."""
    if optimizer == "adamw_bf16":
        return 2 * shape.parameters, 2 * shape.parameters, 4 * shape.parameters
    # Autocast keeps a low-precision copy of every weight through the step.
    return (4 + (2 if low_precision else 0)) * shape.parameters, 4 * shape.parameters, 8 * shape.parameters


@dataclass(frozen=True, slots=True)
class Choice:
    """What a run could do with the memory there is."""

    method: Method
    optimizer: Optimizer
    micro_batch_size: int
    checkpointing: bool
    estimate: Estimate
    fits: bool  # in the share of the free memory that a run may plan with
    shards: int = 1  # processes over which the model is cut; 1: each holds it whole


@dataclass(frozen=True, slots=True)
class Wish:
    """What the configuration asks for; None where the choice is ours."""

    method: Method | None
    optimizer: Optimizer | None
    micro_batch_size: int | None
    checkpointing: bool | None
    batch_size: int
    row_tokens: int  # of the longest row: the micro-batch that holds it sets the peak
    rank: int
    low_precision: bool
    on_gpu: bool
    objective: Objective = "head"
    path: Path = "padded"
    mean_tokens: float = 0.0  # of a row; with its standard deviation it sizes the micro-batches of the packed path
    spread_tokens: float = 0.0
    # Packed path: tokens that are computed for each token of the rows, at some numbers of rows (`computed_shares`).
    shares: tuple[tuple[int, float], ...] = ()
    processes: int = 1  # that share the batch; `batch_size` is then one's part of it
    all_targets: bool = False  # see `estimate`
    sharded: tuple[Method, ...] = ()  # methods whose model is cut over the processes

    def tokens(self, rows: int) -> int:
        """Tokens of the largest micro-batch of so many rows, padding included."""
        if self.path == "padded":
            return rows * self.row_tokens
        likely = rows * self.mean_tokens + _DEVIATIONS * self.spread_tokens * rows**0.5
        return min(rows * self.row_tokens, int(self._share(rows) * likely)) + TILE_LENGTHS[0]

    def _share(self, rows: int) -> float:
        """Between the numbers of rows that are known, along their logarithm."""
        if not self.shares:
            return _GAPS
        counts, shares = zip(*self.shares, strict=True)
        return float(np.interp(math.log(rows), [math.log(count) for count in counts], shares))


def usable(free: int) -> int:
    """Bytes of the free memory that a run may plan with."""
    return int(free * _USABLE)


def choose(shape: Shape, wish: Wish, free: int) -> Choice:
    """The first of full, lora, qlora that fits with a micro-batch worth running.

    fp32 masters are preferred to bf16 weights, no checkpointing to checkpointing. If nothing fits, the thriftiest wish
    is returned with a micro-batch of 1: its estimate says by how much it is over.
    """
    last: Choice | None = None
    for choice in variants(shape, wish, free):
        good = wish.tokens(choice.micro_batch_size) >= min(GOOD_TOKENS, wish.tokens(wish.batch_size))
        if choice.fits and (good or wish.micro_batch_size or not wish.on_gpu):
            return choice
        if last is None or choice.fits or choice.estimate.total < last.estimate.total:
            last = choice
    assert last is not None  # there is a variant of every method
    return last


def variants(shape: Shape, wish: Wish, free: int) -> Iterator[Choice]:
    """Every way of training that a wish leaves open, in order of preference, each with its largest micro-batch."""
    for method in [wish.method] if wish.method else METHODS:
        bf16 = method == "full" and wish.on_gpu and wish.low_precision
        optimizers: list[Optimizer] = ["adamw", "adamw_bf16"] if bf16 else ["adamw"]
        for optimizer in [wish.optimizer] if wish.optimizer else optimizers:
            for checkpointing in [wish.checkpointing] if wish.checkpointing is not None else [False, True]:
                yield _fit(shape, wish, method, optimizer, checkpointing, usable(free))


def _fit(shape: Shape, wish: Wish, method: Method, optimizer: Optimizer, checkpointing: bool, budget: int) -> Choice:
    shards = wish.processes if method in wish.sharded else 1

    def at(rows: int) -> Estimate:
        return estimate(
            shape,
            method,
            tokens=wish.tokens(rows),
            low_precision=wish.low_precision,
            optimizer=optimizer,
            rank=wish.rank,
            checkpointing=checkpointing,
            objective=wish.objective,
            path=wish.path,
            accumulating=rows < wish.batch_size,
            all_targets=wish.all_targets,
        ).cut(shards, shape.layers)

    # A CPU gains nothing from more than 32 rows at once, and short micro-batches hold less padding.
    most = wish.batch_size if wish.on_gpu else 32
    divisors = [rows for rows in range(min(most, wish.batch_size), 0, -1) if wish.batch_size % rows == 0]
    fitting = (rows for rows in divisors if at(rows).total <= budget)
    rows = wish.micro_batch_size or next(fitting, 1)
    found = at(rows)
    return Choice(method, optimizer, rows, checkpointing, found, found.total <= budget, shards)
