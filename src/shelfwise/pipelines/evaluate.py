"""Measure a run: its model, its baseline and the most frequent type, on the same rows.

Writes an evaluation folder: `report.html` for people, `report.json` for machines, the confusion matrix, the per-type
table, and every prediction.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import numpy as np

from shelfwise import __version__, artifact, metrics
from shelfwise import config as configs
from shelfwise.classifier import Classifier
from shelfwise.config import Precision, TrainConfig
from shelfwise.data.catalogue import Catalogue, read_catalogue
from shelfwise.data.split import Splits, repeated
from shelfwise.errors import InputError, RunFolderError
from shelfwise.labels import Labels
from shelfwise.pipelines import evaluation_files, insights, report, robustness
from shelfwise.pipelines.evaluation import REPORT_HTML, REPORT_JSON, Evaluation, Facts, Kind, Part, UnknownType
from shelfwise.pipelines.run import watch_leakage
from shelfwise.pipelines.scoring import Answers, Progress, Rows, answer, majority, most_frequent, standing

# Distributions by the module that shows that they were used.
_REPORTED_PACKAGES = {
    "torch": "torch",
    "transformers": "transformers",
    "peft": "peft",
    "numpy": "numpy",
    "scikit-learn": "sklearn",
}


def evaluate(
    run: Path,
    catalogue: Path | None = None,
    *,
    out: Path | None = None,
    device: str = "auto",
    precision: Precision | Literal["auto"] = "auto",
    date: str | None = None,
    perturb: bool = False,
    strict: bool = False,
    note: Callable[[str], None] = lambda _: None,
    progress: Progress | None = None,
) -> Evaluation:
    """Score a run and write what was found.

    Args:
        run: a run folder.
        catalogue: None: the test part of the run's own catalogue. Otherwise all labelled rows of this file; a copy of
            the run's own catalogue gives its test part, for the other rows are those the run was trained on.
        out: the evaluation folder; an earlier evaluation there is replaced. None: ``evaluation`` in the run folder,
            or ``evaluation-NAME`` for another catalogue.
        device: "auto", "cpu", "cuda", "cuda:1".
        precision: of a language model's arithmetic.
        date: when this happened, for the report; None leaves it out.
        perturb: also ask for perturbed names, eight kinds of them: takes up to nine times as long.
        strict: refuse a test part that leaks the answer (`data.leakage`), instead of noting it.
        note: told, in one line, of leakage between the test part and what the run was trained on.
        progress: called after each chunk with the classifier's name, texts done and texts in all.

    Raises:
        InputError: the call, the run folder or the catalogue is wrong, `out` holds something else, or `strict` refuses.
        CorruptArtifactError: the run folder is damaged.
        StorageError: the disk refused; an earlier evaluation is untouched.
    """
    artifact.read_manifest(run, verify=False)  # Classifier.load compares the hashes
    config = configs.load(run / artifact.CONFIG)
    splits = Splits.load(run / artifact.SPLIT)
    source = _read(run, config, catalogue)
    part: Part = "test" if catalogue is None or source.fingerprint == splits.fingerprint else "all labelled rows"
    folder = out or run / (artifact.EVALUATION if part == "test" else f"{artifact.EVALUATION}-{source.path.stem}")
    _require_replaceable(folder)
    if part == "test":
        watch_leakage(source, splits, config, note, strict=strict)
    rows = _rows(run, config, source, splits, part)
    answers = [majority(rows)]
    tests = []
    for kind, classifier in _classifiers(run, config, device, precision):
        answers.append(answer(classifier, kind, rows, progress))
        if perturb:
            tests.append(robustness.robustness(classifier, answers[-1], rows, progress=progress))
    found = Evaluation(
        folder=folder,
        facts=_facts(run, config, source, splits, part, rows, date),
        standings=tuple(standing(each, rows) for each in answers),
        against_baseline=_against_baseline(answers, rows),
        robustness=tuple(tests),
    )
    details = insights.details(answers[1:], rows)
    with artifact.atomic_folder(folder) as staging:
        artifact.write_json(staging / REPORT_JSON, found.to_json())
        evaluation_files.write(staging, answers[1:], rows, details)
        artifact.write_text(staging / REPORT_HTML, report.render(found, details))
    return found


def _read(run: Path, config: TrainConfig, catalogue: Path | None) -> Catalogue:
    """The catalogue to evaluate on: the one named, else the run's own."""
    path = catalogue or config.catalogue
    if path is None:
        raise InputError(f"{run}: its configuration names no catalogue. Name one with --catalogue.")
    if catalogue is None and not path.is_file():
        raise InputError(
            f"{run}: the catalogue it was trained on is not at {path}. Name a copy of it with --catalogue."
        )
    return read_catalogue(path, config.columns, config.text_columns, labels="required")


