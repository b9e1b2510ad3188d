"""What a trained run's answers lose where the products of its layers are rounded to eight bits.

    python benchmarks/rounded_answers.py CATALOGUE --run RUN --out benchmarks/results

RUN is a trained run with a head, `configs/smollm2-135m-lora.yaml` say. Weights (a scale for each output) and inputs
(one for each row) are rounded as said and multiplied in fp32: it is the rounding alone, and not the speed or the sums
of a processor that multiplies eight bits. Inputs of 7 bits are what processors without VNNI need, whose sums of two
products have 16 bits.

"Turned" inputs are multiplied with an orthogonal matrix before they are rounded, and weights with the same. That leaves
exact products as they are and spreads what stands out in few inputs over many (QuaRot, Ashkboos et al. 2024). It is
Hadamard's matrix in blocks of the largest power of 2 that divides the width, with random signs.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import cache, partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

import _bench
from inference_speed import held_out, scored
from shelfwise.modeling.packed import forward, linear
from shelfwise.modeling.packed.layers import Map
from shelfwise.modeling.packed.linear import Frozen
from shelfwise.modeling.packed.rows import Rows

Rounding = Callable[[Tensor], Tensor]


def to_levels(x: Tensor, levels: int) -> Tensor:
    """(..., K), rounded to whole multiples, -levels to levels, of each row's own scale."""
    scale = x.abs().amax(-1, keepdim=True).clamp(min=1e-12) / levels
    return (x / scale).round() * scale


def to_fp8(x: Tensor) -> Tensor:
    rows, factors = linear.to_fp8(x)
    return rows.float() * factors


@cache
def turn(width: int) -> tuple[Tensor, Tensor]:
    """Signs (width,) and an orthogonal symmetric matrix (block, block) of Hadamard's kind."""
    block = width & -width
    matrix = torch.ones(1, 1)
    while len(matrix) < block:
        matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)])
    signs = torch.randint(0, 2, (width,), generator=torch.Generator().manual_seed(0)) * 2.0 - 1
    return signs, matrix / block**0.5


def turned(x: Tensor) -> Tensor:
    """(..., K), each block of a row multiplied with the matrix."""
    signs, matrix = turn(x.shape[-1])
    return ((x * signs).unflatten(-1, (-1, len(matrix))) @ matrix).flatten(-2)


def after_turning(rounding: Rounding) -> Rounding:
    return lambda x: rounding(turned(x))


def rounded(weights: Rounding, inputs: Rounding) -> AbstractContextManager[Any]:
    """The layers' products with weights and inputs that are rounded."""
    kept: dict[int, tuple[Tensor, Tensor]] = {}  # by address, with the weight itself, so that it keeps its address

    def multiplied(rows: Rows, map_: Map, *, kernel: bool) -> Tensor:
        base, lora = map_
        assert isinstance(base, Frozen), "not as weights are on a CPU"
        assert not lora.down, "adapters that are not merged"
        assert rows.values.dtype == torch.float32
        weight = base.weight
        if weight.data_ptr() not in kept:
            kept[weight.data_ptr()] = weight, weights(weight)
        return F.linear(inputs(rows.values), kept[weight.data_ptr()][1])

    return mock.patch.object(forward, "multiplied", multiplied)


INT8, SEVEN = partial(to_levels, levels=127), partial(to_levels, levels=63)
WAYS: dict[str, tuple[Rounding, Rounding]] = {
    "fp8 (e4m3)": (to_fp8, to_fp8),
    "int8": (INT8, INT8),
    "int8, inputs of 7 bits": (INT8, SEVEN),
    "int8, turned": (after_turning(INT8), after_turning(INT8)),
    "int8, inputs of 7 bits, turned": (after_turning(INT8), after_turning(SEVEN)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("catalogue", type=Path)
    parser.add_argument("--run", type=Path, required=True, help="a trained run with a classification head")
    parser.add_argument("--out", type=Path, default=_bench.RESULTS)
    parser.add_argument("--names", type=int, help="most test names, to try the script")
    parser.add_argument("--name", default="rounded_answers", help="of the result file")
    options = parser.parse_args()
    from shelfwise import artifact
    from shelfwise import config as configs
    from shelfwise.classifier import Classifier
    from shelfwise.pipelines.finetune import quiet_libraries

    quiet_libraries()
    config = configs.load(options.run / artifact.CONFIG)
    classifier = Classifier.load(options.run, which="model", precision="fp32", device="cpu")
    assert classifier.scorer.inference is not None, "a model without packed layers"  # type: ignore[union-attr]
    products = held_out(options.run, options.catalogue)[: options.names]
    texts = [product.text for product in products]
    targets = np.array([classifier.labels.index(product.label, "") for product in products])
    rows: list[dict[str, Any]] = []

    def add(way: str, log_probs: Any, exact: Any) -> None:
        rows.append(
            {
                "model": f"{Path(config.model).name} {config.method} (trained)",
                "precision": way,
                "products": len(texts),
                **scored(log_probs, targets, exact),
            }
        )
        _bench.say(rows[-1])
        _bench.write(options.name, rows, options.out)

    exact = classifier.calibration.log_probs(classifier.log_probs(texts))
    add("fp32", exact, exact)
    for way, (weights, inputs) in WAYS.items():
        with rounded(weights, inputs):
            add(way, classifier.calibration.log_probs(classifier.log_probs(texts)), exact)


if __name__ == "__main__":
    main()
