"""The documents say what the code does: generated parts are up to date, links lead somewhere, commands parse."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import sys
from importlib import metadata
from pathlib import Path

import pytest
from typer.main import get_command

from shelfwise.cli import app

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
COMMANDS = {
    name: command
    for outer, group in get_command(app).commands.items()
    for name, command in {
        outer: group,
        **{f"{outer} {k}": v for k, v in getattr(group, "commands", {}).items()},
    }.items()
}
TREE_ENTRY = re.compile(r"^((?:│   |    )*)(?:├── |└── )(\S+)", re.MULTILINE)


def load_generate():
    spec = importlib.util.spec_from_file_location("shelfwise_docs_generate", ROOT / "docs" / "generate.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look themselves up
    spec.loader.exec_module(module)
    return module


generate = load_generate()


def options_of(name):
    return {option for parameter in COMMANDS[name].params for option in parameter.opts if option.startswith("--")}


def shell_lines(text):
    """Lines of sh blocks, continued ones joined, comments left out."""
    for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            if words := shlex.split(line, comments=True):
                yield words


def test_the_pages_were_found():
    assert {"README.md", "CHANGELOG.md", "CONTRIBUTING.md", "architecture.md", "cli.md", "data-format.md"} <= {
        page.name for page in PAGES
    }


def test_generated_parts_are_up_to_date():
    stale = generate.outdated()
    recorded = re.search(r"\(typer (\S+)\)", (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")).group(1)
    if metadata.version("typer") != recorded:  # releases lay help out differently; the next test looks at its words
        stale = [path for path in stale if path != "docs/cli.md"]
    assert stale == [], "run: make docs"


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_and_option_stands_in_the_page_of_commands(name):
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    section = page.partition(f"## `shelfwise {name}`\n")[2].partition("\n## ")[0]
    assert section
    assert {option for option in options_of(name) if option not in section} == set()


def test_the_page_of_commands_does_not_depend_on_the_terminal(monkeypatch):
    page = generate.cli_page()
    monkeypatch.setenv("COLUMNS", "57")
    assert generate.cli_page() == page
    assert max(map(len, page.splitlines())) < 125


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_lead_to_files(page):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_in_the_documents_exist_with_their_options(page):
    for words in shell_lines(page.read_text(encoding="utf-8")):
        if words[0] == "shelfwise":
            name = " ".join(words[1:3]) if " ".join(words[1:3]) in COMMANDS else words[1]
            assert name in COMMANDS, words
            given = {word.partition("=")[0] for word in words if word.startswith("--")}
            assert given <= options_of(name), words


def test_the_real_run_in_the_readme_names_all_its_steps():
    lines = list(shell_lines((ROOT / "README.md").read_text(encoding="utf-8")))
    assert {words[1] for words in lines if words[0] == "shelfwise"} >= {
        "check",
        "split",
        "train",
        "evaluate",
        "predict",
    }
    assert {tuple(words) for words in lines} >= {("make", "demo"), ("make", "test")}
    for words in lines:
        for word in words:
            if word.startswith("configs/"):
                assert (ROOT / word).is_file(), word


def test_every_entry_of_the_readmes_tree_exists():
    tree = (ROOT / "README.md").read_text(encoding="utf-8").partition("```text\n.\n")[2].partition("```")[0]
    entries = TREE_ENTRY.findall(tree)
    assert len(entries) > 30
    folders: list[str] = []
    for indent, name in entries:
        folders = [*folders[: len(indent) // 4], name.rstrip("/")]
        assert ROOT.joinpath(*folders).exists(), "/".join(folders)


def test_no_document_holds_a_path_of_someones_machine():
    for page in [*PAGES, *(ROOT / "configs").glob("*.yaml"), *(ROOT / "benchmarks").rglob("*.json")]:
        assert not re.search(r"(?<![\w.])/(home|root|work|tmp|Users)/", page.read_text(encoding="utf-8")), page


def write_result(folder, name, rows):
    facts = {"date": "2026-01-02", "hardware": "one GPU", "commit": "0123456789abcdef", "command": "python x.py"}
    (folder / f"{name}.json").write_text(json.dumps({"name": name, "versions": {}, **facts, "rows": rows}))


SIZED = {
    "model": "llama2-7b (random weights)",
    "optimizer": "adamw",
    "objective": "head",
    "micro_batch": 128,
    "gradient_checkpointing": False,
    "tokens_per_s": 3957,
    "products_per_s": 338.1,
    "peak_gib": 48.1,
    "estimated_gib": 59.2,
    "train_s": 10.3,
    "run_gib": 0.16,
    "loss_first": 6.8,
    "loss_last": 6.2,
    "reload_max_difference": 0.0,
}


def test_failed_attempts_and_older_rows_stay_out_of_the_table(tmp_path, monkeypatch):
    monkeypatch.setattr(generate, "RESULTS", tmp_path)
    write_result(tmp_path, "true_size_adapters", [{**SIZED, "method": "lora"}])
    older = [
        {"model": "llama", "method": "lora", "error": "out of memory"},
        {**SIZED, "method": "lora", "peak_gib": 99},
    ]
    write_result(tmp_path, "true_size_full", [*older, {**SIZED, "method": "full"}])
    text = generate.true_size_table()
    assert [line.split(" | ")[1] for line in text.splitlines()[2:4]] == ["lora", "full"]
    assert "99" not in text
    assert "out of memory" not in text
    assert "`python x.py` (one GPU; 2026-01-02, commit `0123456`)" in text


def test_a_recipe_gets_the_figures_of_its_own_model_and_method(tmp_path, monkeypatch):
    monkeypatch.setattr(generate, "RESULTS", tmp_path)
    write_result(tmp_path, "true_size_adapters", [{**SIZED, "method": "lora"}, {**SIZED, "method": "qlora"}])
    text = "# measured:\n# old\n# /measured\n\nmodel: llama2-7b\nmethod: METHOD\nobjective: head\n"
    assert "peak 48.1 GiB (59.2 estimated before)" in generate.recipe(text.replace("METHOD", "lora"))
    assert "nothing yet" in generate.recipe(text.replace("METHOD", "full"))


def test_the_demos_table_appears_with_its_result_file(tmp_path, monkeypatch):
    monkeypatch.setattr(generate, "RESULTS", tmp_path)
    assert "Not measured yet" in generate.demo_table()
    scores = {"accuracy": 0.8, "accuracy_low": 0.75, "accuracy_high": 0.84, "macro_f1": 0.7}
    write_result(
        tmp_path, "demo", [{"model": "baseline", **scores}, {"model": "tiny-llama", **scores, "train_s": 31.4}]
    )
    text = generate.demo_table()
    assert "| baseline | 0.800 [0.750, 0.840] | 0.700 |  |" in text
    assert "| tiny-llama | 0.800 [0.750, 0.840] | 0.700 | 31 |" in text
