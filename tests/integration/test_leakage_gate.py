"""The leakage gate as the commands have it: noted by default, refused with --strict, shown by check."""

import json
from pathlib import Path

import pytest

from shelfwise.cli import run

# Words that are not alike, so that no two names are near duplicates.
WORDS = ("Aardvark", "Buffalo", "Cheetah", "Dolphin", "Elephant", "Flamingo", "Gorilla", "Hedgehog", "Iguana", "Jackal")
COLOURS = ("Turquoise", "Magenta", "Vermilion")


@pytest.fixture
def leaking(tmp_path: Path) -> Path:
    """30 names, each of one of three types, and each three times in the file."""
    rows = [f"{word} {colour},{colour}" for word in WORDS for colour in COLOURS]
    path = tmp_path / "c.csv"
    path.write_text("\n".join(("product,type", *rows * 3)) + "\n", encoding="utf-8")
    return path


def train(catalogue: Path, out: Path, *options: str) -> int:
    return run(["train", str(catalogue), "--out", str(out), "--model", "baseline", *options])


def test_strict_training_refuses_a_leaking_split_and_writes_nothing(
    leaking: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(leaking, tmp_path / "run", "--strategy", "random", "--strict") == 2
    printed = capsys.readouterr().err
    assert "c.csv: --strict refuses leakage:" in printed
    assert "whose name and type train or validation holds too" in printed
    assert "c.csv:" in printed.partition("--strategy grouped.")[2]
    assert not (tmp_path / "run").exists()


def test_strict_training_and_evaluation_pass_a_grouped_split_in_silence(
    leaking: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(leaking, tmp_path / "run", "--strict") == 0
    assert run(["evaluate", str(tmp_path / "run"), "--strict"]) == 0
    assert "leakage" not in capsys.readouterr().err


def test_leakage_is_noted_by_training_and_evaluation_and_refused_by_a_strict_evaluation(
    leaking: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    assert train(leaking, folder, "--strategy", "random") == 0
    assert "leakage: 12 of 18 test products" in capsys.readouterr().err
    assert run(["evaluate", str(folder), "--strict"]) == 2
    assert "--strict refuses leakage:" in capsys.readouterr().err
    assert not (folder / "evaluation").exists()
    assert run(["evaluate", str(folder)]) == 0
    assert "leakage: 12 of 18 test products" in capsys.readouterr().err


def test_check_with_a_split_prints_what_leaks(
    leaking: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["split", str(leaking), "--out", str(tmp_path / "cut"), "--strategy", "random"]) == 0
    split = str(tmp_path / "cut" / "split.json")
    capsys.readouterr()
    assert run(["check", str(leaking), "--split", split, "--json"]) == 0
    findings = json.loads(capsys.readouterr().out)["leakage"]["findings"]
    assert ("same_product", "problem", "test", 12) in {
        (f["kind"], f["severity"], f["where"], f["count"]) for f in findings
    }
    assert run(["check", str(leaking), "--split", split]) == 0
    assert "whose name and type train or validation holds too" in " ".join(capsys.readouterr().out.split())
    assert run(["check", str(leaking), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["leakage"] is None
