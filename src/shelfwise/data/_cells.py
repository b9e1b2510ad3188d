"""The checks that every format shares: a header becomes columns, a list of cells a row or a reject."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from shelfwise.errors import CatalogueError
from shelfwise.records import RawRow, Reject

MAX_COLUMNS = 1_000
MAX_CELL = 100_000  # characters
_SHOWN = 80  # characters of a cell that a message or a reject keeps


def columns_of(header: Sequence[str], path: Path) -> tuple[str, ...]:
    """The columns that a header names; trailing ones without a name are dropped, one other may stay without.

    Raises:
        CatalogueError: no name at all, a name given twice, or more columns than any catalogue has.
    """
    columns = list(header)
    while columns and not columns[-1].strip():
        columns.pop()
    if not columns:
        raise CatalogueError(f"{path}: the header names no column. The first line must hold the columns' names.")
    if len(columns) > MAX_COLUMNS:
        raise CatalogueError(f"{path}: {len(columns):,} columns; a catalogue has at most {MAX_COLUMNS:,}.")
    twice = [name for name, count in Counter(columns).items() if count > 1]
    if twice:
        what = f"the column '{shown(twice[0])}'" if twice[0].strip() else "a column without a name"
        raise CatalogueError(f"{path}: the header holds {what} more than once. Rename one of them.")
    return tuple(columns)


def row_of(number: int, source: str, cells: Sequence[str], columns: Sequence[str], lines: int = 1) -> RawRow | Reject:
    """One row, or why it is none.

    Args:
        number: the row's id.
        source: "catalogue.csv:1042".
        cells: as many as there are columns; more only if the surplus is empty.
        columns: the file's.
        lines: how many lines of the file the row takes.
    """
    width = len(columns)
    if len(cells) != width and (len(cells) < width or any(cell.strip() for cell in cells[width:])):
        reason = f"{len(cells)} {'cell' if len(cells) == 1 else 'cells'} where the header has {width}"
        if len(cells) > width:
            reason += "; too many: " + ", ".join(f"'{shown(cell)}'" for cell in cells[width : width + 3])
        if lines > 1:
            reason += f"; the row takes {lines} lines: is a quotation mark left open?"
        return Reject(number, source, reason, _cut(columns, cells))
    if sum(map(len, cells)) > MAX_CELL:
        for column, cell in zip(columns, cells, strict=False):
            if len(cell) > MAX_CELL:
                reason = f"column '{shown(column)}' holds {len(cell):,} characters, more than {MAX_CELL:,}"
                return Reject(number, source, reason, _cut(columns, cells))
    return RawRow(number, source, dict(zip(columns, cells, strict=False)))


def shown(text: str) -> str:
    """The beginning of a text, for a message; what a terminal would obey is written as an escape."""
    cut = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
    return cut if cut.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in cut)


def no_rows(path: Path) -> CatalogueError:
    """The error for a file that holds a header and nothing else."""
    return CatalogueError(f"{path}: a header and no rows: there is no product in this file.")


def _cut(columns: Sequence[str], cells: Sequence[str]) -> dict[str, str]:
    """A reject's cells, without their oversize: the source says where the whole row stands."""
    return {
        column: cell if len(cell) <= MAX_CELL else shown(cell) for column, cell in zip(columns, cells, strict=False)
    }
