"""A run folder whose baseline answers in a millisecond, and services over it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from shelfwise.server.settings import Settings
from support.evaluations import lay_out, write_catalogue
from support.serving import in_process


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    return lay_out(folder / "shelves", write_catalogue(folder / "catalogue.csv"))


@pytest.fixture(scope="module")
def client(run: Path) -> Iterator[TestClient]:
    with in_process(Settings(runs=(str(run),))) as found:
        yield found
