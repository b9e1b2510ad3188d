"""Several files in, and a folder with an output of the same name for each; a resumed job passes over finished ones.

While the job is not finished, a hidden file in the folder says what was begun and what is finished.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shelfwise.artifact import write_json
from shelfwise.errors import CorruptArtifactError, InputError
from shelfwise.pipelines.predict_inputs import inputs_of
from shelfwise.pipelines.predict_summary import PredictionSummary
from shelfwise.pipelines.predict_tally import Tally

if TYPE_CHECKING:
    from shelfwise.pipelines.predict_job import Job, Progress

RECORD = ".predict.json"


def predict_each(sources: Sequence[Path], out: Path, job: Job, progress: Progress | None) -> PredictionSummary:
    """Predict each file into one of the same name in the folder `out`, which is made when missing.

    Raises:
        InputError: two files have the same name, or an unfinished job is there; or as of a single file.
        CorruptArtifactError: what an unfinished job left can't be read.
    """
    _require_different_names(sources)
    if (out / RECORD).exists() and not (job.settings.resume or job.settings.force):
        raise InputError(
            f"{out}: an unfinished job for this folder is there. Go on from where it stopped with --resume, or start "
            "over with --force."
        )
    record = _read(out / RECORD) if job.settings.resume else {}
    summaries: list[PredictionSummary] = []
    for source in sources:
        before = sum(summary.rows for summary in summaries)

        def report(done: int, before: int = before) -> None:
            if progress is not None:
                progress(before + done)

        target = out / source.name
        key = {**job.call(), "input": inputs_of([source])}
        entry = record.get(source.name, {})
        ours = entry.get("key") == key
        if ours and "summary" in entry and target.exists():
            summaries.append(_summary(target, entry["summary"]))
            continue
        # A file that was put in its place just before a kill is this job's own, and may be written again.
        replaceable = ours and target.exists() and entry["was"] != _identity(target)
        if not ours:
            entry = {"key": key, "was": _identity(target)}
            record = _noted(out, record, source.name, entry)
        found = job.predict(source, target, report, replaceable=replaceable)
        summaries.append(found)
        record = _noted(out, record, source.name, {**entry, "summary": _plain(found)})
    (out / RECORD).unlink(missing_ok=True)
    return _together(out, summaries)


def _require_different_names(sources: Sequence[Path]) -> None:
    name, times = Counter(source.name for source in sources).most_common(1)[0]
    if times > 1:
        raise InputError(
            f"{name}: {times} of the files have this name, and would overwrite each other in one folder. Predict them "
            "a folder at a time, or into one file."
        )


def _identity(path: Path) -> list[int] | None:
    """Tells a file from one that takes its place."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return [found.st_ino, found.st_mtime_ns]


def _noted(out: Path, record: Mapping[str, Any], name: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    changed = {**record, name: entry}
    write_json(out / RECORD, changed)
    return changed


def _read(path: Path) -> dict[str, Any]:
    try:
        stored = json.loads(path.read_bytes())
        for entry in stored.values():
            _ = entry["key"], entry["was"]
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptArtifactError(f"{path}: not readable ({error}). Delete it to start over.") from error
    return dict(stored)


def _plain(summary: PredictionSummary) -> dict[str, object]:
    """What is kept of a finished file's summary."""
    tally = Tally(
        summary.predicted,
        summary.rejected,
        summary.accepted,
        summary.scored,
        summary.by_model,
        tuple((reject.source, reject.reason) for reject in summary.first_rejects),
    )
    return {**asdict(tally), "model": summary.model, "renamed": dict(summary.renamed)}


def _summary(target: Path, stored: Mapping[str, Any]) -> PredictionSummary:
    tally = Tally.of(stored)
    return PredictionSummary.of(
        target, None, tally, model=str(stored["model"]), renamed=stored["renamed"], resumed=tally.rows, seconds=0.0
    )


def _together(out: Path, summaries: Sequence[PredictionSummary]) -> PredictionSummary:
    tally = Tally()
    for each in summaries:
        tally = tally.plus(Tally.of(_plain(each)))
    total = PredictionSummary.of(
        out,
        out if tally.rejected else None,
        tally,
        model=summaries[-1].model,
        renamed={ours: name for each in summaries for ours, name in each.renamed.items()},
        resumed=sum(each.resumed for each in summaries),
        seconds=sum(each.seconds for each in summaries),
    )
    return replace(total, files=len(summaries))
