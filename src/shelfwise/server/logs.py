"""One JSON object a line, for machines. No product names in it unless the settings say so."""

from __future__ import annotations

import functools
import json
import logging
import sys
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import TextIO

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


def configure(stream: TextIO = sys.stderr) -> None:
    """Send the service's and the web server's log to a stream; everything else from WARNING up."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    for name in ("shelfwise", "uvicorn.error"):
        logging.getLogger(name).setLevel(logging.INFO)
    logging.getLogger("uvicorn.access").disabled = True  # `edge` writes that line, and knows more
