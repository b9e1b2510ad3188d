"""Whether two ways to ask a model give the same answers to the same texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shelfwise.config import Precision
from shelfwise.labels import Labels

# How far probabilities may lie apart and still be a tie. A logit of 8 is rounded by up to 0.016 in bf16 (8 bits of
# significand), 0.002 in fp16; two of them and the sum over the layers make a few times that, of which a probability
# moves by at most a quarter.
_MARGINS: dict[Precision, float] = {"fp32": 1e-3, "fp16": 5e-3, "bf16": 2e-2}
SHOWN_FLIPS = 5


@dataclass(frozen=True, slots=True)
class Flip:
    """A text that got another answer, beyond a tie."""

    text: str
    first: str
    second: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two sets of answers to the same texts."""

    first: str
    second: str
    names: int
    largest_difference: float  # of any label's probability
    flipped: int  # texts whose answer changed, beyond ties
    ties: int  # texts whose answer changed between two labels that are as probable, by the margin
    flips: tuple[Flip, ...]  # the first ones


def margin_of(precision: Precision) -> float:
    """Up to which difference of two probabilities a precision leaves them a tie."""
    return _MARGINS[precision]


def compare_answers(
    first: str,
    second: str,
    p: NDArray[np.float32],
    q: NDArray[np.float32],
    texts: Sequence[str],
    labels: Labels,
    margin: float,
) -> Comparison:
    """Compare answers.

    Args:
        first: what gave `p`.
        second: what gave `q`.
        p: (N, C) probabilities.
        q: (N, C) probabilities of the same texts.
        texts: at least N, in their order.
        labels: C.
        margin: a changed answer is a tie when each side gives both labels probabilities no further apart than this.
    """
    rows = np.arange(len(p))
    before, after = p.argmax(axis=1), q.argmax(axis=1)
    gaps = np.maximum(p[rows, before] - p[rows, after], q[rows, after] - q[rows, before])
    changed = before != after
    near = gaps <= margin
    broken = ~(np.isfinite(p).all(axis=1) & np.isfinite(q).all(axis=1))  # what is no number is no tie
    flipped = (changed & ~near) | broken
    difference = np.abs(p.astype(np.float64) - q).max() if p.size else 0.0
    return Comparison(
        first=first,
        second=second,
        names=len(p),
        largest_difference=float(difference),
        flipped=int(flipped.sum()),
        ties=int((changed & near & ~broken).sum()),
        flips=tuple(
            Flip(texts[i], labels[int(before[i])], labels[int(after[i])])
            for i in np.flatnonzero(flipped)[:SHOWN_FLIPS].tolist()
        ),
    )
