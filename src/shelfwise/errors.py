"""Every error Shelfwise raises on purpose, and the exit status it ends a command with.

    ShelfwiseError
    ├── InputError               exit 2: the call or something it names is wrong
    │   ├── CatalogueError         a file of products can't be used as it is
    │   ├── ConfigError            a configuration has unknown, missing or impossible values
    │   ├── ModelNotFoundError     no base model by this name, folder or hub id
    │   ├── ModelAccessError       the base model exists, but not for this user (gated, or offline)
    │   └── RunFolderError         a folder is no run folder, or not one that this version can read
    └── WorkError                exit 1: the call was right, the work failed
        ├── TrainingError          the loss is no longer a number, or nothing can be learned
        ├── InterruptedRunError    Ctrl-C or SIGTERM; what was done is kept
        ├── CorruptArtifactError   a saved file does not match its hash, or is missing
        ├── MissingPackageError    an optional dependency is needed and not installed
        └── StorageError           the disk is full or refuses; nothing half-written was left under a final name

A message says where, what, and what to do: ``catalogue.csv:1042: 'Beverage' is not one of the 426 inventory types
of this run. Did you mean 'Beverages'?``
"""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterable
from pathlib import Path

_NEIGHBOURS = 10_000  # names of a folder that are looked at for the nearest one

# What to do about a run folder whose files are not as they were written.
COPY_AGAIN = "Copy the run folder whole again, or train the run again."


class ShelfwiseError(Exception):
    """Base of all errors a caller may want to catch. The message is made to be shown to a user as it is."""

    exit_status: int = 1


class InputError(ShelfwiseError):
    """The call, or a file that it names, is wrong; nothing was done."""

    exit_status = 2


class CatalogueError(InputError):
    """A file of products can't be used as it is."""


class ConfigError(InputError):
    """A configuration holds unknown, missing or impossible values; the message lists all of them."""


class ModelNotFoundError(InputError):
    """No base model goes by this name."""


class ModelAccessError(InputError):
    """The base model exists, but can't be had from here: it is gated, or the hub is out of reach."""


class RunFolderError(InputError):
    """A folder is not a run folder, or one of a format that this version can't read."""


class WorkError(ShelfwiseError):
    """The call was right; the work failed."""


class TrainingError(WorkError):
    """Training can't go on: the loss is not finite, or there is nothing to learn from."""


class InterruptedRunError(WorkError):
    """The run was stopped by Ctrl-C or SIGTERM; the message says what was kept and how to go on."""


class CorruptArtifactError(WorkError):
    """A saved file does not match its recorded hash, or is missing."""


class MissingPackageError(WorkError):
    """An optional dependency is needed and not installed; the message names the extra to install."""


class StorageError(WorkError):
    """Writing failed (a full disk, no permission); nothing half-written was left under a final name."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Name the nearest known word, as a sentence to end an error message with.

    Returns:
        ``" Did you mean 'product'?"`` with its leading space, or ``""`` when nothing is near.
    """
    by_folded = {candidate.casefold(): candidate for candidate in known}
    near = difflib.get_close_matches(word.casefold(), list(by_folded), n=1, cutoff=0.6)
    return f" Did you mean '{by_folded[near[0]]}'?" if near else ""


def did_you_mean_beside(path: Path, *, folder: bool = False) -> str:
    """Name what has the nearest name in the folder of a path that is missing, as `did_you_mean` does.

    Args:
        path: what is missing.
        folder: it is to be a folder, and files are not looked at.
    """
    if not path.parent.is_dir():
        return f" There is no folder {path.parent} either."
    try:
        beside = itertools.islice(path.parent.iterdir(), _NEIGHBOURS)
        return did_you_mean(path.name, [entry.name for entry in beside if not folder or entry.is_dir()])
    except OSError:
        return ""
