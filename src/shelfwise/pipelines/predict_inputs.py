"""What a prediction job reads, one file, a folder or what a pattern finds, and where its rejects go."""

from __future__ import annotations

import glob
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from shelfwise.artifact import sha256
from shelfwise.data.compression import compression_of, plain_name
from shelfwise.data.reader import RowStream, open_rows
from shelfwise.errors import InputError
from shelfwise.records import RawRow, Reject

SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet", ".xlsx")
REJECTS_ENDING = ".rejects.csv"
MAX_FILES = 100_000
_WILD = frozenset("*?[")


def is_several(source: Path) -> bool:
    """Whether the input is a folder or a pattern: as many files as are found, even if that is one."""
    return source.is_dir() or (not source.exists() and not _WILD.isdisjoint(str(source)))


def find_inputs(source: Path) -> tuple[Path, ...]:
    """The files of a job, in the order of their paths; a single file as it is, whether it is there or not.

    Args:
        source: a file, a folder, or a pattern as in ``feeds/**/*.csv.gz``. Of a folder those files are taken whose
            suffix is that of a readable format, without hidden ones and without rejects of earlier jobs; what lies in
            folders below is left alone.

    Raises:
        InputError: a folder or a pattern without any such file, or with more than `MAX_FILES`.
    """
    if not is_several(source):
        return (source,)
    if source.is_dir():
        candidates: Iterator[Path] = source.iterdir()
    else:
        candidates = map(Path, glob.iglob(str(source), recursive=True))
    found = list(itertools.islice(filter(_is_product_file, candidates), MAX_FILES + 1))
    if len(found) > MAX_FILES:
        raise InputError(f"{source}: more than {MAX_FILES:,} files. Predict them a folder at a time.")
    if not found:
        raise InputError(
            f"{source}: no file of products there. Readable are {', '.join(SUFFIXES)}; text also as .gz or .zst."
        )
    return tuple(sorted(found))


def rejects_path(out: Path) -> Path:
    """Where the rows that can't be classified go: beside the output, always as plain CSV."""
    return out.with_name(f"{plain_name(out).stem}{REJECTS_ENDING}")


def open_inputs(sources: Sequence[Path]) -> RowStream:
    """One stream of rows of one or several files; each row's source names its own file.

    Raises:
        InputError: a file has other columns than the first; the order of the columns may differ.
        CatalogueError: a file can't be read as products.
    """
    first = open_rows(sources[0])
    if len(sources) == 1:
        return first
    for path in sources[1:]:
        _require_same(open_rows(path).columns, first, path)
    return RowStream(sources[0], first.columns, _Joined(tuple(sources), first.columns))


@dataclass(frozen=True, slots=True)
class InputFile:
    """One file as a job saw it: another one under the same name is told from it."""

    name: str
    bytes: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> InputFile:
        """Hash a file."""
        return cls(path.name, path.stat().st_size, sha256(path))


def inputs_of(sources: Sequence[Path]) -> list[dict[str, object]]:
    """The files of a job as its record holds them."""
    return [asdict(InputFile.of(source)) for source in sources]


def expected_rows(source: Path) -> int | None:
    """About how many data rows there are, where that is cheap to tell: for a progress bar, not for decisions."""
    try:
        counts = [_expected(path) for path in find_inputs(source)]
    except (InputError, OSError):
        return None  # whoever opens the files will say what is wrong
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None


def _expected(path: Path) -> int | None:
    import pyarrow as pa
    from pyarrow import parquet

    suffix = path.suffix.lower()
    try:
        if suffix == ".parquet":
            return int(parquet.read_metadata(path).num_rows)
        if suffix in (".csv", ".tsv", ".jsonl", ".ndjson") and path.is_file():
            with path.open("rb") as stream:
                lines = sum(block.count(b"\n") for block in iter(lambda: stream.read(1 << 20), b""))
            return max(lines - (suffix in (".csv", ".tsv")), 0)
    except (OSError, pa.ArrowException):
        return None
    return None


def _is_product_file(path: Path) -> bool:
    name = path.name.lower()
    if name.startswith(".") or name.endswith(REJECTS_ENDING) or not path.is_file():
        return False
    plain = plain_name(path).suffix.lower()
    return plain in SUFFIXES and not (compression_of(path) and plain in (".parquet", ".xlsx"))


def _require_same(columns: Sequence[str], first: RowStream, path: Path) -> None:
    odd = set(columns) ^ set(first.columns)
    if odd:
        name = min(odd)
        which = "has" if name in columns else "lacks"
        raise InputError(
            f"{path}: {which} the column '{name}', unlike {first.path}, and one output has one set of columns. Name a "
            "folder as --out to get a file for each."
        )


@dataclass(frozen=True, slots=True)
class _Joined:
    """The rows of several files of the same columns, in the order of the first file's columns."""

    sources: tuple[Path, ...]
    columns: tuple[str, ...]

    def __iter__(self) -> Iterator[RawRow | Reject]:
        for path in self.sources:
            stream = open_rows(path)  # opened anew for each: an Excel sheet is held in memory as long as it is open
            same = stream.columns == self.columns
            for row in stream:
                if same or isinstance(row, Reject):
                    yield row
                else:
                    values = {column: row.values[column] for column in self.columns}
                    yield RawRow(row.id, row.source, values)
