"""Items for the review queue, and a clock that stands still."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from shelfwise.data.names import name_key
from shelfwise.records import Prediction
from shelfwise.review.items import NewItem


@dataclass
class Clock:
    """Seconds since 1970, moved by hand."""

    now: float = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


def prediction(label: str = "Rice", confidence: float = 0.5) -> Prediction:
    rest = ("Flour", (1 - confidence) / 2), ("Tea, Green", (1 - confidence) / 4)
    return Prediction(label, confidence, "review", "", ((label, confidence), *rest), ("Food", label), ())


def new_item(name: str = "Basmati", confidence: float = 0.5, label: str = "Rice", **changes: Any) -> NewItem:
    facts: dict[str, Any] = {"model": "m1", "reason": "low confidence", "origin": None, **changes}
    return NewItem(name, name_key(name), prediction(label, confidence), **facts)
