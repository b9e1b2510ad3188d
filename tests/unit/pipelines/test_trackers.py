from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from shelfwise import artifact, cli
from shelfwise import config as configs
from shelfwise.classifier import Classifier
from shelfwise.errors import MissingPackageError, StorageError
from shelfwise.pipelines import trackers
from shelfwise.pipelines.evaluate import evaluate
from shelfwise.pipelines.evaluation import Evaluation
from shelfwise.pipelines.train import train
from support.evaluations import answering, lay_out, write_catalogue


def tracked(run: Path, *names: str, model: str = "tiny-llama") -> Path:
    """A finished run of 120 steps whose configuration names trackers."""
    lay_out(run, write_catalogue(run.parent / "products.csv"), model=model)
    config = configs.load(run / artifact.CONFIG)
    artifact.write_text(run / artifact.CONFIG, configs.dump(config.model_copy(update={"trackers": names})))
    artifact.write_manifest(run, {"steps": 120})
    return run


def measured(run: Path, **options: Any) -> tuple[Evaluation, list[str]]:
    notes: list[str] = []
    with answering():
        return evaluate(run, note=notes.append, **options), notes


@pytest.fixture(autouse=True)
def own_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TENSORBOARD_LOGGING_DIR", "MLFLOW_EXPERIMENT_NAME", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)


def test_tensorboard_gets_the_headline_numbers_at_the_runs_last_step(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = tracked(tmp_path / "run", "tensorboard")
    found, _ = measured(run)
    events = EventAccumulator(str(run / "trackers" / "tensorboard")).Reload()
    model, baseline = found.subject, found.standing("baseline")
    assert baseline is not None
    assert model.decisions is not None
    for tag, value in {
        "test/accuracy": model.scores.accuracy,
        "test/macro_f1": model.scores.macro_f1,
        "test/ece": model.scores.ece,
        "test/accepted_share": model.decisions.accepted_share,
        "test/accepted_precision": model.decisions.precision,
        "test_baseline/accuracy": baseline.scores.accuracy,
    }.items():
        (point,) = events.Scalars(tag)
        assert (point.step, point.value) == (120, pytest.approx(value))


def test_a_run_that_was_logged_is_still_whole_and_is_logged_again_beside_it(tmp_path: Path) -> None:
    run = tracked(tmp_path / "run", "tensorboard", model="baseline")
    measured(run)
    artifact.read_manifest(run)
    Classifier.load(run)
    measured(run)
    assert len(list((run / "trackers" / "tensorboard").iterdir())) == 2


def test_a_run_without_trackers_leaves_no_trace_of_one(tmp_path: Path) -> None:
    run = tracked(tmp_path / "run")
    measured(run)
    assert not (run / "trackers").exists()


def test_other_rows_and_other_folders_are_not_logged(tmp_path: Path) -> None:
    run = tracked(tmp_path / "run", "tensorboard")
    other = write_catalogue(tmp_path / "other.csv", [("Amber Neem Soap", "Beauty", "Bath", "Amber", "Soap & Bars")])
    measured(run, catalogue=other)
    measured(run, out=tmp_path / "elsewhere")
    assert not (run / "trackers").exists()


def test_a_tracker_that_is_not_installed_is_noted_and_the_others_get_their_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = trackers.importlib.util.find_spec
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda name: None if name == "mlflow" else real(name))
    run = tracked(tmp_path / "run", "mlflow", "tensorboard")
    _, notes = measured(run)
    assert [note for note in notes if "mlflow" in note] == [
        "mlflow is not installed here, so it gets no numbers: pip install 'shelfwise[mlflow]'"
    ]
    assert list((run / "trackers" / "tensorboard").iterdir())


def test_training_refuses_a_tracker_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match=r"pip install 'shelfwise\[mlflow,wandb\]'"):
        trackers.require(["mlflow", "wandb"], "trackers:")


@pytest.mark.parametrize(
    ("trackers_of_the_file", "option", "said"),
    [
        ("[mlflow]", None, "run.yaml: trackers: mlflow: this package is not installed"),
        ("[mlflow]", "wandb", "error: --tracker wandb: this package is not installed"),
        ("[mlfow]", None, "run.yaml: trackers.0: Input should be 'tensorboard', 'mlflow' or 'wandb' (got 'mlfow'). Did "
         "you mean 'mlflow'?"),
        ("mlflow", None, "run.yaml: trackers: Input should be a list, as in [a, b] (got 'mlflow')"),
    ],
)  # fmt: skip
def test_a_tracker_that_can_not_be_had_is_told_with_the_place_where_it_stands(
    trackers_of_the_file: str,
    option: str | None,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda name: None)
    monkeypatch.chdir(tmp_path)
    Path("run.yaml").write_text(f"model: tiny-llama\ntrackers: {trackers_of_the_file}\n", encoding="utf-8")
    words = ["train", "c.csv", "--config", "run.yaml", "--out", "run", *(["--tracker", option] if option else [])]
    assert cli.run(words) in (1, 2)
    assert said in capsys.readouterr().err


def test_a_resumed_run_names_its_own_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.yaml").write_text("model: tiny-llama\ntrackers: [mlflow]\n", encoding="utf-8")
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match=r"config\.yaml: trackers: mlflow: "):
        train(None, tmp_path, resume=True)


class Recorder:
    """Stands in for MLflow's and W&B's modules, and for their runs."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *_: object) -> None:
        self.calls.append(("end",))

    def set_experiment(self, name: str) -> None:
        self.calls.append(("experiment", name))

    def start_run(self, *, run_name: str) -> Recorder:
        self.calls.append(("run", run_name))
        return self

    def init(self, *, project: str, name: str) -> Recorder:
        self.calls.append(("run", project, name))
        return self

    def log_metrics(self, values: dict[str, float], *, step: int) -> None:
        self.calls.append((values["test/accuracy"], step))

    log = log_metrics


@pytest.mark.parametrize(
    ("name", "begun"),
    [("mlflow", [("experiment", "shelves"), ("run", "run")]), ("wandb", [("run", "huggingface", "run")])],
)
def test_mlflow_and_wandb_get_a_run_of_the_run_folders_name(
    name: str, begun: list[tuple[str, ...]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder()
    recorder.__spec__ = SimpleNamespace(name=name)  # type: ignore[attr-defined]  # find_spec asks for it
    monkeypatch.setitem(sys.modules, name, recorder)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "shelves")
    found, _ = measured(tracked(tmp_path / "run", name))
    assert recorder.calls == [*begun, (found.subject.scores.accuracy, 120), ("end",)]


def test_a_full_disk_is_told_as_such(tmp_path: Path) -> None:
    run = tracked(tmp_path / "run", "tensorboard", model="baseline")
    (run / "trackers").write_text("a file where the folder should be")
    with pytest.raises(StorageError, match="trackers"):
        measured(run)
