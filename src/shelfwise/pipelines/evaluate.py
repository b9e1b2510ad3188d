"""Measure a run: its model, its baseline, their blend and the most frequent type, on the same rows.

Writes an evaluation folder: `report.html` for people, `report.json` for machines, the confusion matrix, the per-type
table, and every prediction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from shelfwise import artifact, metrics
from shelfwise.blend import BlendScorer
from shelfwise.bootstrap import Resamples
from shelfwise.classifier import Classifier, answering, blend_of
from shelfwise.config import Arithmetic
from shelfwise.data.leakage import Leakage, find_leakage
from shelfwise.data.split import repeated
from shelfwise.errors import InputError
from shelfwise.labels import Labels
from shelfwise.pipelines import (
    breakdown,
    card_results,
    evaluation_files,
    insights,
    leakage_record,
    provenance,
    report,
    robustness,
    trackers,
)
from shelfwise.pipelines.asking import Panel, Progress
from shelfwise.pipelines.breakdown import Known
from shelfwise.pipelines.evaluation import (
    REPORT_HTML,
    REPORT_JSON,
    Band,
    Evaluation,
    Facts,
    Kind,
    Robustness,
    TypePromise,
    UnknownType,
)
from shelfwise.pipelines.evaluation_task import Task, settle
from shelfwise.pipelines.run import tell_leakage
from shelfwise.pipelines.scoring import Answers, Rows, majority, most_frequent, standing


def evaluate(
    run: Path,
    catalogue: Path | None = None,
    *,
    out: Path | None = None,
    device: str = "auto",
    precision: Arithmetic = "auto",
    date: str | None = None,
    perturb: bool = False,
    strict: bool = False,
    reuse: bool = False,
    note: Callable[[str], None] = lambda _: None,
    progress: Progress | None = None,
) -> Evaluation:
    """Score a run and write what was found; where the run has trackers, they get the headline numbers too.

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
        reuse: give back the evaluation that is there, if it was made by this version, with the same options, of the
            same rows.
        note: told, in one line, of leakage between the test part and what the run was trained on, and of trackers
            that are not installed.
        progress: called after each chunk with the classifier's name, texts done and texts in all.

    Raises:
        InputError: the call, the run folder or the catalogue is wrong, `out` holds something else, or `strict` refuses.
        CorruptArtifactError: the run folder is damaged.
        StorageError: the disk refused the evaluation folder, and an earlier evaluation is untouched; or it refused the
            run's card or tracker, and the evaluation is whole.
    """
    task = settle(run, catalogue, out, device, precision, {"perturb": perturb, "strict": strict})
    if reuse and (earlier := task.earlier()) is not None:
        return earlier
    leakage = None
    if task.part == "test":
        leakage = _leakage(task)
        tell_leakage(leakage, task.source, note, strict=strict)
    rows, known = _rows(task)
    answers, bands, tests = _ask(task, rows, known, progress, perturb=perturb)
    resamples = Resamples.draw(len(rows.products))
    found = Evaluation(
        folder=task.folder,
        facts=_facts(task, rows, date),
        standings=tuple(standing(each, rows, resamples, bands.get(each.kind, ())) for each in answers),
        against_baseline=_paired(answers, rows, answers[-1].kind, "baseline"),
        robustness=tests,
        leakage=None if leakage is None else provenance.leakage_notes(leakage),
        blend=blend_of(run) if "blend" in bands else None,
        against_model=_paired(answers, rows, "blend", "model"),
    )
    details = insights.details(answers[1:], rows)
    with artifact.atomic_folder(task.folder) as staging:
        artifact.write_json(staging / REPORT_JSON, found.to_json())
        evaluation_files.write(staging, answers[1:], rows, details, _promises(found))
        artifact.write_text(staging / REPORT_HTML, report.render(found, details))
    if task.part == "test" and task.folder == run / artifact.EVALUATION:  # what is said of it stays in the run folder
        card_results.add(run, found)
        trackers.log(run, task.config.trackers, found, step=task.whole("steps") or 0, note=note)
    return found


def _leakage(task: Task) -> Leakage:
    """What leaks between the test part and the others: as found before training, else looked for now."""
    earlier = leakage_record.earlier(task.run, task.source, task.splits, task.config.text_columns)
    return find_leakage(task.source, task.splits, task.config.text_columns) if earlier is None else earlier


def _promises(found: Evaluation) -> tuple[TypePromise, ...]:
    return found.subject.decisions.types if found.subject.decisions else ()


def _rows(task: Task) -> tuple[Rows, Known | None]:
    """The products to score, which of them have a name that training did not have, and what else training had."""
    labels = Labels.load(task.run / artifact.LABELS)
    if task.part == "test":
        parts = task.splits.parts(task.source)
        if not parts.test:
            raise InputError(f"{task.run}: its split has no test part. Name labelled products with --catalogue.")
        known = {product.id for product in repeated([*parts.train, *parts.validation], parts.test)}
        new = np.array([product.id not in known for product in parts.test])
        return Rows.of(parts.test, labels, new), Known.of(parts)
    return Rows.of(task.source.labelled, labels, None), None


def _ask(
    task: Task, rows: Rows, known: Known | None, progress: Progress | None, *, perturb: bool
) -> tuple[list[Answers], dict[Kind, tuple[Band, ...]], tuple[Robustness, ...]]:
    """All classifiers' answers, and how each fares on some of the rows and, with `perturb`, on perturbed names."""
    answers = [majority(rows)]
    bands: dict[Kind, tuple[Band, ...]] = {}
    tests: list[Robustness] = []
    for panel in _panels(task):
        given = panel.answer(rows, progress)
        answers += given
        for each, brandless in zip(given, breakdown.without_brand(panel, given, rows, progress), strict=True):
            bands[each.kind] = (*breakdown.bands(each, rows, known), *([brandless] if brandless else []))
        if perturb:
            tests += robustness.robustness(panel, given, rows, progress=progress)
    return answers, bands, tuple(tests)


