"""Schemathesis asks a service everything that its OpenAPI document allows, and much that it does not."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from support.evaluations import lay_out, write_catalogue
from support.serving import live

KEY = "0123456789abcdef"
PATHS = 8
# A request that gives itself a millisecond is told so with a 504: as documented, and no fault of the service.
CONFIG = """
[checks]
not_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", 504]
"""


@pytest.mark.slow
@pytest.mark.parametrize("with_keys", [False, True])
def test_no_request_is_answered_otherwise_than_the_document_says(tmp_path: Path, with_keys: bool) -> None:
    run = lay_out(tmp_path / "shelves", write_catalogue(tmp_path / "catalogue.csv"))
    (tmp_path / "schemathesis.toml").write_text(CONFIG, encoding="utf-8")
    environment = {"SHELFWISE_API_KEYS": f"ops {hashlib.sha256(KEY.encode()).hexdigest()} admin"} if with_keys else {}
    with live([run, "--drain-delay", "0"], **environment) as service:
        service.wait_until_ready()
        words = [f"{service.address}/openapi.json", "--checks", "all", "--max-examples", "60", "--no-color"]
        words += ["--header", f"Authorization: Bearer {KEY}"] if with_keys else ["--exclude-path", "/v1/admin/reload"]
        command = [sys.executable, "-m", "schemathesis.cli", "--config-file", "schemathesis.toml", "run", *words]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
        said = done.stdout + done.stderr
        assert done.returncode == 0, said
        tested = re.search(r"Tested: (\d+)", said)
        assert tested is not None, said
        assert int(tested[1]) == PATHS - (not with_keys)
        assert service.get("/livez")[0] == 200
    assert not any('"level": "error"' in line for line in service.log)
