from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from pyarrow import parquet

from shelfwise.cli import run as shelfwise
from shelfwise.data.findings import Example
from shelfwise.data.leakage import Leakage, LeakageFinding
from shelfwise.modeling import hardware as devices
from shelfwise.pipelines import provenance
from shelfwise.pipelines.evaluate import evaluate
from shelfwise.pipelines.evaluation import Evaluation
from support.evaluations import lay_out, rows, write_catalogue


def finding(kind: str, where: str, severity: str = "problem", examples: int = 0) -> LeakageFinding:
    told = tuple(Example(f"c.csv:{i}", f"Soap {i} -> Soap") for i in range(examples))
    return LeakageFinding(kind, severity, where, 30, 1200, "", "", told)  # type: ignore[arg-type]


def test_the_command_of_a_report_makes_the_run_and_its_predictions_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "a folder"
    here.mkdir()
    catalogue = write_catalogue(here / "all products.csv")
    monkeypatch.chdir(here)
    train = ["train", str(catalogue), "--model", "baseline", "--strategy", "random", "--text-columns", "brand,product"]
    assert shelfwise([*train, "--out", "run"]) == 0
    first = evaluate(Path("run"), perturb=True)
    for line in first.facts.command.splitlines():
        program, *arguments = shlex.split(line)
        assert program == "shelfwise"
        assert shelfwise(arguments) == 0
    second = Evaluation.load(here / "run-again" / "evaluation")
    predictions = [parquet.read_table(found.folder / "predictions.parquet").to_pydict() for found in (first, second)]
    assert predictions[0] == predictions[1]
    assert second.subject.scores == first.subject.scores
    assert second.subject.bands == first.subject.bands
    assert second.robustness == first.robustness != ()
    assert second.facts.train_rows == first.facts.train_rows == 154


def test_the_command_names_files_and_options_and_no_folder_of_this_machine(tmp_path: Path) -> None:
    run = lay_out(tmp_path / "my run", write_catalogue(tmp_path / "products.csv"))
    other = write_catalogue(tmp_path / "other.csv", rows()[:9])
    found = evaluate(run, other, device="cpu", precision="fp32", strict=True)
    assert found.facts.command == (
        "shelfwise train products.csv --config 'my run/config.yaml' --split 'my run/split.json' --out 'my run-again'\n"
        "shelfwise evaluate 'my run-again' --catalogue other.csv --device cpu --precision fp32 --strict"
    )
    plain = evaluate(run)
    assert plain.facts.command.splitlines()[1] == "shelfwise evaluate 'my run-again'"
    assert str(tmp_path) not in (plain.folder / "report.json").read_text()


def test_the_hardware_is_the_processor_and_the_cores_that_may_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = tmp_path / "cpuinfo"
    told.write_text("processor\t: 0\nmodel name\t: Fast CPU @ 3 GHz\nprocessor\t: 1\nmodel name\t: Fast CPU @ 3 GHz\n")
    assert provenance._linux_processor(told) == "Fast CPU @ 3 GHz"
    assert provenance._linux_processor(tmp_path / "nowhere") == ""
    monkeypatch.setattr(provenance, "_linux_processor", lambda: "Fast CPU")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 5}, raising=False)
    assert provenance.hardware(None) == provenance.hardware("cpu") == "Fast CPU, 3 logical cores"


def test_the_gpu_that_answered_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "resolve_device", lambda wanted: SimpleNamespace(type="cuda"))
    monkeypatch.setattr(devices.torch.cuda, "get_device_name", lambda device: "NVIDIA H100 80GB HBM3")
    assert provenance.hardware("auto").endswith("; NVIDIA H100 80GB HBM3")
    assert "NVIDIA" not in provenance.hardware(None)


def test_naming_the_hardware_of_a_baseline_loads_no_torch() -> None:
    code = (
        "import sys; from shelfwise.pipelines import provenance as p; p.hardware(None); print('torch' in sys.modules)"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert finished.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("kind", "where", "title"),
    [
        ("same_product", "test", "test products whose name and type training or validation has too (2.5% of 1,200)"),
        ("same_product", "validation", "validation products whose name and type training has too (2.5% of 1,200)"),
        (
            "near_duplicate",
            "test",
            "test products that differ from one of training or validation in little more than a size or a word "
            "(2.5% of 1,200)",
        ),
        ("type_in_text", "sub_category", "products whose sub-category holds the words of their type (2.5% of 1,200)"),
        (
            "type_from_column",
            "brand",
            "held-out products whose type can be told from their brand alone (2.5% of 1,200)",
        ),
    ],
)
def test_each_kind_of_leakage_is_told_in_plain_words(kind: str, where: str, title: str) -> None:
    (note,) = provenance.leakage_notes(Leakage((finding(kind, where),)))
    assert (note.kind, note.count, note.title, note.serious) == (kind, 30, title, True)


def test_a_note_has_three_examples_at_most_and_says_whether_it_is_serious() -> None:
    (note,) = provenance.leakage_notes(Leakage((finding("near_duplicate", "test", "warning", examples=5),)))
    assert note.examples == tuple(f"c.csv:{i}: Soap {i} -> Soap" for i in range(3))
    assert not note.serious


def test_where_nothing_leaks_there_is_no_note() -> None:
    assert provenance.leakage_notes(Leakage()) == ()
