"""Reading back what `writer` wrote, in any of its formats: lists are lists again, and texts as they were.

A spreadsheet holds rankings and paths as text, and a quotation mark before a text that it would run as a formula; JSON
Lines and Parquet hold lists, which `reader` refuses, for a catalogue has none.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from shelfwise.data import _sniff
from shelfwise.data._lines import lines
from shelfwise.data.reader import open_rows
from shelfwise.data.writer import PATH_SEPARATOR, defuse
from shelfwise.errors import CatalogueError
from shelfwise.records import RawRow, Reject

_BATCH = 1_024  # rows of a Parquet file at a time


@dataclass(frozen=True, slots=True)
class WrittenRow:
    """One row; what a cell holds depends on the format, and the functions below make it the same."""

    id: int  # position in the file, from 0
    source: str  # "predictions.csv:1042"
    values: Mapping[str, object]


class WrittenFile:
    """A file that `writer` wrote; each iteration reads it from its first row.

    Attributes:
        path: the file.
        columns: in the file's order.
    """

    __slots__ = ("_format", "columns", "path")

    def __init__(self, path: Path) -> None:
        """Read the columns.

        Raises:
            CatalogueError: the file can't be read, or holds no row.
        """
        self.path = path
        self._format = _sniff.format_of(path)
        if self._format == "parquet":
            self.columns = _parquet_columns(path)
        elif self._format == "jsonl":
            first = next(_json_rows(path), None)
            if first is None:
                raise CatalogueError(f"{path}: the file is empty: it holds only blank lines.")
            self.columns = tuple(first.values)
        else:
            self.columns = open_rows(path).columns

    def __iter__(self) -> Iterator[WrittenRow | Reject]:
        """Yield each row, or why it is none.

        Raises:
            CatalogueError: the file can't be read on from a line that the message names.
        """
        if self._format == "parquet":
            yield from _parquet_rows(self.path)
        elif self._format == "jsonl":
            yield from _json_rows(self.path)
        else:
            for row in open_rows(self.path):
                yield _undone(row) if isinstance(row, RawRow) else row


def _undone(row: RawRow) -> WrittenRow:
    """The row without the quotation marks that `writer.defuse` put before texts."""
    return WrittenRow(row.id, row.source, {column: _harmful(cell) for column, cell in row.values.items()})


def _harmful(cell: str) -> str:
    return cell[1:] if cell.startswith("'") and defuse(cell[1:]) == cell else cell


def _json_rows(path: Path) -> Iterator[WrittenRow]:
    written = ((line, text) for line, text in lines(path) if text.strip())
    for number, (line, text) in enumerate(written):
        try:
            record = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise CatalogueError(f"{path}:{line}: not JSON ({error}).") from error
        if not isinstance(record, dict):
            raise CatalogueError(f"{path}:{line}: not a JSON object; each line holds one.")
        yield WrittenRow(number, f"{path.name}:{line}", record)


def _parquet_columns(path: Path) -> tuple[str, ...]:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        return tuple(parquet.read_schema(path).names)
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(path, error) from error


def _parquet_rows(path: Path) -> Iterator[WrittenRow]:
    import pyarrow as pa
    from pyarrow import parquet

    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=_BATCH):
                for record in batch.to_pylist():
                    yield WrittenRow(number, f"{path.name}:{number + 2}", record)  # a header would be line 1
                    number += 1
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> CatalogueError:
    first = str(error).splitlines()[0] if str(error) else type(error).__name__
    return CatalogueError(f"{path}: the Parquet file can't be read ({first:.200}).")


def text_of(cell: object) -> str:
    """A cell of kind "text"; null is the empty text."""
    if cell is None:
        return ""
    if isinstance(cell, bool):
        return "true" if cell else "false"
    return str(cell)


def share_of(cell: object) -> float:
    """A cell of kind "share".

    Raises:
        ValueError: no number between 0 and 1.
    """
    try:
        share = float(cell) if isinstance(cell, (str, float, int)) else -1.0
    except (ValueError, OverflowError):
        share = -1.0
    if not 0 <= share <= 1:
        raise ValueError(f"'{text_of(cell):.80}' is no number between 0 and 1")
    return share


def path_of(cell: object, last: str) -> tuple[str, ...]:
    """A cell of kind "path".

    Args:
        cell: a list of texts, or one text in which a level may hold the separator.
        last: the level that the path is known to end with.

    Raises:
        ValueError: neither.
    """
    if isinstance(cell, list):
        return tuple(map(text_of, cell))
    if not isinstance(cell, str):
        raise ValueError(f"'{text_of(cell):.80}' is no path")
    if cell == last or not cell:
        return (last,) if cell else ()
    above = cell.removesuffix(PATH_SEPARATOR + last)
    return (*above.split(PATH_SEPARATOR), last) if above != cell else tuple(cell.split(PATH_SEPARATOR))


def ranking_of(cell: object) -> tuple[tuple[str, float], ...]:
    """A cell of kind "ranking", highest share first as it was written.

    Raises:
        ValueError: no ranking.
    """
    try:
        entries = json.loads(cell) if isinstance(cell, str) else cell
        pairs = [(e["type"], e["confidence"]) if isinstance(e, dict) else (e[0], e[1]) for e in entries]  # type: ignore[union-attr]
    except (ValueError, TypeError, KeyError, IndexError, RecursionError) as error:
        raise ValueError(f"'{text_of(cell):.80}' is no ranking of types") from error
    return tuple((text_of(label), share_of(share)) for label, share in pairs)
