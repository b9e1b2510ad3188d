"""The layers of docs/architecture.md: each module imports only lower ones, or its own."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import shelfwise

ROOT = Path(shelfwise.__file__).parent
LAYERS = {
    **dict.fromkeys(["__init__", "errors", "records", "processes"], 0),
    **dict.fromkeys(
        ["text", "labels", "prompts", "config", "metrics", "hierarchy", "resampling", "bootstrap", "storage"], 1
    ),
    "clusters": 1,
    **dict.fromkeys(["data", "modeling", "review"], 2),
    **dict.fromkeys(
        ["classifier", "baseline", "baseline_words", "blend", "calibration", "recalibration", "thresholds", "artifact"],
        3,
    ),
    "pipelines": 4,
    **dict.fromkeys(["cli", "server", "__main__"], 5),
}
HEAVY = {"torch", "transformers", "peft", "bitsandbytes", "sklearn", "pyarrow", "pandas", "rich", "numpy", "scipy"}
MODULES = sorted(ROOT.rglob("*.py"))


def room(path: Path) -> str:
    part = path.relative_to(ROOT).parts[0]
    return part.removesuffix(".py")


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "shelfwise":
            parts = node.module.split(".")
            names = [parts[1]] if len(parts) > 1 else [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [a.name.split(".")[1] for a in node.names if a.name.startswith("shelfwise.")]
        found.update(name for name in names if name in LAYERS)
    return found


def test_the_package_was_found():
    assert len(MODULES) > 30


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_imports_only_lower_layers(path):
    own = room(path)
    for other in imports(path):
        assert other == own or LAYERS[other] <= LAYERS[own], f"{own} imports {other}"
        if LAYERS[other] == LAYERS[own] == 2:
            assert other == own, f"{own} and {other} are to be strangers"


@pytest.mark.parametrize("path", sorted((ROOT / "cli").glob("*.py")), ids=lambda path: path.stem)
def test_a_command_imports_nothing_heavy_before_it_runs(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body:
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        assert not {name.split(".")[0] for name in names} & HEAVY


@pytest.mark.parametrize(
    ("call", "name", "near"),
    [
        ("train c.csv --out run", "./modle", "Did you mean 'model'?"),
        ("audit-labels c.csv --out o.csv", "./modle", "Did you mean 'model'?"),
        ("plan", "./modle", "Did you mean 'model'?"),
        ("plan", "/nowhere/modle", ""),
        ("plan", "~nobody/modle", ""),
        ("plan", "smolm2-135m", "Did you mean 'smollm2-135m'?"),
    ],
)
def test_a_misspelt_model_is_told_before_anything_that_takes_seconds_is_loaded(call, name, near, tmp_path):
    (tmp_path / "model").mkdir()
    words = [*call.split(), "--model", name]
    code = f"import sys; from shelfwise.cli import run; print(run({words}), {{'torch', 'sklearn'}} & set(sys.modules))"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert finished.stdout == "2 set()\n"
    assert name in finished.stderr
    assert near in finished.stderr


def test_help_loads_neither_torch_nor_anything_else_that_is_heavy():
    code = "import sys; from shelfwise.cli import run; run(['--help']); print(sorted(sys.modules))"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.strip("'[], ").split(".")[0] for name in finished.stdout.splitlines()[-1].split(", ")}
    assert "typer" in loaded
    assert not loaded & HEAVY
