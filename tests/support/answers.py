"""Answers of a classifier that was never asked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from shelfwise.calibration import Calibration
from shelfwise.metrics import Ranked
from shelfwise.pipelines.scoring import Answers, Rows
from shelfwise.records import Product


def products(labels: Sequence[str], names: Sequence[str] = ()) -> list[Product]:
    """Products of these types; "Thing 0", "Thing 1", ... where they are not named."""
    named = names or [f"Thing {i}" for i in range(len(labels))]
    return [
        Product(i, f"x.csv:{i + 2}", name, label, text=name)
        for i, (name, label) in enumerate(zip(named, labels, strict=True))
    ]


def answers_of(
    rows: Rows, predictions: Sequence[int], confidence: Sequence[float] = (), of_truth: Sequence[float] = ()
) -> Answers:
    """Answers with falling confidence from 1 to 0.5 where none is given, and no probability for wrong truths."""
    n = len(predictions)
    sure = np.array(confidence or np.linspace(1, 0.5, n), np.float32)
    answered = np.array(predictions)
    truth = np.array(of_truth or np.where(answered == rows.targets, sure, 1e-6), np.float32)
    with np.errstate(divide="ignore"):
        ranked = Ranked(answered[:, None], sure[:, None], np.log(truth))
    return Answers("model", "m", ranked, Calibration(), 1.0, np.full(n, 3), np.zeros(n, np.bool_))
