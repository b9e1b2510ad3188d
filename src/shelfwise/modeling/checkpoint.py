"""The state of a training run on disk: no pickle, whole or absent, verified before it is used."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from shelfwise import storage
from shelfwise.errors import CorruptArtifactError, InputError, RunFolderError
from shelfwise.modeling import distributed, sharding

STATE_TENSORS = "training_state.safetensors"
STATE_VALUES = "training_state.json"
_NAME = re.compile(r"checkpoint-(\d+)")
# "I/O error: No space left on device (os error 28)" in safetensors 0.8, "IoError(Os { code: 28, ..." up to 0.5.
_OS_ERROR = re.compile(r"\(os error (\d+)\)|Os \{ code: (\d+)")


def folder_of(checkpoints: Path, step: int) -> Path:
    """Where the checkpoint of an optimiser step lies."""
    return checkpoints / f"checkpoint-{step}"


def complete(checkpoints: Path) -> list[Path]:
    """Checkpoints that have a manifest, oldest first. One without a manifest does not exist."""
    found = [(int(match.group(1)), path) for path in checkpoints.glob("*") if (match := _NAME.fullmatch(path.name))]
    return [path for _, path in sorted(found) if (path / storage.MANIFEST).is_file()]


def latest(checkpoints: Path) -> Path | None:
    """The newest checkpoint whose every file matches its hash; damaged ones are passed over.

    Raises:
        CorruptArtifactError: there are checkpoints, and all are damaged.
    """
    candidates = complete(checkpoints)
    for path in reversed(candidates):
        try:
            storage.read_manifest(path)
        except (CorruptArtifactError, RunFolderError):
            continue
        return path
    if candidates:
        raise CorruptArtifactError(
            f"{checkpoints}: none of the {len(candidates)} checkpoints is intact. Start again with another --out."
        )
    return None


def latest_for_all(checkpoints: Path) -> Path | None:
    """`latest`, in several processes: the first reads and hashes what is as large as the model, for all."""

    def step() -> int:
        found = latest(checkpoints)
        return int(found.name.rpartition("-")[2]) if found else 0

    newest = distributed.from_first(step)
    return folder_of(checkpoints, newest) if newest else None


def rotate(checkpoints: Path, kept: int, best: Path | None) -> None:
    """Delete the oldest checkpoints beyond `kept`; the best and the newest always stay."""
    found = complete(checkpoints)
    spare = [path for path in found[:-1] if path != best]
    for path in spare[: max(0, len(found) - max(kept, 1 + (best is not None and best != found[-1])))]:
        shutil.rmtree(path)


@contextmanager
def disk_errors() -> Iterator[None]:
    """Turn safetensors' error for what the disk refuses, which is no OSError, into the OSError that it stands for.

    `storage.atomic_folder`, in which weights are written, makes a StorageError of that.
    """
    try:
        yield
    except SafetensorError as error:
        found = _OS_ERROR.search(str(error))
        if found is None:
            raise
        code = int(found.group(1) or found.group(2))
        raise OSError(code, os.strerror(code)) from error


def save_model(model: Any, folder: Path, weights: dict[str, torch.Tensor] | None = None) -> None:
    """Write a model's or an adapter's weights and configuration under the ecosystem's own names.

    Args:
        model: to be saved.
        folder: where to.
        weights: of a model that is cut into pieces, put together (`sharding.whole_weights`).

    Raises:
        OSError: the disk refused.
    """
    with disk_errors():
        model.save_pretrained(folder, **({} if weights is None else {"state_dict": weights}))


def save_training_state(folder: Path, state: dict[str, Any], scheduler: Any, scaler: Any | None) -> None:
    """Write optimiser, schedule, loss scale and random states as safetensors and JSON.

    Args:
        folder: where to.
        state: the optimiser's state dict, its tensors whole (`sharding.whole_optimizer`).
        scheduler: of the learning rate.
        scaler: of the loss, where precision is fp16.
    """
    tensors: dict[str, torch.Tensor] = {}
    scalars: dict[str, dict[str, float]] = {}
    for index, entry in state["state"].items():
        for key, value in entry.items():
            if isinstance(value, torch.Tensor):
                tensors[f"optimizer.{index}.{key}"] = value.detach().to("cpu").contiguous()
            else:
                scalars.setdefault(str(index), {})[key] = value
    version, keys, position, has_gauss, cached = _numpy_state()
    python_version, python_keys, python_gauss = random.getstate()
    tensors["random.torch"] = torch.get_rng_state()
    tensors["random.numpy"] = torch.from_numpy(keys.astype(np.int64))
    if torch.cuda.is_available():
        for device, rng in enumerate(torch.cuda.get_rng_state_all()):
            tensors[f"random.cuda.{device}"] = rng
    values = {
        "optimizer": {"scalars": scalars, "groups": state["param_groups"]},
        "scheduler": _plain(scheduler.state_dict()),
        "scaler": scaler.state_dict() if scaler is not None else None,
        "numpy": [version, position, has_gauss, cached],
        "python": [python_version, list(python_keys), python_gauss],
    }
    with disk_errors():
        save_file(tensors, folder / STATE_TENSORS)
    storage.write_json(folder / STATE_VALUES, values)


def _numpy_state() -> tuple[str, Any, int, int, float]:
    state: Any = np.random.get_state(legacy=True)
    return state  # type: ignore[no-any-return]


def _plain(state: dict[str, Any]) -> dict[str, Any]:
    """A schedule's state without the functions it is made of, which are rebuilt and never loaded."""
    return {key: value for key, value in state.items() if key != "lr_lambdas"}


