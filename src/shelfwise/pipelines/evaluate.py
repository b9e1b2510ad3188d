"""Measure a run: its model, its baseline and the most frequent type, on the same rows.

Writes an evaluation folder: `report.html` for people, `report.json` for machines, the confusion matrix, the per-type
table, and every prediction.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import numpy as np

from shelfwise import __version__, artifact, metrics
from shelfwise import config as configs
from shelfwise.classifier import Classifier
from shelfwise.config import Precision, TrainConfig
from shelfwise.data.catalogue import Catalogue, read_catalogue
from shelfwise.data.split import Splits
from shelfwise.errors import InputError, RunFolderError
from shelfwise.labels import Labels
from shelfwise.pipelines import evaluation_files, insights, report
from shelfwise.pipelines.evaluation import FORMAT, REPORT_JSON, Evaluation, Facts, Part, UnknownType
from shelfwise.pipelines.scoring import Answers, Progress, Rows, answer, majority, most_frequent, standing
from shelfwise.records import Product
from shelfwise.text import fold

_REPORTED_PACKAGES = ("torch", "transformers", "peft", "numpy", "scikit-learn", "pyarrow")


def evaluate(
    run: Path,
    catalogue: Path | None = None,
    *,
    out: Path | None = None,
    device: str = "auto",
    precision: Precision | Literal["auto"] = "auto",
    date: str | None = None,
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
        progress: called after each chunk with the classifier's name, texts done and texts in all.

    Raises:
        InputError: the call, the run folder or the catalogue is wrong, or `out` holds something else.
        CorruptArtifactError: the run folder is damaged.
        StorageError: the disk refused; an earlier evaluation is untouched.
    """
    artifact.read_manifest(run, verify=False)  # Classifier.load compares the hashes
    config = configs.load(run / artifact.CONFIG)
    splits = Splits.load(run / artifact.SPLIT)
    source = _catalogue(run, config, catalogue)
    own = source.fingerprint == splits.fingerprint
    folder = out or run / (artifact.EVALUATION if own or catalogue is None else f"{artifact.EVALUATION}-{catalogue.stem}")
    _require_replaceable(folder)
    part: Part = "test" if own or catalogue is None else "all labelled rows"
    rows = _rows(run, config, source, splits, part)
    answers = [majority(rows), *_ask(run, config, rows, device, precision, progress)]
    found = Evaluation(
        format=FORMAT,
        facts=_facts(run, config, source, splits, part, rows, date),
        standings=tuple(standing(each, rows) for each in answers),
        against_baseline=_against_baseline(answers, rows),
    )
    details = insights.details(answers[1:], rows)
    with artifact.atomic_folder(folder) as staging:
        artifact.write_json(staging / REPORT_JSON, found.to_json())
        evaluation_files.write(staging, answers[1:], rows, details)
        artifact.write_text(staging / report.REPORT_HTML, report.render(found, details))
    return found
