"""A plan in sentences: what a run would do, what does not fit, and what would."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from shelfwise.modeling import memory
from shelfwise.modeling.memory import GIB, Choice, Shape, Wish
from shelfwise.records import Method

_NAMES: dict[Method, str] = {"full": "Full fine-tuning", "lora": "LoRA", "qlora": "QLoRA"}


def advise(shape: Shape, wish: Wish, chosen: Choice, free: int, *, adaptable: bool) -> Iterator[str]:
    """What `train` would do; where that does not fit, what would; and the methods that are out of reach.

    Args:
        shape: of the base model.
        wish: what is asked for.
        chosen: what `memory.choose` makes of it.
        free: bytes there are.
        adaptable: whether LoRA and QLoRA are ways out.
    """
    if chosen.fits:
        yield f"shelfwise train would take this: {words(chosen)}, {_size(chosen)} at the peak."
    else:
        yield f"{words(chosen)} needs {_size(chosen)} and does not fit. {_way_out(shape, wish, free, adaptable)}"
        return
    for method in [] if wish.method else memory.METHODS:
        least = _least(shape, replace(wish, method=method), free)
        if not least.fits:
            yield f"Out of reach: {words(least)}, the least of its method, needs {_size(least)}."


def _way_out(shape: Shape, wish: Wish, free: int, adaptable: bool) -> str:
    """The first way that fits: of the same method, else of any."""
    same = replace(wish, micro_batch_size=None, checkpointing=None, optimizer=None)
    for wider in (same, replace(same, method=None)) if adaptable else (same,):
        found = memory.choose(shape, wider, free)
        if found.fits:
            return f"{words(found)} does, with {_size(found)}."
    least = _least(shape, wider, free)
    return f"Nothing does: the least of all, {words(least)}, needs {_size(least)}."


def _least(shape: Shape, wish: Wish, free: int) -> Choice:
    """The way that needs the least memory of all that a wish could be narrowed to."""
    bare = replace(wish, micro_batch_size=1, checkpointing=None, optimizer=None)
    return min(memory.variants(shape, bare, free), key=lambda choice: choice.estimate.total)


def words(choice: Choice) -> str:
    """A way of training in words: "QLoRA with gradient checkpointing at a micro-batch of 16"."""
    extras = [
        *(["bf16 weights (adamw_bf16)"] if choice.optimizer == "adamw_bf16" else []),
        *(["gradient checkpointing"] if choice.checkpointing else []),
    ]
    how = f" with {' and '.join(extras)}" if extras else ""
    return f"{_NAMES[choice.method]}{how} at a micro-batch of {choice.micro_batch_size}"


def _size(choice: Choice) -> str:
    return f"about {choice.estimate.total / GIB:.1f} GiB"
