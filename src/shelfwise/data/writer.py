"""Writing rows as CSV, TSV, JSON Lines, Parquet or XLSX, a chunk at a time and in flat memory.

| cell    | CSV, TSV, XLSX                        | JSON Lines                   | Parquet                        |
| ------- | ------------------------------------- | ---------------------------- | ------------------------------ |
| text    | as it is; formulas escaped            | as it is                     | string, as it is               |
| share   | number, 4 decimals                    | number, 4 decimals           | double, all digits             |
| path    | `Beauty > Hair Care > Shampoo`        | list of texts                | list<string>                   |
| ranking | JSON text, `[["Shampoo", 0.91], ...]` | list of `{type, confidence}` | list<struct<type, confidence>> |

A path in a spreadsheet is there for people: where a level itself holds ` > `, only the other formats tell them apart.
"""

from __future__ import annotations

import functools
import io
import json
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

from shelfwise.errors import InputError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

Kind = Literal["text", "share", "path", "ranking"]
Format = Literal["csv", "tsv", "jsonl", "parquet", "xlsx"]
Cell = str | float | tuple[str, ...] | tuple[tuple[str, float], ...]
Write = Callable[[Sequence[Sequence[Cell]]], None]

DECIMALS = 4
QUOTE = '"'
PATH_SEPARATOR = " > "
XLSX_ROWS, XLSX_COLUMNS, XLSX_CELL = 1_048_576, 16_384, 32_767  # Excel's own limits; the header is one of the rows

