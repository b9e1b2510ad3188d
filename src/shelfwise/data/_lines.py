"""Lines of UTF-8 text, plain or compressed, each with its number in the file; anything else is refused by line."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path

from shelfwise.data.compression import NAMES, compression_of, open_plain
from shelfwise.errors import CatalogueError

MAX_LINE = 1 << 24  # bytes; a longer one is a file of another kind, and would be held in memory whole
_BOM = b"\xef\xbb\xbf"


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """Read a text file line by line.

    Yields:
        (line number from 1, text with its line end). A byte order mark is dropped.

    Raises:
        CatalogueError: not UTF-8, NUL bytes, a line without end, a damaged archive; names the line.
    """
    number = 0
    compression = compression_of(path)
    with open_plain(path) as stream:
        try:
            while raw := stream.readline(MAX_LINE + 1):
                number += 1
                if number == 1:
                    raw = raw.removeprefix(_BOM)
                yield number, _text(raw, path, number)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise CatalogueError(
                f"{path}:{number + 1}: the gzip file is damaged from here on ({error}). Copy it again."
            ) from error
        except OSError as error:
            if compression is not None and error.errno is None:  # what Arrow says of a cut or damaged file
                raise CatalogueError(
                    f"{path}:{number + 1}: the {NAMES[compression]} file is damaged from here on ({error}). Copy it "
                    "again."
                ) from error
            raise CatalogueError(f"{path}:{number + 1}: can't be read ({error.strerror or error}).") from error


def _text(raw: bytes, path: Path, number: int) -> str:
    if len(raw) > MAX_LINE:
        raise CatalogueError(
            f"{path}:{number}: the line has more than {MAX_LINE >> 20} MiB. Is this a text file, one product a line?"
        )
    if b"\0" in raw:
        raise CatalogueError(
            f"{path}:{number}: the line holds NUL bytes, so this is no UTF-8 text file. If it is UTF-16, then: "
            f"iconv -f UTF-16LE -t UTF-8 {path.name} > utf8{path.suffix}"
        )
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise CatalogueError(
            f"{path}:{number}: byte {error.start + 1} of the line (0x{raw[error.start]:02X}) is not UTF-8; the file is "
            "probably Latin-1 or Windows-1252. In Excel, save it as 'CSV UTF-8', or: "
            f"iconv -f WINDOWS-1252 -t UTF-8 {path.name} > utf8{path.suffix}"
        ) from error
