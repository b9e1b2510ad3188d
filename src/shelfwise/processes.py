"""Which of several training processes this one is, as `torchrun` and `accelerate launch` say in the environment.

And on how many cores it may be.
"""

from __future__ import annotations

import os

BACKGROUND = "shelfwise background"  # what threads are called that may be inside a model when a command ends


def usable_cores() -> int:
    """Logical cores that this process may use: a container's or `taskset`'s share, where the system tells it."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def count() -> int:
    """Processes of this run, on all machines; 1 where no launcher started it."""
    return int(os.environ["WORLD_SIZE"]) if {"RANK", "WORLD_SIZE", "LOCAL_RANK"} <= os.environ.keys() else 1


def rank() -> int:
    """This process's number, from 0."""
    return int(os.environ["RANK"]) if count() > 1 else 0


def local_rank() -> int:
    """This process's number on its machine, from 0: the GPU that it takes."""
    return int(os.environ["LOCAL_RANK"]) if count() > 1 else 0


def local_count() -> int:
    """Processes of this run on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1)) if count() > 1 else 1


def forget_launcher_settings() -> None:
    """Drop what accelerate's configuration says of precision and sharding; that of the run says it too, and is saved.

    transformers would read both from the environment, and cut a model that is cut already.
    """
    for name in ("ACCELERATE_MIXED_PRECISION", "ACCELERATE_USE_FSDP"):
        os.environ.pop(name, None)


def is_first() -> bool:
    """Whether this process is the one that writes and speaks for all."""
    return rank() == 0
