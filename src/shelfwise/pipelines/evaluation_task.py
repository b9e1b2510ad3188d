"""What is to be evaluated: the run, the rows, the folder, and whether that was done before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shelfwise import __version__, artifact
from shelfwise import config as configs
from shelfwise.config import Arithmetic, TrainConfig
from shelfwise.data.catalogue import Catalogue, read_catalogue
from shelfwise.data.split import Splits
from shelfwise.errors import CorruptArtifactError, InputError, RunFolderError
from shelfwise.pipelines import provenance
from shelfwise.pipelines.evaluation import REPORT_JSON, Evaluation, Part


@dataclass(frozen=True, slots=True)
class Task:
    """What is to be evaluated, and where the evaluation goes."""

    run: Path
    manifest: Mapping[str, Any]
    config: TrainConfig
    splits: Splits
    source: Catalogue
    part: Part
    folder: Path
    device: str
    precision: Arithmetic
    command: str  # makes the run and this evaluation again

    def earlier(self) -> Evaluation | None:
        """The evaluation that stands in the task's folder, if it is what the task would give."""
        if not (self.folder / REPORT_JSON).is_file():
            return None
        try:
            found = Evaluation.load(self.folder)
        except CorruptArtifactError:
            return None  # it will be replaced
        facts = found.facts
        # The command tells the run, its catalogue and all options.
        told = (facts.command, facts.fingerprint, facts.part, facts.versions.get("shelfwise"))
        return found if told == (self.command, self.source.fingerprint, self.part, __version__) else None

    def whole(self, key: str) -> int | None:
        """A whole number of the run's manifest, where it holds one; hand-made and older ones may not."""
        value = self.manifest.get(key)
        return value if type(value) is int else None


def settle(
    run: Path,
    catalogue: Path | None,
    out: Path | None,
    device: str,
    precision: Arithmetic,
    switches: Mapping[str, bool],
) -> Task:
    """Find out what there is to do, before anything is loaded that takes long.

    Args:
        run: as of `evaluate.evaluate`, as the next four.
        catalogue: the file to evaluate on.
        out: where the evaluation goes.
        device: where a language model answers.
        precision: of its arithmetic.
        switches: other options of `shelfwise evaluate` that are on or off, for the command that makes it again.

    Raises:
        InputError: no finished run, no catalogue, or a folder that holds something else.
        CorruptArtifactError: the run folder is damaged.
    """
    manifest = artifact.read_manifest(run, verify=False)  # Classifier.load compares the hashes
    config = configs.load(run / artifact.CONFIG)
    splits = Splits.load(run / artifact.SPLIT)
    source = _read(run, config, catalogue)
    part: Part = "test" if catalogue is None or source.fingerprint == splits.fingerprint else "all labelled rows"
    folder = out or run / (artifact.EVALUATION if part == "test" else f"{artifact.EVALUATION}-{source.path.stem}")
    _require_replaceable(folder)
    options = {
        "catalogue": False if part == "test" else source.path.name,
        "device": False if device == "auto" else device,
        "precision": False if precision == "auto" else precision,
        **switches,
    }
    trained_on = (config.catalogue or source.path).name
    command = provenance.command(run.resolve().name, trained_on, options)
    return Task(run, manifest, config, splits, source, part, folder, device, precision, command)


def _read(run: Path, config: TrainConfig, catalogue: Path | None) -> Catalogue:
    """The catalogue to evaluate on: the one named, else the run's own."""
    path = catalogue or config.catalogue
    if path is None:
        raise InputError(f"{run}: its configuration names no catalogue. Name one with --catalogue.")
    if catalogue is None and not path.is_file():
        raise InputError(
            f"{run}: the catalogue it was trained on is not at {path}. Name a copy of it with --catalogue."
        )
    return read_catalogue(path, config.columns, config.text_columns, labels="required", options=False)


def _require_replaceable(folder: Path) -> None:
    """Refuse to replace what is no evaluation."""
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not (folder / REPORT_JSON).is_file())):
        raise RunFolderError(f"{folder}: exists and is no evaluation folder. Choose another --out.")