def load_training_state(folder: Path, optimizer: Any, scheduler: Any, scaler: Any | None) -> None:
    """Put a saved state into a run's optimiser, schedule and scaler. Random states: `load_random_state`.

    Raises:
        CorruptArtifactError: the files can't be read.
        InputError: they belong to a model of another shape or to other parameter groups.
    """
    values = _values(folder)
    entries: dict[int, dict[str, Any]] = {}
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for name, tensor in _tensors(folder, "optimizer."):
        _, index, key = name.split(".", 2)
        if int(index) < len(parameters):  # else `load_state_dict` says what is wrong
            entries.setdefault(int(index), {})[key] = sharding.piece(tensor, parameters[int(index)])
    for index, scalars in values["optimizer"]["scalars"].items():
        entries.setdefault(int(index), {}).update(scalars)
    try:
        optimizer.load_state_dict({"state": entries, "param_groups": values["optimizer"]["groups"]})
    except ValueError as error:
        raise InputError(f"{folder}: belongs to another configuration of this model ({error}).") from error
    scheduler.load_state_dict({**scheduler.state_dict(), **values["scheduler"]})
    if scaler is not None and values["scaler"] is not None:
        scaler.load_state_dict(values["scaler"])


def load_random_state(folder: Path) -> None:
    """Restore Python's, NumPy's and torch's generators, so that dropout goes on where it stopped."""
    values, tensors = _values(folder), dict(_tensors(folder, "random."))
    version, position, has_gauss, cached = values["numpy"]
    np.random.set_state((version, tensors["random.numpy"].numpy().astype(np.uint32), position, has_gauss, cached))
    python_version, keys, gauss = values["python"]
    random.setstate((python_version, tuple(keys), gauss))
    torch.set_rng_state(tensors["random.torch"])
    if torch.cuda.is_available():
        for device in range(torch.cuda.device_count()):
            if f"random.cuda.{device}" in tensors:
                torch.cuda.set_rng_state(tensors[f"random.cuda.{device}"], device)


@contextmanager
def _reading(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, SafetensorError) as error:
        raise CorruptArtifactError(
            f"{folder}: its training state can't be read ({error}). Remove this checkpoint: --resume then goes on from "
            "the one before it."
        ) from error


def _values(folder: Path) -> dict[str, Any]:
    with _reading(folder):
        values: dict[str, Any] = json.loads((folder / STATE_VALUES).read_text(encoding="utf-8"))
    return values


def _tensors(folder: Path, prefix: str) -> Iterator[tuple[str, torch.Tensor]]:
    """Tensors one at a time: of several processes on one machine each reads them all."""
    with _reading(folder):
        file: Any = safe_open(folder / STATE_TENSORS, framework="pt")
    with file:
        for name in file.keys():  # noqa: SIM118  # the file is no mapping
            if name.startswith(prefix):
                yield name, file.get_tensor(name)
