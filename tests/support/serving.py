"""Services in this process and in one of their own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from shelfwise.server.app import create_app
from shelfwise.server.settings import Settings

PATIENCE_S = 60.0


def wait_for(condition: Any, what: str, patience_s: float = PATIENCE_S) -> None:
    """Ask until it is so."""
    ends = time.monotonic() + patience_s
    while not condition():
        if time.monotonic() > ends:
            raise AssertionError(f"not within {patience_s:g} s: {what}")
        time.sleep(0.01)


@contextmanager
def in_process(settings: Settings) -> Iterator[TestClient]:
    """A client of an application in this process, once its models are loaded."""
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        wait_for(lambda: client.app.state.service.state != "loading", "the models are loaded")
        yield client


@dataclass
class Live:
    """A service in a process of its own."""

    process: subprocess.Popen[str]
    address: str
    log: list[str] = field(default_factory=list)

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    def get(self, path: str) -> tuple[int, Any]:
        return self._ask(urllib.request.Request(self.address + path))

    def post(self, path: str, document: Any, **headers: str) -> tuple[int, Any]:
        request = urllib.request.Request(
            self.address + path,
            json.dumps(document).encode(),
            {"Content-Type": "application/json", **{name.replace("_", "-"): value for name, value in headers.items()}},
        )
        return self._ask(request)

    def _ask(self, request: urllib.request.Request) -> tuple[int, Any]:
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
                return answer.status, _parsed(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, _parsed(error.read())

    def wait_until_ready(self) -> None:
        wait_for(lambda: self.get("/readyz")[0] == 200, "ready: " + "".join(self.log))

    def told(self, event: str) -> bool:
        return any(json.loads(line)["event"] == event for line in self.log)

    def end(self, how: int = signal.SIGTERM) -> int:
        self.process.send_signal(how)
        return self.process.wait(PATIENCE_S)


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return body.decode()


@contextmanager
def live(arguments: Sequence[str | Path], **environment: str) -> Iterator[Live]:
    """`shelfwise serve` on a free port; killed at the end if it still runs."""
    command = [sys.executable, "-m", "shelfwise", "serve", *map(str, arguments), "--port", "0"]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background job ignores it
    )
    assert process.stdout is not None
    assert process.stderr is not None
    log: list[str] = []
    reader = threading.Thread(target=lambda: log.extend(process.stderr or ()), daemon=True)
    reader.start()
    try:
        announced = process.stdout.readline()
        found = re.search(r"http://\S+", announced)
        if found is None:
            process.wait(PATIENCE_S)
            reader.join(PATIENCE_S)
            raise AssertionError(f"it did not start: {announced}{''.join(log)}")
        yield Live(process, found[0], log)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(PATIENCE_S)
        reader.join(PATIENCE_S)
        process.stdout.close()
        process.stderr.close()
