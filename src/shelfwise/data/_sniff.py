"""What a file is, whatever its name says; told from its name and its first bytes before anything is parsed."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Literal

from shelfwise.data.compression import NAMES, SIGNATURES, UNPACK, Compression, compression_of, plain_name
from shelfwise.errors import CatalogueError, did_you_mean, did_you_mean_beside

Format = Literal["csv", "tsv", "jsonl", "parquet", "xlsx"]

_FORMATS: dict[str, Format] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".xlsx": "xlsx",
}
_TEXT = frozenset({"csv", "tsv", "jsonl"})

# First bytes, what such a file is, and the suffix that it should have (None: it can't be read under any name).
# https://en.wikipedia.org/wiki/List_of_file_signatures
_SIGNATURES: tuple[tuple[bytes, str, str | None], ...] = (
    (b"PAR1", "a Parquet file", ".parquet"),
    (b"PK\x03\x04", "a ZIP archive, as Excel's .xlsx files are", ".xlsx"),
    (b"\x1f\x8b", "a gzip file", ".gz"),
    (b"\xd0\xcf\x11\xe0", "an Excel file of the old .xls kind, or one with a password", None),
    (b"\x28\xb5\x2f\xfd", "a Zstandard file", ".zst"),
    (b"BZh", "a bzip2 archive", None),
    (b"%PDF", "a PDF document", None),
    (b"SQLite format 3\x00", "an SQLite database", None),
    (b"<!DOCTYPE", "a web page", None),
    (b"<html", "a web page", None),
)
_OWN = {"parquet": b"PAR1", "xlsx": b"PK\x03\x04"}


def format_of(path: Path) -> Format:
    """Tell a catalogue file's format.

    Raises:
        CatalogueError: there is no such file, it is empty, its suffix is none that can be read, or its first bytes
            are those of another kind of file.
    """
    _require_file(path)
    compression = compression_of(path)
    suffix = plain_name(path).suffix.lower()
    found = _FORMATS.get(suffix)
    if found is None:
        what = f"'{path.suffix}' is no format that can be read" if path.suffix else "the name has no suffix"
        near = did_you_mean(suffix, _FORMATS) if suffix else ""
        raise CatalogueError(
            f"{path}: {what}.{near} Readable are {', '.join(_FORMATS)}; .csv, .tsv and .jsonl also as .gz or .zst."
        )
    if compression and found not in _TEXT:
        unpack = f"{UNPACK[compression]} {path.name}"
        raise CatalogueError(f"{path}: a {suffix} file is compressed already. Unpack it first: {unpack}")
    try:
        with path.open("rb") as stream:
            head = stream.read(64)
    except OSError as error:
        raise CatalogueError(f"{path}: can't be read ({error.strerror or error}).") from error
    if not head:
        raise CatalogueError(f"{path}: the file is empty (0 bytes).")
    _compare(path, head, found, compression)
    return found


def _require_file(path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise CatalogueError(f"{path}: there is no such file.{did_you_mean_beside(path)}") from None
    except (OSError, ValueError) as error:
        raise CatalogueError(f"{path}: can't be read ({getattr(error, 'strerror', None) or error}).") from error
    if stat.S_ISDIR(mode):
        raise CatalogueError(f"{path}: this is a folder. Name a file in it.")
    if not stat.S_ISREG(mode):
        raise CatalogueError(f"{path}: not a regular file, and a catalogue is read more than once. Save it first.")


def _compare(path: Path, head: bytes, named: Format, compression: Compression | None) -> None:
    """Refuse a file whose first bytes are not those of what its name says."""
    expected = SIGNATURES[compression] if compression else _OWN.get(named)
    if expected is not None and head.startswith(expected):
        return
    for signature, what, suffix in _SIGNATURES:
        if head.lower().startswith(signature.lower()) if signature[:1] == b"<" else head.startswith(signature):
            raise CatalogueError(f"{path}: this is {what}, not what its name says. {_mend(path, suffix)}")
    if expected is not None:
        own = {"parquet": "a Parquet file", "xlsx": "an Excel file"}
        what = f"a {NAMES[compression]} file" if compression else own[named]
        raise CatalogueError(f"{path}: not {what}: its first bytes are {head[:4]!r}. If it is text, name it .csv.")
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise CatalogueError(
            f"{path}: this is UTF-16 text (Excel's 'Unicode Text'), not UTF-8. Save it as 'CSV UTF-8', or: "
            f"iconv -f UTF-16 -t UTF-8 {path.name} > utf8{path.suffix}"
        )


def _mend(path: Path, suffix: str | None) -> str:
    if suffix is None:
        return "Save the products as CSV (UTF-8) or .xlsx."
    if suffix in (".gz", ".zst"):
        return f"Rename it to {path.name}{suffix}"
    return f"Rename it to {path.with_suffix(suffix).name}"
