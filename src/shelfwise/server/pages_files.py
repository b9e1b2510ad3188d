"""Files that a page hands out."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import IO
from urllib.parse import quote

from fastapi.responses import Response, StreamingResponse

from shelfwise.server.pages_view import HEADERS

BLOCK = 1 << 20
MEDIA_TYPES = {
    ".csv": "text/csv; charset=utf-8",
    ".jsonl": "application/jsonl",
    ".parquet": "application/vnd.apache.parquet",
    ".xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
}


def attachment(stream: IO[bytes], name: str, media_type: str) -> Response:
    """Send an open file to be saved under a name, and close it."""

    def blocks() -> Iterator[bytes]:
        with stream:
            while block := stream.read(BLOCK):
                yield block

    plain = "".join(c if c.isascii() and (c.isalnum() or c in "-_. ") else "_" for c in name)
    disposition = f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"
    size = os.fstat(stream.fileno()).st_size
    headers = {**HEADERS, "Content-Disposition": disposition, "Content-Length": str(size)}
    return StreamingResponse(blocks(), media_type=media_type, headers=headers)
