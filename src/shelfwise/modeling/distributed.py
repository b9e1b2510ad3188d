"""Several processes that train one model: how they meet, agree, share the rows of a step, and end together.

A model that fits one GPU stands whole on each, and gradients are averaged once a step (data parallelism); a model that
does not is cut into pieces by `modeling.sharding`. Each function here also holds for one process, where it does
nothing. What goes through the CPU takes gloo, what goes from GPU to GPU takes NCCL.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from shelfwise import processes
from shelfwise.errors import InputError, ShelfwiseError, WorkError
from shelfwise.modeling import hardware
from shelfwise.modeling.batching import Item
from shelfwise.prompts import IGNORE_INDEX

_Value = TypeVar("_Value")
# The first process may download a base model for the others. One that dies is noticed at once, by its closed sockets.
_TIMEOUT = timedelta(hours=2)
_GLOO_LOST = ("closed by peer", "reset by peer")  # it has no class of its own for this
_BUCKET = 2**24  # gradients averaged at once: 64 MiB of fp32 keeps the links busy and costs little beside a model


class Joined:
    """The time in which this process belongs to a group. If one fails, the others end too, and one says why."""

    def __init__(self, device: str) -> None:
        """Args:
        device: as the user names it; each process takes the GPU of its number.

        Raises:
            InputError: fewer GPUs than processes, or a launcher that wants DeepSpeed.
        """
        if os.environ.get("ACCELERATE_USE_DEEPSPEED", "").lower() == "true":
            raise InputError(
                "accelerate launch: its configuration asks for DeepSpeed, in whose place Shelfwise uses FSDP2: launch "
                "with --multi_gpu, or with torchrun."
            )
        self._device = device_of(device)

    def __enter__(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.set_device(self._device)
        store, rank, count = next(rendezvous("env://", timeout=_TIMEOUT))
        self._store = store
        backend = "cpu:gloo,cuda:nccl" if self._device.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=_TIMEOUT)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            dist.destroy_process_group()
        elif not self._is_first_to_fail():
            raise SystemExit(error.exit_status if isinstance(error, ShelfwiseError) else 1)
        elif _is_of_a_lost_process(error):
            raise WorkError(
                "Another process of this run has ended without a word: killed, or out of the machine's memory; the "
                "launcher says which. Checkpoints written before are kept: go on with --resume."
            ) from error

    def _is_first_to_fail(self) -> bool:
        """Whether this process has to say why: the others fail for the same reason, or because this one is gone."""
        try:
            first: bool = self._store.add("shelfwise/failed", 1) == 1
        except dist.DistError:  # the store went with the process that held it
            return False
        return first


def _is_of_a_lost_process(error: BaseException) -> bool:
    gloo = isinstance(error, RuntimeError) and any(words in str(error) for words in _GLOO_LOST)
    return gloo or isinstance(error, dist.DistError)


def device_of(wanted: str) -> torch.device:
    """The device of this process: its own GPU where there are several processes.

    Raises:
        InputError: no such device, or fewer GPUs than processes.
    """
    # To resolve "cuda" would take memory of the first GPU for every process.
    if processes.count() == 1 or not (wanted in ("auto", "cuda") and torch.cuda.is_available()):
        device = hardware.resolve_device(wanted)
        if processes.count() > 1 and device.type == "cuda":
            raise InputError(
                f"--device {wanted}: each of several processes takes a GPU of its own; use 'auto' or 'cuda'."
            )
        return device
    if processes.local_count() > torch.cuda.device_count():
        raise InputError(
            f"{processes.local_count()} processes on a machine with {torch.cuda.device_count()} GPUs: "
            f"use --nproc-per-node {torch.cuda.device_count()}."
        )
    return torch.device("cuda", processes.local_rank())


# Agreeing


def is_joined() -> bool:
    """Whether there are other processes to agree with."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def greatest(value: int) -> int:
    """The greatest of all processes' values; each has to ask."""
    return _reduced(value, dist.ReduceOp.MAX)


def least(value: int) -> int:
    """The least of all processes' values; each has to ask."""
    return _reduced(value, dist.ReduceOp.MIN)


