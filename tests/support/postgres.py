"""A PostgreSQL server of the test run's own, where the machine has the programs."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

USER = "postgres"
_START_S = 60.0


def programs() -> Path | None:
    """The folder of `initdb` and `postgres`; None without PostgreSQL, or where root has nobody to run it as."""
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    found = shutil.which("postgres") or (str(installed[-1]) if installed else None)
    if found is None or (os.geteuid() == 0 and not _has_user()):
        return None
    return Path(found).resolve().parent


def _has_user() -> bool:
    try:
        pwd.getpwnam(USER)
    except KeyError:
        return False
    return True


@contextmanager
def server(folder: Path, binaries: Path) -> Iterator[str]:
    """Run a server in an empty folder; it listens on a socket there and on no port.

    Yields:
        A URL of its database "postgres".
    """
    as_user = ["runuser", "-u", USER, "--"] if os.geteuid() == 0 else []  # initdb refuses root
    if as_user:
        shutil.chown(folder, USER)
    data = folder / "data"
    made = [*as_user, str(binaries / "initdb"), "-D", str(data), "-U", USER, "-A", "trust", "-E", "UTF8", "--no-sync"]
    subprocess.run(made, check=True, capture_output=True, cwd=folder)
    options = {"listen_addresses": "", "unix_socket_directories": str(folder), "fsync": "off"}
    settings = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
    log = (folder / "log").open("wb")
    process = subprocess.Popen(
        [*as_user, str(binaries / "postgres"), "-D", str(data), *settings],
        stdout=log,
        stderr=log,
        cwd=folder,
    )
    try:
        _wait(binaries, folder, process)
        yield f"postgresql://{USER}@/postgres?host={folder}"
    finally:
        # A fast stop, also of sessions that a failed test left; by its own program, for runuser passes no SIGINT on.
        subprocess.run(
            [*as_user, str(binaries / "pg_ctl"), "stop", "-D", str(data), "-m", "immediate", "-w"],
            check=False,
            capture_output=True,
            cwd=folder,
        )
        process.wait(30)
        log.close()


def _wait(binaries: Path, folder: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_S
    while subprocess.run(
        [str(binaries / "pg_isready"), "-h", str(folder)], check=False, capture_output=True
    ).returncode:
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"PostgreSQL did not start: {(folder / 'log').read_text(encoding='utf-8')}")
        time.sleep(0.05)
