"""The application as a process: its socket, its signals, and a calm end.

SIGTERM or Ctrl-C: readiness fails at once, and for `drain_delay_s` requests are still answered, until whoever balances
the load has noticed; then new ones are refused with 503, those in flight are finished, and the process ends with status
0. A second signal ends it without that. SIGHUP loads the run folders again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from types import FrameType

import uvicorn
from fastapi import FastAPI

from shelfwise import artifact
from shelfwise.errors import InputError, ShelfwiseError
from shelfwise.server import logs
from shelfwise.server.app import create_app
from shelfwise.server.protocol import PatientProtocol
from shelfwise.server.service import Service
from shelfwise.server.settings import Settings, named_runs

logger = logging.getLogger(__name__)

BACKLOG = 2048  # connections that the system holds until they are taken
OPEN_FILES = 65_536
KEEP_ALIVE_S = 75
# How long a model's thread may keep Python's lock from that of the requests: Python's own 5 ms are a long time where a
# model answers in ten (docs/lab-notes.md).
SWITCH_S = 0.0005
_SOON_S = 0.02


def serve(settings: Settings, announce: Callable[[str], None]) -> None:
    """Run the service until it is told to end.

    Args:
        settings: what and where.
        announce: told the address once connections are taken; the models may still be loading.

    Raises:
        InputError: the settings, a run folder, or an address that can't be had.
        WorkError: a model can't be loaded, or the review store refuses.
    """
    app = create_app(settings)
    for run in named_runs(settings.runs).values():  # before anything is said to be served
        artifact.read_manifest(run, verify=False)
    with contextlib.closing(logs.configure()):
        _serve(app, settings, announce)


def _serve(app: FastAPI, settings: Settings, announce: Callable[[str], None]) -> None:
    _allow_open_files()
    sys.setswitchinterval(SWITCH_S)
    config = uvicorn.Config(
        app,
        loop="asyncio",  # uvloop takes one new connection a turn: in a flood they wait for seconds to be refused
        http=PatientProtocol,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=max(1, round(settings.drain_timeout_s)),
    )
    service: Service = app.state.service
    with _listening(settings.host, settings.port) as listener:
        host, port = listener.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        _Server(config, service, settings, lambda: announce(f"http://{shown}:{port}")).run(sockets=[listener])
    if service.failure is not None:
        raise service.failure


class _Server(uvicorn.Server):
    """uvicorn's server with our signals."""

    def __init__(
        self, config: uvicorn.Config, service: Service, settings: Settings, started: Callable[[], None]
    ) -> None:
        super().__init__(config)
        self._service = service
        self._settings = settings
        self._announce = started
        self._signals = 0
        self._wants_reload = False
        self._draining: asyncio.Task[None] | None = None
        self._reloading: asyncio.Task[None] | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal to end: the first is taken up by `on_tick`, the second at once."""
        self._signals += 1
        if self._signals > 1:
            self.should_exit = self.force_exit = True

    def _hang_up(self, sig: int, frame: FrameType | None) -> None:
        self._wants_reload = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then say so."""
        signal.signal(signal.SIGHUP, self._hang_up)
        await super().startup(sockets)
        if self.started:
            self._announce()

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second."""
        if self._signals and self._draining is None:
            self._draining = asyncio.create_task(self._drain())
        if self._wants_reload and (self._reloading is None or self._reloading.done()):
            self._wants_reload = False
            self._reloading = asyncio.create_task(self._reload())
        if self._service.state == "failed":
            self.should_exit = True
        return await super().on_tick(counter)

    async def _drain(self) -> None:
        logger.info("leaving")
        self._service.leave()
        await asyncio.sleep(self._settings.drain_delay_s)
        self._service.drain()
        logger.info("draining", extra={"requests": self._service.in_flight})
        ends_s = time.monotonic() + self._settings.drain_timeout_s
        while self._service.in_flight and time.monotonic() < ends_s:
            await asyncio.sleep(_SOON_S)
        self.should_exit = True

    async def _reload(self) -> None:
        try:
            await self._service.reload()
        except (ShelfwiseError, OSError) as error:
            logger.error("reload failed; what was served still is: %s", error)


@contextlib.contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.create_server(address[:2], family=family, backlog=BACKLOG)
    except OSError as error:
        said = error.strerror or str(error)
        raise InputError(f"{host}:{port}: can't listen there ({said}). Choose another --host or --port.") from error
    with listener:
        yield listener


def _allow_open_files() -> None:
    """Each connection is a file; many systems allow 1,024 unless asked."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES)
    if soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