def _reduced(value: int, how: Any) -> int:
    if not is_joined():
        return value
    shared = torch.tensor(value, dtype=torch.long)  # on the CPU: no GPU has to stop for it
    dist.all_reduce(shared, how)
    return int(shared)


def wait_for_all() -> None:
    """Go on when every process is here."""
    greatest(0)


def from_first(value: Callable[[], int]) -> int:
    """The number, 0 or more, that the first process finds; the others don't look."""
    return greatest(value() if processes.is_first() else 0)


def first_goes_ahead(value: Callable[[], _Value]) -> _Value:
    """What every process finds, the first of each machine before the others: it downloads, they find it there."""
    if processes.local_rank() > 0:
        wait_for_all()
    found = value()
    if processes.local_rank() == 0:
        wait_for_all()
    return found


def free_memory(device: torch.device) -> int:
    """Bytes that each process may still take, so that all plan alike; those of one machine share its memory."""
    free = hardware.free_memory(device)
    return least(free if device.type == "cuda" else free // processes.local_count())


# Sharing the rows of a step


class SharedBatches:
    """One process's part of each micro-batch, strided: rows of like length go to all at the same time.

    A short micro-batch may leave a process without a row. It still takes part, with none: `SharedCollator`.
    """

    def __init__(self, order: Iterable[int], rows: int) -> None:
        """Args:
        order: of all processes' rows; a `StepSampler`.
        rows: of a micro-batch of all processes together.
        """
        self._order = order
        self._rows = rows

    def __len__(self) -> int:
        return -(-len(self._order) // self._rows)  # type: ignore[arg-type]  # a sampler has a length

    def __iter__(self) -> Iterator[list[int]]:
        batch: list[int] = []
        for index in self._order:
            batch.append(index)
            if len(batch) == self._rows:
                yield share(batch)
                batch = []
        if batch:
            yield share(batch)


@dataclass(frozen=True, slots=True)
class SharedCollator:
    """Collates a share of rows. No row becomes a spare one without a target, for all processes pass forward alike."""

    collate: Callable[[Sequence[Item]], dict[str, Tensor]]
    spare: Item

    def __call__(self, items: Sequence[Item]) -> dict[str, Tensor]:
        """Collate a micro-batch."""
        batch = self.collate(items or [self.spare])
        if not items:
            batch["labels"].fill_(IGNORE_INDEX)
        return batch


def share(rows: Sequence[int]) -> list[int]:
    """This process's part of some rows; all of them where it is alone."""
    return list(rows[dist.get_rank() :: dist.get_world_size()]) if is_joined() else list(rows)


def summed(values: Tensor) -> Tensor:
    """The sum over all processes, of tensors of one shape on the CPU; each that holds zeros beside its own rows."""
    if is_joined():
        dist.all_reduce(values)
    return values


# Training alike


def broadcast_parameters(parameters: Iterable[Tensor]) -> None:
    """Begin with the first process's values of what is trained, whatever each has drawn."""
    if is_joined():
        for parameter in parameters:
            dist.broadcast(parameter.detach(), 0)


def average_gradients(parameters: Iterable[Tensor]) -> None:
    """Replace gradients by their mean over all processes, taken in fp32, in buckets of one dtype."""
    if not is_joined():
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    for bucket in _buckets(gradients):
        flat = torch.cat([gradient.flatten() for gradient in bucket]).float()
        dist.all_reduce(flat)
        flat /= dist.get_world_size()
        means = torch.split(flat, [gradient.numel() for gradient in bucket])
        for gradient, mean in zip(bucket, means, strict=True):
            gradient.copy_(mean.view_as(gradient))


def _buckets(gradients: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    bucket: list[Tensor] = []
    for gradient in gradients:
        held = sum(other.numel() for other in bucket)
        if bucket and (held + gradient.numel() > _BUCKET or gradient.dtype != bucket[0].dtype):
            yield bucket
            bucket = []
        bucket.append(gradient)
    if bucket:
        yield bucket


def seed_step(seed: int, step: int) -> None:
    """Draw a step's dropout from the step and the process alone, so that a run goes on alike after any stop."""
    if is_joined():
        torch.manual_seed((seed * 1_000_003 + step) * dist.get_world_size() + dist.get_rank())