_FORMATS: dict[str, Format] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".xlsx": "xlsx",
}
# https://owasp.org/www-community/attacks/CSV_Injection (line feed since August 2025)
_FORMULA_STARTS = frozenset("=+-@\t\r\n")
_SIGNED_NUMBER = re.compile(r"[+-](\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_NO_XML_CHARACTER = re.compile("[\ufffe\uffff]")  # XML 1.0, section 2.2; Excel calls a file that holds one corrupt


@dataclass(frozen=True, slots=True)
class Column:
    """One column of an output file."""

    name: str
    kind: Kind = "text"


def format_of(target: Path) -> Format:
    """The format that a file name's suffix asks for.

    Raises:
        InputError: the suffix is none that can be written.
    """
    found = _FORMATS.get(target.suffix.lower())
    if found is None:
        what = f"'{target.suffix}' is no format that can be written" if target.suffix else "the name has no suffix"
        raise InputError(f"{target}: {what}. End it with {', '.join(_FORMATS)}.")
    return found


def defuse(text: str) -> str:
    """Put a single quote before a text that a spreadsheet would run as a formula; plain numbers stay as they are."""
    if text and text[0] in _FORMULA_STARTS and not _SIGNED_NUMBER.fullmatch(text):
        return "'" + text
    return text


def open_writer(
    stream: IO[bytes], target: Path, columns: Sequence[Column], *, heading: bool = True
) -> AbstractContextManager[Write]:
    """Write rows into an open stream.

    Args:
        stream: binary and seekable, at its start; stays open.
        target: the file that the stream will become: its suffix gives the format, its name stands in messages, and
            XLSX keeps its rows in a hidden folder beside it until it is closed.
        columns: what each row holds, in this order.
        heading: CSV and TSV begin with the columns' names; False where rows are to stand behind earlier ones.

    Returns:
        A context that gives the function to write rows with. Leaving it completes the file; leaving it with an error
        leaves the stream incomplete, to be thrown away.

    Raises:
        InputError: the suffix is unknown; or, while writing, XLSX can't hold that many rows or columns, or so long a
            text. Nothing is ever cut.
        OSError: the disk refused.
    """
    chosen = format_of(target)
    if chosen == "xlsx":
        return _xlsx(stream, target, columns)
    if chosen == "parquet":
        return _parquet(stream, columns)
    if chosen == "jsonl":
        return _jsonl(stream, columns)
    return _delimited(stream, columns, "\t" if chosen == "tsv" else ",", heading)


def _ranking_text(ranking: Sequence[tuple[str, float]]) -> str:
    # As json.dumps writes it, which would make an encoder for each row.
    return f"[{', '.join([f'[{_quoted(label)}, {_share_text(share)}]' for label, share in ranking])}]"


def _quoted_ranking(ranking: Sequence[tuple[str, float]]) -> str:
    """`_ranking_text` as a cell of CSV: there are quotation marks in it, so it stands in such, and they twice."""
    return f'"[{", ".join([f"[{_quoted_twice(label)}, {_share_text(share)}]" for label, share in ranking])}]"'


def _share_text(share: float) -> str:
    """The text of the rounded number, found in one step: 0.91 and not 0.9100, 1.0 and not 1.0000."""
    text = f"{share:.{DECIMALS}f}".rstrip("0")
    return f"{text}0" if text.endswith(".") else text


@functools.lru_cache(1 << 16)
def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


@functools.lru_cache(1 << 16)
def _quoted_twice(text: str) -> str:
    return _quoted(text).replace(QUOTE, QUOTE * 2)


@functools.lru_cache(1 << 16)
def _path_text(levels: tuple[str, ...]) -> str:
    return defuse(PATH_SEPARATOR.join(levels))


def _ranking_list(ranking: Sequence[tuple[str, float]], digits: int | None) -> list[dict[str, str | float]]:
    return [
        {"type": label, "confidence": share if digits is None else round(share, digits)} for label, share in ranking
    ]


# How each kind of cell is written: in a spreadsheet, in JSON Lines, in Parquet.
_FLAT: dict[Kind, Callable[[Any], str | float]] = {
    "text": defuse,
    "share": lambda share: round(share, DECIMALS),
    "path": lambda levels: _path_text(tuple(levels)),  # lists where they were read from Parquet
    "ranking": _ranking_text,
}
_JSON: dict[Kind, Callable[[Any], object]] = {
    "text": str,
    "share": lambda share: round(share, DECIMALS),
    "path": list,
    "ranking": lambda ranking: _ranking_list(ranking, DECIMALS),
}
_ARROW: dict[Kind, Callable[[Any], object]] = {
    "text": str,
    "share": float,
    "path": list,
    "ranking": lambda ranking: _ranking_list(ranking, None),
}


@contextmanager
def _delimited(stream: IO[bytes], columns: Sequence[Column], delimiter: str, heading: bool) -> Iterator[Write]:
    # RFC 4180. The standard library's writer looks through every character of every cell twice, and takes as long for a
    # row of predictions as half of the model does (docs/lab-notes.md).
    needs_quotes = re.compile(f'[{delimiter}"\\r\\n]').search

    def quoted(cell: str) -> str:
        return f'"{cell.replace(QUOTE, QUOTE * 2)}"' if needs_quotes(cell) else cell

    def written(kind: Kind, cells: Sequence[Any]) -> Iterable[str]:
        """A column's cells as they will stand in the file."""
        if kind == "share":
            return [repr(round(cell, DECIMALS)) for cell in cells]
        if kind == "ranking":
            return [_quoted_ranking(cell) for cell in cells]
        cells = list(map(_path_text, map(tuple, cells))) if kind == "path" else cells
        return _each_once(lambda cell: quoted(cell if kind == "path" else defuse(cell)), cells)

    def put(lines: Iterable[str]) -> None:
        # A blank line would be no row.
        stream.write("".join([f"{line or QUOTE * 2}\r\n" for line in lines]).encode())

    def write(rows: Sequence[Sequence[Cell]]) -> None:
        if not rows:
            return
        # By columns: one loop for each of them is quicker than one over the cells of each row.
        cells = [written(column.kind, of) for column, of in zip(columns, zip(*rows, strict=True), strict=True)]
        put(map(delimiter.join, zip(*cells, strict=True)))

    if heading:
        put([delimiter.join([quoted(defuse(column.name)) for column in columns])])
    yield write


def _each_once(render: Callable[[str], str], cells: Sequence[str]) -> Iterable[str]:
    """Rendered cells; where few differ, each different one is rendered once."""
    different = set(cells)
    if len(different) * 4 > len(cells):
        return map(render, cells)
    table = {cell: render(cell) for cell in different}
    return [table[cell] for cell in cells]


@contextmanager
def _jsonl(stream: IO[bytes], columns: Sequence[Column]) -> Iterator[Write]:
    def write(rows: Sequence[Sequence[Cell]]) -> None:
        for row in rows:
            record = {column.name: _JSON[column.kind](cell) for column, cell in zip(columns, row, strict=True)}
            stream.write(json.dumps(record, ensure_ascii=False, allow_nan=False).encode() + b"\n")

    yield write


@contextmanager
def _parquet(stream: IO[bytes], columns: Sequence[Column]) -> Iterator[Write]:
    import pyarrow as pa
    from pyarrow import parquet

    struct = pa.struct([("type", pa.string()), ("confidence", pa.float64())])
    types = {"text": pa.string(), "share": pa.float64(), "path": pa.list_(pa.string()), "ranking": pa.list_(struct)}
    schema = pa.schema([(column.name, types[column.kind]) for column in columns])
    with _Sink(stream) as sink:
        writer = parquet.ParquetWriter(sink, schema, compression="zstd")

        def write(rows: Sequence[Sequence[Cell]]) -> None:
            arrays = [
                pa.array([_ARROW[column.kind](row[i]) for row in rows], types[column.kind])
                for i, column in enumerate(columns)
            ]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))

        yield write
        writer.close()


