"""One JSON object a line, for machines. No product names in it unless the settings say so."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import TextIO

_TOGETHER_S = 0.01  # what is logged within this time is written at once
_dumps = json.JSONEncoder(ensure_ascii=True, default=str).encode
_PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message", "taskName"}


class JsonLines(logging.Formatter):
    """Time, level, logger and event, then whatever was given as `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        told = {
            "time": f"{_second(int(record.created))}.{int(record.created % 1 * 1000):03d}+00:00",
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            **{name: value for name, value in vars(record).items() if name not in _PLAIN},
        }
        if record.exc_info:
            told["traceback"] = self.formatException(record.exc_info)
        return _dumps(told)


@functools.lru_cache(maxsize=2)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="seconds").removesuffix("+00:00")


def event(logger: logging.Logger, what: str, told: Mapping[str, object]) -> None:
    """Log what happens on every request: as `logger.info(what, extra=told)`, without looking for who called."""
    if logger.isEnabledFor(logging.INFO):
        record = logging.LogRecord(logger.name, logging.INFO, "", 0, what, None, None)
        vars(record).update(told)
        logger.handle(record)


class Aside(logging.Handler):
    """Writes lines in a thread of its own, so that no request waits for a disk that is busy or a pipe that is full.

    Lines that can't be written are kept up to a number, then counted, and the count is written when there is room.
    `logging.handlers.QueueListener` would write each record by itself, and its end would wait for a full pipe for ever.
    """

    def __init__(self, stream: TextIO, most: int = 100_000) -> None:
        """Args:
        stream: where lines go.
        most: lines that wait at a time.
        """
        super().__init__()
        self._stream = stream
        self._most = most
        self._waiting: deque[str] = deque()
        self._lost = 0
        self._wake = threading.Event()
        self._ended = False
        self._thread = threading.Thread(target=self._write, name="shelfwise log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Take a line; whoever logs is not kept."""
        try:
            line = self.format(record)
        except Exception:  # as logging's own handlers: what can't be told ends no request
            self.handleError(record)
            return
        if self._ended:
            self._put([line])
        elif len(self._waiting) >= self._most:
            self._lost += 1
        else:
            self._waiting.append(line)
            self._wake.set()

    def close(self) -> None:
        """Write what waits, for a second at most; later lines are written at once."""
        if not self._ended:
            self._ended = True
            self._wake.set()
            self._thread.join(timeout=1.0)
        super().close()

    def _write(self) -> None:
        while not self._ended or self._waiting:
            self._wake.wait()
            if not self._ended:
                time.sleep(_TOGETHER_S)
            self._wake.clear()
            lines = [self._waiting.popleft() for _ in range(len(self._waiting))]
            if self._lost:
                lost, self._lost = self._lost, 0
                told = {"level": "warning", "logger": __name__, "event": "lines not written", "lines": lost}
                lines.append(_dumps({"time": datetime.now(timezone.utc).isoformat(timespec="milliseconds"), **told}))
            self._put(lines)

    def _put(self, lines: list[str]) -> None:
        with contextlib.suppress(OSError, ValueError):  # a reader that has gone, a stream that was closed
            self._stream.write("".join(f"{line}\n" for line in lines))
            self._stream.flush()


def configure(stream: TextIO = sys.stderr) -> Aside:
    """Send the service's and the web server's log to a stream; everything else from WARNING up.

    Returns:
        What writes it; to be closed when the service ends.
    """
    handler = Aside(stream)
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    for name in ("shelfwise", "uvicorn.error"):
        logging.getLogger(name).setLevel(logging.INFO)
    logging.getLogger("uvicorn.access").disabled = True  # `edge` writes that line, and knows more
    return handler
