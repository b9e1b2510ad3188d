"""The one door for rows: CSV, TSV, JSON Lines, Parquet and XLSX become the same stream of rows and rejects.

Each format has its own file beside this one; `_sniff` tells the format, `_cells` holds the checks they share.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from shelfwise.data import _sniff
from shelfwise.records import RawRow, Reject


class RowStream:
    """The rows of one file in the file's order; each iteration reads the file again from its first row.

    Attributes:
        path: the file.
        columns: the file's columns in the file's order, as the header writes them.
    """

    __slots__ = ("_rows", "columns", "path")

    def __init__(self, path: Path, columns: tuple[str, ...], rows: Iterable[RawRow | Reject]) -> None:
        self.path = path
        self.columns = columns
        self._rows = rows

    def __iter__(self) -> Iterator[RawRow | Reject]:
        """Yield each row, or why it is none; ids count both from 0.

        Raises:
            CatalogueError: the file can't be read on from a line that the message names.
        """
        return iter(self._rows)


def open_rows(path: Path) -> RowStream:
    """Open a file of products. Memory stays flat however long the file is, save for XLSX.

    Args:
        path: .csv, .tsv, .jsonl, .ndjson, .parquet or .xlsx; the text formats also with .gz or .zst behind. UTF-8.

    Raises:
        CatalogueError: no such file, not of the kind that its name says, no header, no row, or a header that names a
            column twice. The message says what to do.
    """
    kind = _sniff.format_of(path)
    if kind == "parquet":
        from shelfwise.data._parquet import Parquet

        table = Parquet(path)
        return RowStream(path, table.columns, table)
    if kind == "xlsx":
        from shelfwise.data._xlsx import Xlsx

        sheet = Xlsx(path)
        return RowStream(path, sheet.columns, sheet)
    if kind == "jsonl":
        from shelfwise.data._jsonl import JsonLines

        objects = JsonLines(path)
        return RowStream(path, objects.columns, objects)
    from shelfwise.data._delimited import Delimited

    cells = Delimited(path, "\t" if kind == "tsv" else ",")
    return RowStream(path, cells.columns, cells)
