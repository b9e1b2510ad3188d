"""Run folders: the names of their files, and when one counts as complete."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from shelfwise import storage
from shelfwise.errors import RunFolderError, did_you_mean_beside
from shelfwise.storage import (
    FORMAT,
    MANIFEST,
    atomic_file,
    atomic_folder,
    sha256,
    storage_errors,
    write_json,
    write_text,
)

__all__ = [
    "FORMAT",
    "MANIFEST",
    "atomic_file",
    "atomic_folder",
    "sha256",
    "storage_errors",
    "write_json",
    "write_text",
]

CONFIG = "config.yaml"
LABELS = "labels.json"
PROMPT = "prompt.json"
SPLIT = "split.json"
LEAKAGE = "leakage.json"
CALIBRATION = "calibration.json"
BLEND = "blend.json"
METRICS = "metrics.jsonl"
ADAPTER = "adapter"
MODEL = "model"
TOKENIZER = "tokenizer"
BASELINE = "baseline"
CHECKPOINTS = "checkpoints"
PRETRAINING = "pretraining"  # of an unfinished run: what it has when it has read the names, and its checkpoints
EVALUATION = "evaluation"
TRACKERS = "trackers"
CARD = "README.md"
# May change after the manifest was written: checkpoints have manifests of their own, an evaluation can be repeated, a
# tracker's files are closed when the process ends, and an evaluation writes its results into the card. Manifests of
# runs made before it did list the card; there it is passed over.
UNHASHED = (CHECKPOINTS, PRETRAINING, EVALUATION, TRACKERS, CARD)


def source_commit(package: Path = Path(__file__).parent) -> str | None:
    """The commit that Shelfwise runs from, where it runs from a git checkout (an editable install); else None."""
    git = next((folder / ".git" for folder in package.parents if (folder / ".git").is_dir()), None)
    try:
        if git is None:
            return None
        head = (git / "HEAD").read_text(encoding="ascii").strip()
        if not head.startswith("ref: "):
            return head
        name = head.removeprefix("ref: ")
        if (git / name).is_file():
            return (git / name).read_text(encoding="ascii").strip()
        packed = (git / "packed-refs").read_text(encoding="ascii").splitlines()
        return next((line.split()[0] for line in packed if line.endswith(f" {name}")), None)
    except (OSError, ValueError):
        return None  # a checkout of another shape is no reason to lose a run


def write_manifest(run: Path, facts: dict[str, object]) -> None:
    """Write a run folder's manifest, which makes it complete. Always the last file written."""
    storage.write_manifest(run, facts, apart=UNHASHED)


def read_manifest(run: Path, *, verify: bool = True) -> dict[str, Any]:
    """Read a run folder's manifest, and check every file it lists.

    Args:
        run: the run folder.
        verify: also compare each file's hash; without it only presence and size are checked.

    Raises:
        RunFolderError: not a run folder, one whose training did not end, or one of a newer format.
        CorruptArtifactError: a file is missing or changed.
    """
    if not run.is_dir():
        raise RunFolderError(f"{run}: there is no such run folder.{did_you_mean_beside(run, folder=True)}")
    if not (run / MANIFEST).is_file():
        if (run / CONFIG).is_file():
            raise RunFolderError(
                f"{run}: the training of this run did not end. Go on with: shelfwise train --resume --out {run}"
            )
        raise RunFolderError(f"{run}: not a run folder: there is no {MANIFEST} in it.")
    return storage.read_manifest(run, verify=verify, apart=UNHASHED)