@contextmanager
def _xlsx(stream: IO[bytes], target: Path, columns: Sequence[Column]) -> Iterator[Write]:
    import xlsxwriter
    from xlsxwriter.exceptions import FileCreateError

    if len(columns) > XLSX_COLUMNS:
        raise InputError(f"{target}: XLSX holds {XLSX_COLUMNS:,} columns, not {len(columns):,}. Write a .csv file.")
    with _Sink(stream) as sink, tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as scratch:
        # ZIP64 is used only where a sheet needs it: above 4 GiB.
        options = {"constant_memory": True, "tmpdir": scratch, "use_zip64": True}
        book = xlsxwriter.Workbook(sink, options)
        sheet = book.add_worksheet("predictions")
        try:
            sheet.freeze_panes(1, 0)
            write = _sheet_writer(sheet, book.add_format(), target, columns)
            yield write
            book.close()
        except FileCreateError as error:  # its way to say that an OSError came up while closing
            raise error.args[0] from error
        finally:
            sheet.row_data_fh.close()


def _sheet_writer(sheet: Any, plain: Any, target: Path, columns: Sequence[Column]) -> Write:
    """The function that writes rows into a worksheet, the header already written; `plain` is an empty cell format."""
    renderers = [_FLAT[column.kind] for column in columns]
    rows_written = 0

    def put(column: int, cell: str | float) -> None:
        if isinstance(cell, float):
            sheet.write_number(rows_written, column, cell)
            return
        text = _NO_XML_CHARACTER.sub("\ufffd", cell)
        if text.startswith("<r>") and text.endswith("</r>"):
            # XlsxWriter 3.3.1 takes such a text for markup of its own and would write it unescaped.
            status = sheet.write_rich_string(rows_written, column, text[:1], plain, text[1:])
        else:
            status = sheet.write_string(rows_written, column, text)
        if status:  # it has cut the text
            raise InputError(
                f"{target}: row {rows_written + 1:,}, column '{columns[column].name}': the text has {len(text):,} "
                f"characters, an XLSX cell holds {XLSX_CELL:,}. Write a .csv file."
            )

    def write(rows: Iterable[Sequence[Cell]]) -> None:
        nonlocal rows_written
        for row in rows:
            if rows_written == XLSX_ROWS:
                raise InputError(f"{target}: XLSX holds {XLSX_ROWS:,} rows, and there are more. Write a .csv file.")
            for column, (render, cell) in enumerate(zip(renderers, row, strict=True)):
                put(column, render(cell))
            rows_written += 1

    for column, heading in enumerate(columns):
        put(column, defuse(heading.name))
    rows_written = 1
    return write


class _Sink(io.RawIOBase):
    """The output as zipfile and Arrow see it: once it is left, it swallows what they still write.

    After an error both try to complete their file in a destructor, when the disk is full or the stream closed; the
    error from there can't be caught, and Python prints its traceback.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream: IO[bytes] | None = stream

    def __exit__(self, *error: object) -> None:
        self._stream = None

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def write(self, data: ReadableBuffer) -> int:
        return self._stream.write(data) if self._stream else memoryview(data).nbytes

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._stream.seek(offset, whence) if self._stream else 0

    def tell(self) -> int:
        return self._stream.tell() if self._stream else 0

    def flush(self) -> None:
        if self._stream:
            self._stream.flush()
