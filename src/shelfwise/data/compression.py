"""Compressed text files: gzip, and Zstandard through pyarrow, which is there for Parquet anyway.

Both formats may hold several members, one behind the other, that read as one text. So a file that is written in
parts is the parts' compressed bytes in a row.
"""

from __future__ import annotations

import gzip
import io
from pathlib import Path
from typing import BinaryIO, Literal, cast

Compression = Literal[".gz", ".zst"]

SUFFIXES: tuple[Compression, ...] = (".gz", ".zst")
SIGNATURES: dict[Compression, bytes] = {".gz": b"\x1f\x8b", ".zst": b"\x28\xb5\x2f\xfd"}
NAMES: dict[Compression, str] = {".gz": "gzip", ".zst": "Zstandard"}
UNPACK: dict[Compression, str] = {".gz": "gunzip", ".zst": "zstd -d"}
_GZIP_LEVEL = 6  # gzip's own default; 9 takes twice as long for 2% of the size


def compression_of(path: Path) -> Compression | None:
    """What a file's name says that it is compressed with; None: with nothing that is known here."""
    suffix = path.suffix.lower()
    return next((known for known in SUFFIXES if known == suffix), None)


def plain_name(path: Path) -> Path:
    """The path without the suffix of its compression: `out.csv` of `out.csv.gz`."""
    return path.with_suffix("") if compression_of(path) else path


def open_plain(path: Path) -> BinaryIO:
    """Open a file for reading, unpacked on the way.

    Raises:
        OSError: it can't be read; also while reading, where it is cut off or damaged (gzip: `EOFError`, `zlib.error`).
    """
    compression = compression_of(path)
    if compression == ".gz":
        return cast("BinaryIO", io.BufferedReader(gzip.GzipFile(path)))
    if compression == ".zst":
        import pyarrow as pa

        return cast("BinaryIO", io.BufferedReader(pa.input_stream(str(path), compression="zstd")))
    return path.open("rb")


def compress(data: bytes, compression: Compression | None) -> bytes:
    """One whole member; the same bytes always give the same member, for no time or name is written into it."""
    if compression == ".gz":
        return gzip.compress(data, compresslevel=_GZIP_LEVEL, mtime=0)
    if compression == ".zst":
        import pyarrow as pa

        packed: bytes = pa.compress(data, codec="zstd", asbytes=True)
        return packed
    return data
