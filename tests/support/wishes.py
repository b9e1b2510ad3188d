"""What a 7B run on a GPU might ask of the memory."""

from __future__ import annotations

from typing import Any

from shelfwise.modeling.memory import Wish


def wish(**changes: Any) -> Wish:
    """A wish that leaves everything open, on a GPU in half precision, but for the changes."""
    values: dict[str, Any] = {
        "method": None,
        "optimizer": None,
        "micro_batch_size": None,
        "checkpointing": None,
        "batch_size": 256,
        "row_tokens": 24,
        "rank": 16,
        "low_precision": True,
        "on_gpu": True,
    }
    return Wish(**{**values, **changes})
