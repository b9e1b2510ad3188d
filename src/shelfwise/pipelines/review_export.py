"""Decisions as a catalogue file: the settled products alone, or a whole catalogue with them put right."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from shelfwise.artifact import atomic_file
from shelfwise.config import Columns
from shelfwise.data.writer import Column, Write, format_of, open_writer
from shelfwise.errors import InputError
from shelfwise.pipelines.review_corrections import CATALOGUE, PROVENANCE, Merge, Tally, corrections
from shelfwise.records import Reject
from shelfwise.storage import require_new

if TYPE_CHECKING:
    from shelfwise.review.store import Store

_CHUNK = 1_000  # rows that are written together


@dataclass(frozen=True, slots=True)
class ExportSummary:
    """What an export wrote."""

    out: Path
    rows: int
    settled: int  # products that people have decided
    corrected: int  # of them, those whose predicted type was replaced
    catalogue: Path | None
    matched: int  # rows of the catalogue that a decision is about
    changed: int  # of them, rows whose type is now another
    appended: int  # settled products that the catalogue did not have
    rejected: int  # rows of the catalogue that can't be read, and are not in the output
    first_rejects: tuple[Reject, ...]

    def to_json(self) -> dict[str, object]:
        """The summary as one JSON document."""
        return {
            "out": str(self.out),
            "rows": self.rows,
            "settled": self.settled,
            "corrected": self.corrected,
            "catalogue": str(self.catalogue) if self.catalogue else None,
            "matched": self.matched,
            "changed": self.changed,
            "appended": self.appended,
            "rejected": self.rejected,
            "first_rejects": [{"source": reject.source, "reason": reject.reason} for reject in self.first_rejects],
        }


def export(
    store: Store,
    out: Path,
    *,
    catalogue: Path | None = None,
    columns: Columns = Columns(),  # noqa: B008  frozen
    force: bool = False,
) -> ExportSummary:
    """Write what people have settled.

    Args:
        store: where the decisions are.
        out: its suffix gives the format, as for predictions.
        catalogue: write this catalogue whole, the type of each row that a decision is about replaced and settled
            products that it lacks at the end. A decision is about the rows of its name and brand; one without a brand
            about all rows of its name, unless others of that name have one. None: only settled products.
        columns: which of the catalogue's columns plays which role.
        force: overwrite `out`.

    Raises:
        InputError: nothing is settled, `out` stands in the way, or the catalogue can't be used.
        StorageError: the disk or the store refused; nothing was left under the output's name.
    """
    _require_writable(out, catalogue, force)
    tally = Tally()
    if not store.progress().settled:
        raise InputError("Nothing is settled in this store yet, so there is nothing to write.")
    if catalogue is None:
        headings: Sequence[str] = (*CATALOGUE, *PROVENANCE)
        rows = corrections(store, tally)
    else:
        merge = Merge.of(catalogue, columns)
        headings, rows = merge.headings, merge.rows(store, tally)
    with atomic_file(out, "wb") as stream, open_writer(stream, out, [Column(name) for name in headings]) as write:
        tally.rows = _write(write, rows)
    return ExportSummary(
        out=out,
        rows=tally.rows,
        settled=tally.settled,
        corrected=tally.corrected,
        catalogue=catalogue,
        matched=tally.matched,
        changed=tally.changed,
        appended=tally.appended,
        rejected=tally.rejected,
        first_rejects=tuple(tally.first_rejects),
    )


def _require_writable(out: Path, catalogue: Path | None, force: bool) -> None:
    format_of(out)
    if out.is_dir():
        raise InputError(f"{out}: this is a folder. Name a file in it to write to.")
    if catalogue is not None and out.exists() and catalogue.exists() and os.path.samefile(out, catalogue):
        raise InputError(f"{out}: the output would overwrite the catalogue. Choose another name for --out.")
    require_new(out, force=force)


def _write(write: Write, rows: Iterator[tuple[str, ...]]) -> int:
    written = 0
    chunk: list[tuple[str, ...]] = []
    for row in rows:
        chunk.append(row)
        if len(chunk) == _CHUNK:
            write(chunk)
            written, chunk = written + len(chunk), []
    if chunk:
        write(chunk)
    return written + len(chunk)
