"""Ending a run on Ctrl-C or SIGTERM with a checkpoint that can be gone on from."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from shelfwise import processes
from shelfwise.errors import InterruptedRunError

if TYPE_CHECKING:
    from shelfwise.modeling.job import StopRequest


@contextmanager
def stopping_on_signals(stop: StopRequest, note: Callable[[str], None]) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end a run after the step at hand; a second one ends it at once.

    Of several processes each may get a signal twice, from a scheduler and from the launcher, and one that ends at once
    takes the others with it. There the second is passed over; the launcher kills whoever takes too long.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if stop.requested and processes.count() > 1:
            return
        if stop.requested:
            raise KeyboardInterrupt
        stop.requested = True
        again = "; once more to stop at once" if processes.count() == 1 else ""
        note(f"{signal.Signals(number).name}: stopping after this step{again}")

    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def stopped_at_once(out: Path) -> InterruptedRunError:
    """The error that ends a run stopped by a second signal, or by Ctrl-C while it was being saved."""
    return InterruptedRunError(
        f"Stopped at once. Checkpoints written before are kept. Go on with: shelfwise train --resume --out {out}"
    )


def interrupted(out: Path, checkpoint: Path | None) -> InterruptedRunError:
    """The error that ends a stopped run."""
    kept = f"Checkpoint kept: {checkpoint}." if checkpoint else "No step had ended, so no checkpoint was written."
    return InterruptedRunError(f"Stopped. {kept} Go on with: shelfwise train --resume --out {out}")