def _require_replaceable(folder: Path) -> None:
    """Refuse to replace what is no evaluation."""
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not (folder / REPORT_JSON).is_file())):
        raise RunFolderError(f"{folder}: exists and is no evaluation folder. Choose another --out.")


def _rows(run: Path, config: TrainConfig, source: Catalogue, splits: Splits, part: Part) -> Rows:
    """The products to score, and which of them have a name that training did not have."""
    labels = Labels.load(run / artifact.LABELS)
    if part == "test":
        parts = splits.parts(source)
        if not parts.test:
            raise InputError(f"{run}: its split has no test part. Name labelled products with --catalogue.")
        known = {product.id for product in repeated([*parts.train, *parts.validation], parts.test)}
        return Rows.of(parts.test, labels, np.array([product.id not in known for product in parts.test]))
    return Rows.of(source.labelled, labels, None)


def _classifiers(
    run: Path, config: TrainConfig, device: str, precision: Precision | Literal["auto"]
) -> Iterator[tuple[Kind, Classifier]]:
    """The baseline, if the run has one, and the model, unless the run is the baseline; each loaded when asked for."""
    has_baseline = (run / artifact.BASELINE).is_dir()
    if has_baseline:
        yield "baseline", Classifier.load(run, which="baseline")
    if config.model != "baseline":
        # Hashing 13 GB of weights takes a while; loading the baseline has compared every file of the run.
        yield "model", Classifier.load(run, device=device, precision=precision, verify=not has_baseline)


def _against_baseline(answers: Sequence[Answers], rows: Rows) -> metrics.Paired | None:
    correct = {each.kind: each.correct(rows) for each in answers}
    return metrics.mcnemar(correct["model"], correct["baseline"]) if {"model", "baseline"} <= set(correct) else None


def _facts(
    run: Path, config: TrainConfig, source: Catalogue, splits: Splits, part: Part, rows: Rows, date: str | None
) -> Facts:
    unknown = [label for target in rows.targets.tolist() if (label := rows.names[target]) not in rows.labels]
    return Facts(
        run=run.resolve().name,
        date=date,
        catalogue=source.path.name,
        fingerprint=source.fingerprint,
        part=part,
        rows=len(rows.products),
        unlabelled=0 if part == "test" else len(source.products) - len(source.labelled),
        rejected=len(source.rejects),
        unknown_types=tuple(UnknownType(label, n) for label, n in most_frequent(unknown)),
        shared_names=None if rows.new is None else int((~rows.new).sum()),
        n_labels=len(rows.labels),
        text_columns=tuple(config.text_columns),
        split=splits.strategy,
        split_seed=splits.seed,
        training_seed=config.training.seed,
        versions=_versions(),
    )


def _versions() -> dict[str, str]:
    """Of Shelfwise, Python and those packages that had a part in it."""
    loaded = {name: version(name) for name, module in _REPORTED_PACKAGES.items() if module in sys.modules}
    return {"shelfwise": __version__, "python": platform.python_version(), **loaded}
