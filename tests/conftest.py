"""Fixtures that many tests share: the real catalogue where there is one, and tiny base models."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test may reach for the network
# Tiny models run faster on one thread each, and the tests run beside one another.
os.environ.setdefault("OMP_NUM_THREADS", "1")
BESIDE = Path(__file__).resolve().parents[2] / "shared" / "data" / "bigbasket_products.csv"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    named = os.environ.get("SHELFWISE_BIGBASKET")
    path = Path(named) if named else BESIDE
    if path.is_file():
        return
    why = f"the real catalogue is not at {path}: set SHELFWISE_BIGBASKET to its path"
    for item in items:
        if item.get_closest_marker("bigbasket"):
            item.add_marker(pytest.mark.skip(reason=why))


@pytest.fixture(scope="session")
def bigbasket() -> Path:
    named = os.environ.get("SHELFWISE_BIGBASKET")
    return Path(named) if named else BESIDE
