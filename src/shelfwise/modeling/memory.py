"""Peak memory of a training run from the model's configuration alone, and the method that fits.

An estimate, checked against measured peaks in `benchmarks/results/` (design decision 10).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch

from shelfwise.records import Method

GIB = 2**30
# Share of free memory a run may plan with: the rest is fragmentation and the CUDA context.
_USABLE = 0.9
# NF4 with double quantisation: 4 bits, an 8-bit scale every 64 weights, an fp32 scale every 256 of those.
_NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)
# Micro-batches under this many tokens leave a GPU's matrix units waiting (docs/lab-notes.md).
_GOOD_TOKENS = 4096

Optimizer = Literal["adamw", "adamw_bf16"]


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


def estimate(
    shape: Shape,
    method: Method,
    *,
    tokens: int,
    low_precision: bool,
    optimizer: Optimizer = "adamw",
    rank: int = 16,
    checkpointing: bool = False,
) -> Estimate:
    """Estimate a step's peak memory.

    Args:
        shape: of the base model.
        method: full, lora or qlora.
        tokens: padded tokens of a micro-batch.
        low_precision: bf16 or fp16 compute; frozen weights are then 2 bytes.
        optimizer: adamw keeps fp32 weights and moments, adamw_bf16 both in bf16 (full only).
        rank: of the adapters.
        checkpointing: only each layer's input is kept, and one layer's inside.
    """
    half = 2 if low_precision else 4
    if method == "full":
        if optimizer == "adamw_bf16":
            weights, gradients, moments = 2 * shape.parameters, 2 * shape.parameters, 4 * shape.parameters
        else:
            # Autocast keeps a low-precision copy of every weight through the step.
            weights = (4 + (2 if low_precision else 0)) * shape.parameters
            gradients, moments = 4 * shape.parameters, 8 * shape.parameters
    else:
        adapters = rank * shape.linear_features
        rest = shape.parameters - shape.linear_parameters
        base = _NF4_BYTES * shape.linear_parameters if method == "qlora" else half * shape.linear_parameters
        weights = int(base + half * rest + (4 + half) * adapters)
        gradients, moments = 4 * adapters, 8 * adapters
    # Per token and layer: norms, q, k, v, attention out and residuals are about 10 hidden-wide tensors; the MLP keeps
    # its up maps' outputs and 2 more intermediate-wide ones. That puts Falcon-7B 1.18 times above LLaMA2-7B, where the
    # measured peaks differ by 1.15. The factor is for adapters' own tensors and fp32 norms (docs/lab-notes.md).
    inside = int(1.15 * half * (10 * shape.hidden + (2 + shape.up_maps) * shape.intermediate))
    kept = shape.layers * half * shape.hidden + inside if checkpointing else shape.layers * inside
    return Estimate(weights, gradients, moments, tokens * kept)


@dataclass(frozen=True, slots=True)
class Choice:
    """What a run will do with the memory there is."""

    method: Method
    optimizer: Optimizer
    micro_batch_size: int
    checkpointing: bool
    estimate: Estimate


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


def choose(shape: Shape, wish: Wish, free: int) -> Choice:
    """The first of full, lora, qlora that fits with a micro-batch worth running.

    fp32 masters are preferred to bf16 weights, no checkpointing to checkpointing. If nothing fits, the thriftiest wish
    is returned with a micro-batch of 1: its estimate says by how much it is over.
    """
    methods: list[Method] = [wish.method] if wish.method else ["full", "lora", "qlora"]
    last: Choice | None = None
    for method in methods:
        bf16 = method == "full" and wish.on_gpu and wish.low_precision
        optimizers: list[Optimizer] = ["adamw", "adamw_bf16"] if bf16 else ["adamw"]
        for optimizer in [wish.optimizer] if wish.optimizer else optimizers:
            for checkpointing in [wish.checkpointing] if wish.checkpointing is not None else [False, True]:
                choice = _fit(shape, wish, method, optimizer, checkpointing, int(free * _USABLE))
                good = choice.micro_batch_size * wish.row_tokens >= min(_GOOD_TOKENS, wish.batch_size * wish.row_tokens)
                fits = choice.estimate.total <= free * _USABLE
                if fits and (good or wish.micro_batch_size or not wish.on_gpu):
                    return choice
                if last is None or fits or choice.estimate.total < last.estimate.total:
                    last = choice
    assert last is not None  # methods is never empty
    return last


def _fit(shape: Shape, wish: Wish, method: Method, optimizer: Optimizer, checkpointing: bool, budget: int) -> Choice:
    def at(rows: int) -> Estimate:
        return estimate(
            shape,
            method,
            tokens=rows * wish.row_tokens,
            low_precision=wish.low_precision,
            optimizer=optimizer,
            rank=wish.rank,
            checkpointing=checkpointing,
        )

    # A CPU gains nothing from more than 32 rows at once, and short micro-batches hold less padding.
    most = wish.batch_size if wish.on_gpu else 32
    divisors = [rows for rows in range(min(most, wish.batch_size), 0, -1) if wish.batch_size % rows == 0]
    fitting = (rows for rows in divisors if at(rows).total <= budget)
    rows = wish.micro_batch_size or next(fitting, 1)
    return Choice(method, optimizer, rows, checkpointing, at(rows))
