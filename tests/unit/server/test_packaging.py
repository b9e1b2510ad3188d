"""The container and what watches it name only what there is."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import typer
import yaml

from shelfwise.cli import app
from shelfwise.server.metrics import Metrics

ROOT = Path(__file__).resolve().parents[3]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))


def command_of_image() -> list[str]:
    (found,) = re.findall(r"^CMD (\[.*\])$", DOCKERFILE, re.MULTILINE)
    return json.loads(found)


@pytest.mark.parametrize("arguments", [command_of_image(), COMPOSE["services"]["service"]["command"]])
def test_the_containers_command_is_one_that_shelfwise_takes(arguments):
    serve = typer.main.get_command(app).commands["serve"]  # type: ignore[attr-defined]
    with serve.make_context("serve", list(arguments)) as context:
        assert context.params["host"] == "0.0.0.0"
        assert context.params["runs"] == ["/runs/current"]
    with pytest.raises(Exception, match=r"(?i)no such option"):
        serve.make_context("serve", [*arguments, "--no-such-option"])


def test_the_service_does_not_run_as_root_and_images_are_pinned():
    assert re.search(r"^USER \d+:\d+$", DOCKERFILE, re.MULTILINE)
    assert "HEALTHCHECK" in DOCKERFILE
    for service in COMPOSE["services"].values():
        assert re.search(r":v?\d+\.\d+", service["image"]), service["image"]
        assert "no-new-privileges:true" in service["security_opt"]


def test_files_that_compose_mounts_are_there():
    mounted = [entry.partition(":")[0] for service in COMPOSE["services"].values() for entry in service["volumes"]]
    ours = [path for path in mounted if path.startswith("./")]
    assert len(ours) >= 2
    assert all((ROOT / path).is_file() for path in ours)


@pytest.mark.parametrize("path", ["deploy/rules.yml", "docs/http-api.md"])
def test_the_metrics_that_alerts_and_documentation_name_are_kept(path):
    text = Metrics().text().decode()
    kept = set(re.findall(r"^# TYPE (\S+)", text, re.MULTILINE))
    named = set(re.findall(r"\bshelfwise_\w+", (ROOT / path).read_text(encoding="utf-8")))
    assert len(named) >= 5
    assert named <= kept, named - kept
