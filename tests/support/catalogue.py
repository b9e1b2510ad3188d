"""A catalogue of five types that tiny models learn in seconds."""

from __future__ import annotations

from shelfwise.labels import Labels
from shelfwise.modeling.batching import Item
from shelfwise.modeling.engine import Engine

LABELS = Labels(("Face Care", "Hair Oil", "Hair Oil & Serum", "Rice", "Rice Flour"))
NAMES = {
    "Face Care": ["Aloe face gel", "Cream face wash", "Rose face mist"],
    "Hair Oil": ["Coconut hair oil", "Amla oil for hair"],
    "Hair Oil & Serum": ["Argan hair serum", "Serum with oil"],
    "Rice": ["Basmati long grain", "Sona masoori, aged"],
    "Rice Flour": ["Fine idli flour", "Rice flour, stone ground"],
}
EXAMPLES = [
    (f"{NAMES[label][i % len(NAMES[label])]} {1 + i % 7} kg", label) for i in range(24) for label in LABELS.names
]


def items_for(engine: Engine) -> list[Item]:
    ends = engine.encoder.completions(LABELS.names)
    items = []
    for text, label in EXAMPLES:
        ids, target = engine.encoder.encode([text])[0], LABELS.index(label)
        items.append(Item(ids + (ends[target] if engine.objective == "completion" else []), target, len(ids)))
    return items