def _panels(task: Task) -> Iterator[Panel]:
    """Who is asked, loaded when it is their turn: a blend and its parts together, else one after the other.

    Who answers of the run comes last.
    """
    run = task.run
    who = answering(run, task.config)
    if who != "baseline" and blend_of(run) is not None:
        blend = Classifier.load(run, which="blend", device=task.device, precision=task.precision)
        assert isinstance(blend.scorer, BlendScorer)
        asked: dict[Kind, Classifier] = {"baseline": blend.scorer.baseline, "model": blend.scorer.model, "blend": blend}
        yield Panel(tuple(sorted(asked.items(), key=lambda item: item[0] == who)))
        return
    has_baseline = (run / artifact.BASELINE).is_dir()
    if has_baseline:
        yield Panel((("baseline", Classifier.load(run, which="baseline")),))
    if who != "baseline":
        # Hashing 13 GB of weights takes a while; loading the baseline has compared every file of the run.
        model = Classifier.load(
            run, which="model", device=task.device, precision=task.precision, verify=not has_baseline
        )
        yield Panel((("model", model),))


def _paired(answers: Sequence[Answers], rows: Rows, first: Kind, second: Kind) -> metrics.Paired | None:
    """McNemar's test between two of the classifiers; None where there are not both."""
    correct = {each.kind: each.correct(rows) for each in answers}
    if first == second or not {first, second} <= set(correct):
        return None
    return metrics.mcnemar(correct[first], correct[second])


def _facts(task: Task, rows: Rows, date: str | None) -> Facts:
    source, splits, config = task.source, task.splits, task.config
    unknown = [label for target in rows.targets.tolist() if (label := rows.names[target]) not in rows.labels]
    return Facts(
        run=task.run.resolve().name,
        date=date,
        catalogue=source.path.name,
        fingerprint=source.fingerprint,
        part=task.part,
        rows=len(rows.products),
        unlabelled=0 if task.part == "test" else len(source.products) - len(source.labelled),
        rejected=len(source.rejects),
        unknown_types=tuple(UnknownType(label, n) for label, n in most_frequent(unknown)),
        shared_names=None if rows.new is None else int((~rows.new).sum()),
        n_labels=len(rows.labels),
        text_columns=tuple(config.text_columns),
        split=splits.strategy,
        split_seed=splits.seed,
        training_seed=config.training.seed,
        versions=provenance.versions(),
        hardware=provenance.hardware(None if config.model == "baseline" else task.device),
        command=task.command,
        train_rows=task.whole("train_rows"),
    )
