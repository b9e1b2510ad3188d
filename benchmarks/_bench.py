"""What every benchmark shares: facts of the machine, and result files of one shape."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PACKAGES = (
    "torch",
    "transformers",
    "peft",
    "accelerate",
    "bitsandbytes",
    "torchao",
    "scikit-learn",
    "cleanlab",
    "numpy",
)


def hardware() -> str:
    import torch

    if torch.cuda.is_available():
        gib = torch.cuda.get_device_properties(0).total_memory / 2**30
        return f"{torch.cuda.get_device_name(0)}, {gib:.0f} GiB, {os.cpu_count()} CPU cores"
    from shelfwise.pipelines import provenance

    return provenance.hardware(None)


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str:
    """The commit that is measured: $SHELFWISE_COMMIT where the checkout travels without its history."""
    named = os.environ.get("SHELFWISE_COMMIT")
    if named:
        return named
    asked = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return asked.stdout.strip() or "unknown"


def write(name: str, rows: list[dict[str, Any]], folder: Path = RESULTS) -> Path:
    """Write `NAME.json` in the shape that the README's tables are generated from."""
    document = {
        "name": name,
        "date": date.today().isoformat(),
        "hardware": hardware(),
        "versions": versions(),
        "commit": commit(),
        "command": " ".join(["python", os.path.relpath(sys.argv[0], ROOT), *map(_plain, sys.argv[1:])]),
        "rows": rows,
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps(document, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    return path


def _plain(word: str) -> str:
    """A word of the command line without the folders of the machine that it ran on."""
    return Path(word).name if Path(word).is_absolute() else word


def say(*words: object) -> None:
    print(*words, flush=True)
