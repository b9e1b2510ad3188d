"""The label audit: rows whose inventory type is probably wrong, names that carry several, and types that blur.

Writes a catalogue-shaped file, worst rows first, that a person can go through in a spreadsheet or the review queue.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from shelfwise.config import Columns, Role, TrainConfig
from shelfwise.data.catalogue import Catalogue, read_catalogue, require_trainable
from shelfwise.data.names import name_key
from shelfwise.data.reader import open_rows
from shelfwise.data.writer import Column, format_of, open_writer
from shelfwise.errors import InputError
from shelfwise.pipelines import confident_learning
from shelfwise.pipelines.model_choice import with_model
from shelfwise.pipelines.model_judge import ModelJudge, require_model
from shelfwise.pipelines.out_of_fold import BaselineJudge, Judge, OutOfFold, Progress, out_of_fold
from shelfwise.pipelines.predict_plan import free_names
from shelfwise.pipelines.run import Hooks
from shelfwise.records import Product, RawRow
from shelfwise.storage import atomic_file, require_new

Reason = Literal["probable label error", "conflicting name"]

ADDED = (
    Column("suggested_type"),
    Column("confidence", "share"),
    Column("given_confidence", "share"),
    Column("reason"),
    Column("score", "share"),
)
# Two types are worth a look as one when each is taken for the other this often. On BigBasket a dozen pairs are, such as
# "Cereal & Granola Bars" and "Granola & Cereal Bars" (0.13); from 0.09 down most are mere neighbours, such as "Paper
# Napkin, Tissue Box" and "Toilet Paper".
MERGE_SHARE = 0.1
MERGE_ROWS = 3  # and in so many rows, each way
_FLOOR = 1e-12  # of probabilities, so that one that underflowed has odds


@dataclass(frozen=True, slots=True)
class Suspect:
    """One row whose type should be looked at."""

    row: int  # `RawRow.id`
    source: str  # "catalogue.csv:1042"
    name: str
    given: str  # the type in the catalogue
    suggested: str
    confidence: float  # out-of-fold probability of the suggestion
    given_confidence: float  # and of the given type
    reason: Reason
    score: float  # as `odds_against` gives it: nats, highest is worst


@dataclass(frozen=True, slots=True)
class Merge:
    """Two types that are taken for each other so often that they could be one."""

    first: str
    second: str
    first_rows: int
    second_rows: int
    first_as_second: int  # rows of the first that the judge calls the second
    second_as_first: int
    share: float  # the smaller of the two shares


@dataclass(frozen=True, slots=True)
class LabelAudit:
    """What an audit found."""

    catalogue: Path
    out: Path  # the file of suspects
    rows: int  # labelled
    unjudged: int  # of them, rows of a type that occurs under one name only: nothing to hold them against
    folds: int
    seed: int
    agreement: float  # share of the judged rows whose most probable type is the given one
    temperature: float
    judge: str  # "the baseline", "smollm2-135m"
    suspects: tuple[Suspect, ...]  # worst first
    merges: tuple[Merge, ...]  # most alike first

    def count(self, reason: Reason) -> int:
        """Suspects for this reason."""
        return sum(suspect.reason == reason for suspect in self.suspects)

    def to_json(self, limit: int) -> dict[str, object]:
        """One document for machines, with the first `limit` suspects; the file holds all."""
        return {
            "catalogue": self.catalogue.name,
            "file": str(self.out),
            "rows": self.rows,
            "unjudged": self.unjudged,
            "judge": self.judge,
            "folds": self.folds,
            "seed": self.seed,
            "agreement": self.agreement,
            "temperature": self.temperature,
            "probable_label_errors": self.count("probable label error"),
            "conflicting_names": self.count("conflicting name"),
            "suspects": [asdict(suspect) for suspect in self.suspects[:limit]],
            "merges": [asdict(merge) for merge in self.merges],
        }


def audit_labels(
    catalogue_path: Path,
    columns: Columns,
    text_columns: Sequence[Role],
    *,
    folds: int = 5,
    seed: int = 0,
    out: Path,
    force: bool = False,
    config: TrainConfig | None = None,
    device: str = "auto",
    hooks: Hooks | None = None,
    progress: Progress | None = None,
) -> LabelAudit:
    """Find the rows whose inventory type should be looked at, and write them.

    Args:
        catalogue_path: a catalogue with inventory types.
        columns: which column plays which role.
        text_columns: what is read of a row.
        folds: parts that take turns in being judged by what was fitted on the others.
        seed: of the folds, and of the baseline's fits.
        out: the file to write: the input's columns in the input's order, then those of `ADDED`; a name that the
            input already has gets a number.
        force: overwrite `out`, where someone may have written what they decided.
        config: of the language model that is trained on the other folds, anew for each; what it says of the catalogue,
            its columns and text columns, the split and the trackers is not looked at, except for the size of the
            validation part. None, or model "baseline": the baseline judges.
        device: "auto", "cpu", "cuda"; of the language model.
        hooks: progress and notes of the trainings.
        progress: called before the first fold and after each.

    Raises:
        InputError: the call or the catalogue is wrong; nothing was written.
        WorkError: a training failed; nothing was written.
        KeyboardInterrupt: stopped by a signal; nothing was written.
        MissingPackageError: cleanlab is not installed.
        StorageError: the disk refused.
    """
    _require_writable(catalogue_path, out, force)
    confident_learning.require()
    if config is not None:
        config = with_model(config, device, (hooks or Hooks()).note)
        require_model(config)
    catalogue = read_catalogue(catalogue_path, columns, text_columns, labels="required")
    require_trainable(catalogue)
    products = catalogue.labelled
    judge: Judge = BaselineJudge(seed)
    if config is not None and config.model != "baseline":
        judge = ModelJudge(config, catalogue, out.absolute().parent, device, hooks or Hooks())
    judged = out_of_fold(products, folds=folds, seed=seed, judge=judge, progress=progress)
    suspects = find_suspects(products, judged)
    _write(catalogue, suspects, out)
    right = judged.suggestions == judged.targets
    return LabelAudit(
        catalogue=catalogue_path,
        out=out,
        rows=len(products),
        unjudged=int((~judged.judged).sum()),
        folds=folds,
        seed=seed,
        agreement=float(right[judged.judged].mean()) if judged.judged.any() else 0.0,
        temperature=judged.temperature,
        judge=judge.name,
        suspects=suspects,
        merges=find_merges(judged),
    )


def find_suspects(products: Sequence[Product], judged: OutOfFold) -> tuple[Suspect, ...]:
    """Rows of conflicting names that differ from their name's likeliest type, and probable label errors.

    A row of a conflicting name is told as that, for a conflict is a fact where a probable error is an estimate.

    Args:
        products: N labelled products.
        judged: what the judge thinks of them, in the same order.

    Returns:
        Worst first; ties by row.
    """
    keep = np.flatnonzero(judged.judged)
    suspected = np.zeros(len(products), np.bool_)
    if keep.size:
        suspected[keep] = confident_learning.probable_errors(judged.targets[keep], judged.probabilities[keep])
    best = judged.suggestions
    suspected &= best != judged.targets  # a row without a likelier type has nothing to be changed to
    score = np.where(judged.judged, odds_against(judged), 0.0)
    conflicts = _conflicts(products, judged)
    found = []
    for i in sorted({*np.flatnonzero(suspected).tolist(), *conflicts}):
        suggested = conflicts.get(i, int(best[i]))
        found.append(
            Suspect(
                row=products[i].id,
                source=products[i].source,
                name=products[i].name,
                given=judged.labels[int(judged.targets[i])],
                suggested=judged.labels[suggested],
                confidence=float(judged.probabilities[i, suggested]),
                given_confidence=float(judged.given_confidence[i]),
                reason="conflicting name" if i in conflicts else "probable label error",
                score=float(score[i]),
            )
        )
    return tuple(sorted(found, key=lambda suspect: (-suspect.score, suspect.row)))


def odds_against(judged: OutOfFold) -> NDArray[np.float64]:
    """How much more probable the best type is than the given one.

    With 3% wrong types planted in BigBasket, drawn from all types or from the row's category alone, the worst 3% hold
    51% or 52% planted rows; by the given type's probability 47% of either. Weighing in the category's probability gives
    66% of the first and 21% of the second, and the second are the errors that people make.

    Returns:
        (N,) natural logarithm of the ratio, 0 or more.
    """
    best: NDArray[np.float64] = np.log(judged.probabilities.max(axis=1), dtype=np.float64)
    return best - np.log(np.maximum(judged.given_confidence, _FLOOR, dtype=np.float64))


def find_merges(judged: OutOfFold) -> tuple[Merge, ...]:
    """Pairs of types of which each is often taken for the other, most alike first."""
    names, counted = judged.labels.names, judged.judged
    true, answered = judged.targets[counted], judged.suggestions[counted]
    support = np.bincount(true, minlength=len(names))
    taken = Counter(zip(true.tolist(), answered.tolist(), strict=True))
    merges = []
    for (a, b), there in taken.items():
        back = taken.get((b, a), 0)
        if a < b and min(there, back) >= MERGE_ROWS:
            share = min(there / int(support[a]), back / int(support[b]))
            if share >= MERGE_SHARE:
                merges.append(Merge(names[a], names[b], int(support[a]), int(support[b]), there, back, share))
    return tuple(sorted(merges, key=lambda merge: (-merge.share, merge.first, merge.second)))


def _conflicts(products: Sequence[Product], judged: OutOfFold) -> dict[int, int]:
    """Rows whose type differs from the likeliest type of their name.

    The likeliest is the type that most rows of the name carry; among equals, the one that the judge, which has not seen
    the name, finds most probable.

    Returns:
        Position of the row to position of the likeliest type.
    """
    together: dict[str, list[int]] = {}
    for i, product in enumerate(products):
        together.setdefault(name_key(product.text), []).append(i)
    found = {}
    for rows in together.values():
        votes = Counter(judged.targets[rows].tolist())
        if len(votes) > 1:
            mean = judged.probabilities[rows].mean(axis=0)
            likeliest = max(votes, key=lambda label: (votes[label], float(mean[label])))
            found.update({i: likeliest for i in rows if judged.targets[i] != likeliest})
    return found


def _require_writable(catalogue: Path, out: Path, force: bool) -> None:
    format_of(out)
    if out.is_dir():
        raise InputError(f"{out}: this is a folder. Name a file in it for --out.")
    if out.exists() and catalogue.exists() and out.samefile(catalogue):
        raise InputError(f"{out}: the suspects would overwrite the catalogue. Choose another name for --out.")
    require_new(out, force=force)


def _write(catalogue: Catalogue, suspects: Sequence[Suspect], out: Path) -> None:
    """The suspects' own rows as the catalogue holds them, in the order of the suspects."""
    stream = open_rows(catalogue.path)
    wanted = {suspect.row for suspect in suspects}
    rows = {row.id: row for row in stream if isinstance(row, RawRow) and row.id in wanted}
    added = zip(free_names([column.name for column in ADDED], stream.columns), ADDED, strict=True)
    headings = [*map(Column, stream.columns), *(Column(name, column.kind) for name, column in added)]
    with atomic_file(out, "wb") as file, open_writer(file, out, headings) as write:
        write([(*rows[suspect.row].values.values(), *_cells(suspect)) for suspect in suspects])


def _cells(suspect: Suspect) -> tuple[str | float, ...]:
    """One suspect in the order of `ADDED`."""
    return suspect.suggested, suspect.confidence, suspect.given_confidence, suspect.reason, suspect.score
