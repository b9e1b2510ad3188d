"""Parquet through pyarrow, a batch of rows at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from shelfwise.data._cells import columns_of, no_rows, row_of, shown
from shelfwise.errors import CatalogueError
from shelfwise.records import RawRow, Reject

_BATCH = 4_096  # rows


class Parquet:
    """A Parquet file; iterating it reads it from its first row on.

    A row's line is its number with a header counted as line 1, as the file would have it as CSV.
    """

    def __init__(self, path: Path) -> None:
        """Read the schema.

        Raises:
            CatalogueError: the file is damaged, has no row, or a column that holds no texts.
        """
        self._path = path
        with self._opened() as file:
            schema = file.schema_arrow
            rows = file.metadata.num_rows
        self._require_flat(schema)
        self._width = len(schema.names)
        self.columns = columns_of(schema.names, path)
        if not rows:
            raise no_rows(path)

    def __iter__(self) -> Iterator[RawRow | Reject]:
        number = 0
        with self._opened() as file:
            for batch in file.iter_batches(batch_size=_BATCH):
                columns = [_texts(batch.column(i)) for i in range(self._width)]
                for cells in zip(*columns, strict=True):
                    yield row_of(number, f"{self._path.name}:{number + 2}", cells, self.columns)
                    number += 1

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        import pyarrow as pa
        from pyarrow import parquet

        try:
            with parquet.ParquetFile(self._path) as file:
                yield file
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            first = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise CatalogueError(f"{self._path}: the Parquet file can't be read ({first:.200}).") from error

    def _require_flat(self, schema: Any) -> None:
        import pyarrow as pa

        for field in schema:
            if pa.types.is_nested(field.type):
                raise CatalogueError(
                    f"{self._path}: column '{shown(field.name)}' holds {field.type}, and a cell is a text or a number. "
                    "Leave the column out, or write it as text."
                )


def _texts(column: Any) -> list[str]:
    """A column's cells as text: the shortest digits that give a number back, dates as ISO 8601; null is empty."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = column.type
    cells = pc.cast(column, pa.string()).to_pylist()
    if pa.types.is_floating(kind):
        return ["" if cell is None or cell == "nan" else cell for cell in cells]
    if pa.types.is_timestamp(kind):
        return ["" if cell is None else cell.replace(" ", "T", 1) for cell in cells]
    return ["" if cell is None else cell for cell in cells]
