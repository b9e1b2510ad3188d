"""How long training takes: operations a token, over what a GPU reaches of its peak. An estimate."""

from __future__ import annotations

import re
from dataclasses import dataclass

from shelfwise.errors import InputError, did_you_mean
from shelfwise.modeling.memory import GIB, Path, Shape
from shelfwise.records import Method


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU that goes by a name."""

    name: str
    memory: int  # bytes, as the driver shows them
    tera_flops: float  # dense bf16 (T4: fp16) matrix products, as published
    measured_tera_flops: float | None = None  # what large products reach (docs/lab-notes.md)

    @property
    def ceiling(self) -> float:
        """Operations a second that large matrix products reach: measured, or as much of the peak as on an H100."""
        return 1e12 * (self.measured_tera_flops or self.tera_flops * _H100.measured_share)

    @property
    def measured_share(self) -> float:
        """Of the published peak."""
        return (self.measured_tera_flops or 0) / self.tera_flops


# Published: NVIDIA's data sheets, without sparsity. Memory: what nvidia-smi shows. An H200 computes as an H100 does.
_H100 = Gpu("H100", int(79.6 * GIB), 989, 790)
GPUS: dict[str, Gpu] = {
    gpu.name: gpu
    for gpu in (
        _H100,
        Gpu("H200", int(140.4 * GIB), 989),
        Gpu("A100-80GB", int(80.0 * GIB), 312),
        Gpu("A100-40GB", int(40.0 * GIB), 312),
        Gpu("L40S", int(45.0 * GIB), 362),
        Gpu("RTX 4090", int(24.0 * GIB), 165),
        Gpu("A10", int(22.5 * GIB), 125),
        Gpu("A10G", int(22.5 * GIB), 70),
        Gpu("T4", int(15.0 * GIB), 65),
    )
}

# Tokens/s of BigBasket's rows, padding not counted, as a share of what the ceiling allows, on an H100. Padded:
# micro-batches of 128 or 256 rows (benchmarks/results/true_size_*.json). Packed: 512 or 672 rows, the slower of both 7B
# models (benchmarks/results/training_speed_*.json). A test holds them against the files.
SHARES: dict[Path, dict[Method, float]] = {
    "padded": {"full": 0.19, "lora": 0.14, "qlora": 0.12},
    "packed": {"full": 0.50, "lora": 0.62, "qlora": 0.61},
}


def find_gpu(name: str) -> Gpu | None:
    """The GPU that a name speaks of, as a user or a driver writes it: "a100", "NVIDIA H100 80GB HBM3"; None if unknown.

    Of an A100 the one with less memory is meant, unless the name says 80 GB.
    """
    words = set(re.split(r"[^a-z0-9]+", name.lower().replace("rtx", " ")))
    if "a100" in words:
        return GPUS["A100-80GB" if "80gb" in words else "A100-40GB"]
    return next((gpu for gpu in GPUS.values() if gpu.name.lower().removeprefix("rtx ") in words), None)


def require_gpu(name: str) -> Gpu:
    """As `find_gpu`.

    Raises:
        InputError: no such GPU in the table.
    """
    found = find_gpu(name)
    if found is None:
        raise InputError(
            f"--gpu {name}: not one of {', '.join(GPUS)}.{did_you_mean(name, GPUS)} For another one give its memory "
            "alone: --gpu-memory 24GiB"
        )
    return found


def operations_per_token(shape: Shape, method: Method, *, rank: int = 16, checkpointing: bool = False) -> float:
    """Floating-point operations of a training step, per token: 2 a weight forward, 2 for the inputs' gradients, 2 for
    the weights' where they are trained, and 2 more for the forward pass that checkpointing repeats (Chowdhery et al.
    2022, appendix B). Attention is left out: product names have a dozen tokens.
    """
    base = shape.linear_parameters
    adapters = 0 if method == "full" else rank * shape.linear_features
    repeated = 2 * (base + adapters) if checkpointing else 0
    return float((6 if method == "full" else 4) * base + 6 * adapters + repeated)


def tokens_per_second(
    shape: Shape, method: Method, gpu: Gpu, *, rank: int = 16, checkpointing: bool = False, path: Path = "padded"
) -> float | None:
    """Tokens a second in training, padding not counted; None where nothing comparable was measured."""
    share = SHARES[path].get(method)
    if share is None:
        return None
    return share * gpu.ceiling / operations_per_token(shape, method, rank=rank, checkpointing=checkpointing)
