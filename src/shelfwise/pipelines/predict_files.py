"""The rows of a part as bytes, and the parts as one whole file.

Parts of a text format are pieces of the output itself, so putting them together is copying. Parts of Parquet and XLSX
outputs are small Parquet files, which hold every cell with its type.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import IO, Any

from shelfwise.artifact import storage_errors
from shelfwise.data.compression import compress, compression_of
from shelfwise.data.writer import XLSX_ROWS, Cell, Column, open_writer
from shelfwise.errors import InputError
from shelfwise.pipelines.predict_parts import Kind, Parts
from shelfwise.pipelines.predict_plan import Plan

_TABLE = Path("part.parquet")


def part_of(plan: Plan, rows: Sequence[Sequence[Cell]], first: bool) -> bytes:
    """Predicted rows as a part of the output; the first part also holds the headings."""
    target = _TABLE if plan.format in ("parquet", "xlsx") else Path(f"part.{plan.format}")
    return compress(_rendered(target, plan.headings, rows, first), compression_of(plan.out))


def rejects_part_of(plan: Plan, rows: Sequence[Sequence[Cell]], first: bool) -> bytes:
    """Rejected rows as a part of the rejects file."""
    return _rendered(Path("part.csv"), plan.reject_headings, rows, first)


def require_room(plan: Plan, rows: int) -> None:
    """Refuse more rows than the output's format holds, before they are predicted for nothing.

    Raises:
        InputError: XLSX.
    """
    if plan.format == "xlsx" and rows >= XLSX_ROWS:
        raise InputError(f"{plan.out}: XLSX holds {XLSX_ROWS:,} rows, and there are more. Write a .csv file.")


def put_together(plan: Plan, parts: Parts) -> None:
    """Make the output and its rejects file of the parts, and put them in their places.

    Raises:
        InputError: XLSX can't hold a text.
        CorruptArtifactError: a part was changed.
        StorageError: the disk refused; the parts are kept.
    """
    built: dict[Path, Path] = {}
    if parts.has("rejects"):
        built[plan.rejects] = parts.folder / "whole.rejects.csv"
        with storage_errors(plan.rejects):
            _copied(parts, "rejects", built[plan.rejects])
    else:
        plan.rejects.unlink(missing_ok=True)  # an earlier job's, which would be taken for this one's
    built[plan.out] = parts.folder / f"whole.{plan.format}"
    with storage_errors(plan.out):
        if plan.format == "parquet":
            _as_parquet(parts, built[plan.out])
        elif plan.format == "xlsx":
            _as_xlsx(plan, parts, built[plan.out])
        else:
            _copied(parts, "out", built[plan.out])
    parts.place(built)


def _rendered(target: Path, columns: Sequence[Column], rows: Sequence[Sequence[Cell]], heading: bool) -> bytes:
    stream = io.BytesIO()
    with open_writer(stream, target, columns, heading=heading) as write:
        write(rows)
    return stream.getvalue()


def _copied(parts: Parts, kind: Kind, target: Path) -> None:
    with target.open("wb") as stream:
        for number in parts.has(kind):
            stream.write(parts.read(number, kind))
        _sync(stream)


def _tables(parts: Parts) -> Iterator[Any]:
    import pyarrow as pa
    from pyarrow import parquet

    for number in parts.has("out"):
        yield parquet.read_table(pa.BufferReader(parts.read(number, "out")))


def _as_parquet(parts: Parts, target: Path) -> None:
    from pyarrow import parquet

    tables = _tables(parts)
    first = next(tables)
    with target.open("wb") as stream:
        with closing(parquet.ParquetWriter(stream, first.schema, compression="zstd")) as writer:
            writer.write_table(first)
            for table in tables:
                writer.write_table(table)
        _sync(stream)


def _as_xlsx(plan: Plan, parts: Parts, target: Path) -> None:
    try:
        with target.open("wb") as stream:
            with open_writer(stream, target, plan.headings) as write:
                for table in _tables(parts):
                    cells = [[_cell(value) for value in column.to_pylist()] for column in table.itercolumns()]
                    write(list(zip(*cells, strict=True)))
            _sync(stream)
    except InputError as error:  # the name that users know is the output's
        raise InputError(str(error).replace(str(target), str(plan.out))) from error


def _cell(value: Any) -> Cell:
    """A cell of a part's Parquet file as `data.writer` takes it."""
    if not isinstance(value, list):
        return value  # type: ignore[no-any-return]
    if value and isinstance(value[0], dict):
        return tuple((entry["type"], entry["confidence"]) for entry in value)
    return tuple(value)


def _sync(stream: IO[bytes]) -> None:
    stream.flush()
    os.fsync(stream.fileno())
