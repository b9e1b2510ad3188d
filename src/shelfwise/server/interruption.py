"""Ending what a task waits for from outside, with the reason: its client has gone, or its time is over.

`asyncio.wait_for` around every read and a second task that watches the client cost more than a small answer itself
(docs/lab-notes.md); a timer costs a microsecond.
"""

from __future__ import annotations

import asyncio
from types import TracebackType

from shelfwise.server.errors import ApiError


class Interruption:
    """A context of the current task that others may end: it then raises the error that they gave."""

    def __init__(self) -> None:
        self._task = asyncio.current_task()
        self._reason: ApiError | None = None
        self._over = False

    def interrupt(self, reason: ApiError) -> None:
        """End the context with this error; too late is no fault."""
        if self._over or self._reason is not None or self._task is None:
            return
        self._reason = reason
        self._task.cancel()

    def finish(self) -> None:
        """From here on nothing is to be interrupted."""
        self._over = True

    def __enter__(self) -> Interruption:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._over = True
        if self._reason is None or kind is None or not issubclass(kind, asyncio.CancelledError):
            return
        if hasattr(self._task, "uncancel"):  # from Python 3.11 on a task counts who wants it to end
            self._task.uncancel()  # type: ignore[union-attr]
        raise self._reason from None
