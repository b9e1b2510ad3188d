"""How several processes train one model: each holds it whole, or each holds a piece; and how many rows at a time."""

from __future__ import annotations

from dataclasses import replace
from math import gcd
from typing import Literal

from shelfwise import processes
from shelfwise.errors import ConfigError
from shelfwise.modeling import memory
from shelfwise.records import Method

Parallel = Literal["auto", "ddp", "fsdp"]


def choose(shape: memory.Shape, wish: memory.Wish, parallel: Parallel, free: int) -> memory.Choice:
    """`memory.choose` for all processes of a run together; the same for one.

    Args:
        shape: of the base model.
        wish: what the configuration asks for, `batch_size` over all processes.
        parallel: ddp, fsdp, or auto: full training is cut into pieces, an adapter's base stands whole on each process
            unless it does not fit.
        free: bytes that each process may take.

    Raises:
        ConfigError: the batch can't be shared evenly, or the method can't be cut.
    """
    count = processes.count()
    if count == 1:
        return memory.choose(shape, wish, free)
    part, rest = divmod(wish.batch_size, count)
    if rest:
        fits = f"{part * count} or {(part + 1) * count} can" if part else f"{count} can"
        raise ConfigError(
            f"training.batch_size: {wish.batch_size} products can't be shared evenly by {count} processes; {fits}."
        )
    if parallel == "fsdp" and wish.method == "qlora":
        raise ConfigError("training.parallel: fsdp can't cut a 4-bit base; use ddp or auto for --method qlora.")
    micro = wish.micro_batch_size and gcd(wish.micro_batch_size, part)
    whole: dict[Parallel, tuple[Method, ...]] = {"auto": ("full",), "ddp": (), "fsdp": ("full", "lora")}
    shared = replace(wish, batch_size=part, micro_batch_size=micro, processes=count, sharded=whole[parallel])
    choice = memory.choose(shape, shared, free)
    if choice.fits or parallel != "auto" or wish.method == "qlora":
        return choice
    return memory.choose(shape, replace(shared, sharded=("full", "lora")), free)
