"""How long a run has been trained: kept beside its checkpoints, so that a resumed run adds to it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from shelfwise import artifact, processes
from shelfwise.errors import StorageError

FILE = "training_time.json"


def read(checkpoints: Path) -> float:
    """Seconds of all legs so far; 0 where nothing is known."""
    try:
        return float(json.loads((checkpoints / FILE).read_text(encoding="utf-8"))["seconds"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0.0


@contextmanager
def leg(checkpoints: Path) -> Iterator[Callable[[], float]]:
    """Time a leg of training, and keep the sum over all legs however it ends.

    Yields:
        Keeps the seconds of all legs until now, and returns them. A leg that is killed counts until that was last
        called.
    """
    earlier, began = read(checkpoints), time.perf_counter()

    def keep() -> float:
        seconds = earlier + time.perf_counter() - began
        if processes.is_first():
            with suppress(StorageError):  # what else is written there tells of it
                artifact.write_json(checkpoints / FILE, {"seconds": round(seconds, 2)})
        return seconds

    try:
        yield keep
    finally:
        keep()
