"""Two processes on the CPU train as one does, write one run folder, end together, and go on in any number."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from shelfwise.classifier import Classifier
from shelfwise.config import dump, parse
from shelfwise.errors import InterruptedRunError
from shelfwise.modeling import checkpoint
from shelfwise.pipelines.run import Hooks
from shelfwise.pipelines.train import train
from support import together
from support.runs import write_base_model, write_catalogue

pytestmark = pytest.mark.slow
NAMES = ["Coconut hair oil 3 kg", "Basmati long grain", "A thing never seen before"]
SRC = Path(together.__file__).parents[2] / "src"
# name: (architecture, method, objective, how the model stands on the processes, dropout, passes over bare names)
WAYS = {
    "full, head": ("llama", "full", "head", "auto"),
    "full, completion": ("falcon", "full", "completion", "auto"),
    "lora, head": ("llama", "lora", "head", "auto"),
    "lora, completion": ("falcon", "lora", "completion", "auto"),
    "lora in pieces, head": ("falcon", "lora", "head", "fsdp"),
    "lora in pieces, completion": ("llama", "lora", "completion", "fsdp"),
    "full and whole, head": ("falcon", "full", "head", "ddp"),
    "qlora, head": ("llama", "qlora", "head", "auto"),
    "full, names first": ("llama", "full", "head", "auto", 0.0, 1),
    "lora, names first": ("falcon", "lora", "head", "auto", 0.0, 1),
}


def launch(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run two processes; they never outlive the test."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{SRC}{os.pathsep}{SRC.parent / 'tests'}"}
    with subprocess.Popen(
        command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as launcher:
        try:
            out, err = launcher.communicate(timeout=240)
        except subprocess.TimeoutExpired:
            launcher.terminate()  # it ends its processes before itself
            launcher.communicate()
            raise
    return subprocess.CompletedProcess(command, launcher.returncode, out, err)


@pytest.fixture(scope="module")
def config_of(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    catalogue = write_catalogue(folder / "catalogue.csv")
    # 85 rows train: 5 steps of 16 and one of 5, in which the second process is once left without a row.
    catalogue.write_text("".join(catalogue.read_text().splitlines(keepends=True)[:119]))
    bases = {name: str(write_base_model(name, folder / name)) for name in ("llama", "falcon")}

    def config(architecture, method, objective, parallel, dropout=0.0, names=0):
        return {
            "catalogue": str(catalogue),
            "model": bases[architecture],
            "method": method,
            "objective": objective,
            "lora": {"r": 4, "dropout": dropout},
            "baseline": False,
            "training": {
                "parallel": parallel,
                "epochs": 1,
                "pretraining_epochs": names,
                "batch_size": 16,
                "micro_batch_size": 2,
                "learning_rate": 5e-3,
                "precision": "fp32",
                "dropout": dropout,
                "evaluations_per_epoch": 2,
            },
        }

    return config


def alone(config, out, stop_at=None):
    """Train in this process, until a step or to the end."""

    def report(progress):
        if progress.step == stop_at:
            together.terminate()

    try:
        train(parse(config, "test"), out, device="cpu", hooks=Hooks(report=report))
    except InterruptedRunError:
        assert stop_at


@pytest.fixture(scope="module")
def runs(config_of, tmp_path_factory):
    """Every way of training by one process and by two, and runs that begin in one number and are to end in another."""
    folder = tmp_path_factory.mktemp("runs")
    jobs = []

    def by_two(name, config, resume=False, stop_at=None):
        jobs.append({"out": str(folder / name), "config": config, "resume": resume, "stop_at": stop_at})

    for way, values in WAYS.items():
        alone(config_of(*values), folder / f"{way}, by one")
        by_two(f"{way}, by two", config_of(*values))
    for way in ("full, head", "lora, completion"):
        alone(config_of(*WAYS[way]), folder / f"{way}, one then two", stop_at=2)
        by_two(f"{way}, one then two", None, resume=True)
        by_two(f"{way}, two then one", config_of(*WAYS[way]), stop_at=2)
    dropout = config_of("llama", "lora", "head", "auto", dropout=0.1)
    by_two("dropout", dropout)
    by_two("dropout, broken", dropout, stop_at=4)
    by_two("dropout, broken", None, resume=True)
    (folder / "runs.json").write_text(json.dumps(jobs))
    finished = launch(together.__file__, str(folder / "runs.json"))
    assert finished.returncode == 0, finished.stderr[-6000:]
    return folder


def measured(run: Path) -> dict[tuple[int, str], float]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    wanted = ("loss", "grad_norm", "eval_loss", "eval_accuracy", "eval_macro_f1", "pretraining_loss")
    pairs = [((line["step"], key), line[key]) for line in lines for key in wanted if key in line]
    assert len(pairs) == len(dict(pairs)), "a step was reported twice"
    return dict(pairs)


def assert_alike(run: Path, other: Path) -> None:
    values, others = measured(run), measured(other)
    assert {key for step, key in values} >= {"loss", "grad_norm", "eval_loss"}
    assert others == pytest.approx(values, rel=1e-4)
    answers, other_answers = (Classifier.load(each).log_probs(NAMES) for each in (run, other))
    np.testing.assert_allclose(other_answers, answers, atol=1e-3)


def format_of(run: Path) -> dict[str, object]:
    """Files of a run, and the name, shape and dtype of every tensor in them."""
    files: dict[str, object] = {}
    for path in sorted(run.rglob("*")):
        files[path.relative_to(run).as_posix()] = None
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                parts = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
                files[path.relative_to(run).as_posix()] = {
                    name: (part.get_shape(), part.get_dtype()) for name, part in parts.items()
                }
    return files


@pytest.mark.parametrize("way", WAYS)
def test_two_processes_have_the_losses_of_one_and_leave_the_same_run_folder(way, runs):
    one, two = runs / f"{way}, by one", runs / f"{way}, by two"
    assert_alike(one, two)
    assert format_of(one) == format_of(two)
    assert not list(two.rglob("*.partial"))
    assert any("pretraining" in key for _, key in measured(two)) == ("names first" in way)


@pytest.mark.parametrize("way", ["full, head", "lora, completion"])
def test_a_checkpoint_of_one_process_goes_on_in_two(way, runs):
    assert_alike(runs / f"{way}, by one", runs / f"{way}, one then two")


@pytest.mark.parametrize("way", ["full, head", "lora, completion"])
def test_a_signal_to_one_process_ends_both_with_a_checkpoint_that_goes_on_in_one(way, runs):
    broken = runs / f"{way}, two then one"
    kept = checkpoint.latest(broken / "checkpoints")
    assert kept is not None
    assert kept.name == "checkpoint-3"
    train(None, broken, resume=True, device="cpu")
    assert_alike(runs / f"{way}, by one", broken)


def test_a_broken_run_with_dropout_goes_on_as_if_it_had_never_stopped(runs):
    assert measured(runs / "dropout, broken") == measured(runs / "dropout")


def test_the_command_runs_under_torchrun_and_one_process_speaks(config_of, tmp_path):
    (tmp_path / "run.yaml").write_text(dump(parse(config_of(*WAYS["full, head"]), "test")))
    finished = launch(
        *("-m", "shelfwise", "train", "--config", str(tmp_path / "run.yaml"), "--device", "cpu"),
        *("--out", str(tmp_path / "run")),
    )
    assert finished.returncode == 0, finished.stderr[-6000:]
    assert finished.stdout.count("Run folder:") == 1
    assert finished.stderr.count("products to train on") == 1
    assert finished.stderr.count("2 processes, cut into pieces (FSDP2)") == 1
    assert finished.stderr.count("step 3: validation") == 1


def test_one_process_that_fails_ends_the_other_and_says_why_once(config_of, tmp_path):
    (tmp_path / "run.yaml").write_text(dump(parse(config_of(*WAYS["lora, head"]), "test")))
    finished = launch(
        *(together.__file__, "--fail-at", "2", "train", "--config", str(tmp_path / "run.yaml"), "--device", "cpu"),
        *("--out", str(tmp_path / "run")),
    )
    assert finished.returncode != 0
    assert finished.stderr.count("error: ") == 1
    assert finished.stderr.count("error: the second process has failed") == 1
    assert finished.stderr.count("Traceback") == 1, "torchrun's own, and none of ours"
    assert "Run folder" not in finished.stdout
