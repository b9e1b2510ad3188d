"""CSV and TSV through the standard library's reader, which knows the line on which each row begins.

pyarrow's reader gives no line numbers for well-formed rows, and a row that can't name its line can't be mended.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from shelfwise.data._cells import MAX_CELL, columns_of, no_rows, row_of
from shelfwise.data._lines import lines
from shelfwise.errors import CatalogueError
from shelfwise.records import RawRow, Reject

MAX_RECORD = 1 << 24  # characters of one row; an open quotation mark would else collect the rest of the file
_DELIMITERS = ",;\t"
_LONE_CR = re.compile(r"\r(?!\n)")


@dataclass(frozen=True, slots=True)
class _Record:
    line: int  # of the file, from 1, on which it begins
    taken: int  # lines
    cells: list[str]
    fault: str = ""  # why it can't be a row; the cells are then missing


class Delimited:
    """A CSV or TSV file; iterating it reads it from its first row on."""

    def __init__(self, path: Path, usual: str) -> None:
        """Read the header and look for a first row.

        Args:
            path: the file.
            usual: the delimiter that the file's name says. A header without it that holds another one is cut at
                that: spreadsheet programs write semicolons where the comma is the decimal sign.

        Raises:
            CatalogueError: no header, no row, or text that can't be read.
        """
        self._path = path
        self._delimiter = usual
        self.columns: tuple[str, ...] = ()
        header = next(self._records(), None)
        if header is None:
            raise CatalogueError(f"{path}: the file is empty: it holds only blank lines.")
        if len(header.cells) == 1 and usual not in header.cells[0]:
            self._delimiter = next((other for other in _DELIMITERS if other in header.cells[0]), usual)
            header = next(self._records())
        if header.fault:
            raise CatalogueError(f"{path}:{header.line}: the header can't be read: {header.fault}.")
        self.columns = columns_of(header.cells, path)
        if next(iter(self), None) is None:
            raise no_rows(path)

    def __iter__(self) -> Iterator[RawRow | Reject]:
        name, columns = self._path.name, self.columns
        records = self._records()
        next(records)
        for number, record in enumerate(records):
            source = f"{name}:{record.line}"
            if record.fault:
                yield Reject(number, source, record.fault)
            else:
                yield row_of(number, source, record.cells, columns, record.taken)

    def _records(self) -> Iterator[_Record]:
        """The header and every row; lines that are blank are none."""
        feed = _Feed(self._path)
        reader = csv.reader(feed, delimiter=self._delimiter)
        while True:
            line = feed.begin()
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield _Record(line, 1, [], self._fault(error, line, feed))
                continue
            if feed.ended:
                # The reader asked for more lines in the middle of this row, and there were none.
                raise CatalogueError(
                    f"{self._path}:{line}: a quotation mark opens in the row that begins here and is never closed. "
                    'Close it; a mark that belongs to the text is written twice ("").'
                )
            if cells and (len(cells) > 1 or cells[0].strip() or len(self.columns) == 1):
                yield _Record(line, feed.number - line + 1, cells)

    def _fault(self, error: csv.Error, line: int, feed: _Feed) -> str:
        """Why the reader gave a row up; it goes on with the next line, which must be outside of quotation marks."""
        if feed.number > line or feed.last.count('"') % 2:
            raise CatalogueError(
                f"{self._path}:{line}: in the row that begins here a quotation mark opens, and is not closed within "
                f'{MAX_CELL:,} characters. Close it; a mark that belongs to the text is written twice ("").'
            ) from error
        if "field limit" in str(error):
            return f"a cell holds more than {MAX_CELL:,} characters"
        return f"not readable as CSV ({error})"


class _Feed:
    """The lines that `csv.reader` asks for, counted; a lone carriage return also ends one, as in old Mac files."""

    def __init__(self, path: Path) -> None:
        self.number = 0  # of the last line given
        self.last = ""
        self.ended = False
        self._path = path
        self._lines = self._split()
        self._begun = 1
        self._characters = 0

    def begin(self) -> int:
        """A row begins: the number of its first line."""
        self._begun = self.number + 1
        self._characters = 0
        return self._begun

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        try:
            self.last = next(self._lines)
        except StopIteration:
            self.ended = True
            raise
        self.number += 1
        self._characters += len(self.last)
        if self._characters > MAX_RECORD:
            raise CatalogueError(
                f"{self._path}:{self._begun}: the row that begins here has more than {MAX_RECORD:,} characters. Is a "
                "quotation mark left open?"
            )
        return self.last

    def _split(self) -> Iterator[str]:
        for _, text in lines(self._path):
            if "\r" in text and _LONE_CR.search(text):
                yield from io.StringIO(text, newline="")
            else:
                yield text
