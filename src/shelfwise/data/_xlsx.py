"""XLSX through python-calamine: the first visible worksheet, which is held in memory whole."""

from __future__ import annotations

import datetime
import zipfile
from collections.abc import Iterator
from pathlib import Path

from shelfwise.data._cells import columns_of, no_rows, row_of
from shelfwise.errors import CatalogueError
from shelfwise.records import RawRow, Reject

MAX_UNPACKED = 2 << 30  # bytes; a full sheet of 1,048,576 rows and ten columns has about 0.5 GiB
_EXACT = 1e15  # Excel keeps 15 digits


class Xlsx:
    """The first visible worksheet of an Excel file; a row's line is its row number in Excel."""

    def __init__(self, path: Path) -> None:
        """Load the worksheet.

        Raises:
            CatalogueError: the file is damaged, has a password, unpacks to too much, or holds no table.
        """
        self._path = path
        self._rows = _load(path)
        self._header = next((i for i, row in enumerate(self._rows) if any(map(_filled, row))), None)
        if self._header is None:
            raise CatalogueError(f"{path}: the first visible worksheet is empty.")
        self.columns = columns_of([_text(value) for value in self._rows[self._header]], path)
        if next(iter(self), None) is None:
            raise no_rows(path)

    def __iter__(self) -> Iterator[RawRow | Reject]:
        begin = (self._header or 0) + 1
        number = 0
        for line, row in enumerate(self._rows[begin:], begin + 1):
            if any(map(_filled, row)):
                cells = [_text(value) for value in row]
                yield row_of(number, f"{self._path.name}:{line}", cells, self.columns)
                number += 1


def _load(path: Path) -> list[list[object]]:
    import python_calamine as calamine

    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > MAX_UNPACKED:
            raise CatalogueError(
                f"{path}: unpacks to {unpacked / 2**30:.1f} GiB, more than {MAX_UNPACKED >> 30} GiB. Save it as CSV."
            )
        with calamine.load_workbook(str(path)) as book:
            visible = calamine.SheetVisibleEnum.Visible
            table = calamine.SheetTypeEnum.WorkSheet
            names = [sheet.name for sheet in book.sheets_metadata if sheet.visible == visible and sheet.typ == table]
            if not names:
                raise CatalogueError(f"{path}: there is no visible worksheet in this file.")
            return list(book.get_sheet_by_name(names[0]).iter_rows())
    except (calamine.CalamineError, zipfile.BadZipFile, OSError) as error:
        raise CatalogueError(f"{path}: the Excel file can't be read ({error}). Save it again, or as CSV.") from error


def _filled(value: object) -> bool:
    return value is not None and value != ""


def _text(value: object) -> str:
    """A cell as text: whole numbers without a point, dates as ISO 8601."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < _EXACT else repr(value)
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return value.isoformat()
    return str(value)
