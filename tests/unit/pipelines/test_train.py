from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from shelfwise import artifact, storage
from shelfwise import config as configs
from shelfwise.config import TrainConfig
from shelfwise.errors import CatalogueError, CorruptArtifactError, MissingPackageError, ModelNotFoundError, StorageError
from shelfwise.pipelines import train as pipeline
from shelfwise.pipelines.evaluate import evaluate
from shelfwise.pipelines.train import train
from support.runs import train_small, write_base_model, write_catalogue


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_catalogue(tmp_path_factory.mktemp("data") / "catalogue.csv")


@pytest.fixture(scope="module")
def tracked(catalogue: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A tiny run that logs to TensorBoard, and the folder that it was trained from."""
    here = tmp_path_factory.mktemp("here")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        patch.delenv("TENSORBOARD_LOGGING_DIR", raising=False)
        training = {"max_steps": 2, "batch_size": 48}
        train_small(catalogue, here / "run", model="tiny-llama", trackers=["tensorboard"], training=training)
    return here / "run", here


def test_tensorboard_writes_into_the_run_folder_and_nowhere_else(tracked: tuple[Path, Path]) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run, here = tracked
    assert [path.name for path in here.iterdir()] == ["run"]
    assert list((run / artifact.CHECKPOINTS).glob("runs*")) == []
    events = EventAccumulator(str(run / "trackers" / "tensorboard")).Reload()
    assert {"train/loss", "eval/macro_f1"} <= set(events.Tags()["scalars"])


def test_a_trackers_files_are_no_part_of_the_manifest(tracked: tuple[Path, Path]) -> None:
    run, _ = tracked
    assert not any(name.startswith("trackers") for name in artifact.read_manifest(run)["files"])


def test_evaluating_hashes_each_file_of_a_run_once(
    tracked: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = tracked
    hashed: list[Path] = []
    real = storage.sha256

    def sha256(path: Path) -> str:
        hashed.append(path)
        return real(path)

    monkeypatch.setattr(storage, "sha256", sha256)
    found = evaluate(run, out=tmp_path / "evaluation", device="cpu")
    assert [standing.kind for standing in found.standings] == ["majority", "baseline", "model", "blend"]
    assert run / artifact.MODEL / "model.safetensors" in hashed
    assert len(hashed) == len(set(hashed))


@pytest.mark.parametrize("tracker", ["mlflow", "wandb"])
def test_a_missing_tracker_is_told_before_anything_is_read(
    tracker: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    config = TrainConfig(catalogue=tmp_path / "nowhere.csv", trackers=(tracker,))
    with pytest.raises(MissingPackageError, match=rf"^trackers: {tracker}: .*pip install 'shelfwise\[{tracker}\]'"):
        train(config, tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_full_from_the_start_leaves_nothing_and_the_call_can_be_repeated(
    catalogue: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(target: Path, _: str) -> None:
        raise StorageError(f"{target}: the disk is full.")

    with monkeypatch.context() as patch:
        patch.setattr(artifact, "write_text", refuse)
        with pytest.raises(StorageError, match=r"config\.yaml: the disk is full\.$"):
            train_small(catalogue, tmp_path / "run", model="baseline")
    assert list(tmp_path.iterdir()) == []
    train_small(catalogue, tmp_path / "run", model="baseline")
    artifact.read_manifest(tmp_path / "run")


def test_a_base_model_that_can_not_be_loaded_leaves_no_run_behind(catalogue: Path, tmp_path: Path) -> None:
    weights = write_base_model("falcon", tmp_path / "base") / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:999])
    with pytest.raises(CorruptArtifactError, match="base: no model that transformers can load"):
        train_small(catalogue, tmp_path / "run", model=str(tmp_path / "base"), method="full")
    assert [path.name for path in tmp_path.iterdir()] == ["base"]


def stopped(catalogue: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that ends before its baseline is fitted."""

    def fail(*_: object) -> None:
        raise StorageError("the disk is full.")

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "_fit_baseline", fail)
        with pytest.raises(StorageError, match=rf"the disk is full\. Then go on with: .* --resume --out {out}"):
            train_small(catalogue, out, model="baseline")


def test_a_run_is_not_gone_on_with_on_a_catalogue_that_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalogue = write_catalogue(tmp_path / "catalogue.csv")
    stopped(catalogue, tmp_path / "run", monkeypatch)
    begun = (tmp_path / "run" / artifact.CONFIG).read_text(encoding="utf-8")
    lines = catalogue.read_text(encoding="utf-8").splitlines()
    catalogue.write_text("\n".join([*lines, lines[-1]]) + "\n", encoding="utf-8")
    with pytest.raises(CatalogueError, match="made from another catalogue"):
        train(None, tmp_path / "run", resume=True)
    catalogue.write_text("\n".join(lines) + "\n", encoding="utf-8")
    train(None, tmp_path / "run", resume=True)
    assert (tmp_path / "run" / artifact.CONFIG).read_text(encoding="utf-8") == begun


def test_a_run_remembers_whole_paths(catalogue: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(catalogue.parent)
    train_small(Path(catalogue.name), tmp_path / "one", model="baseline")
    (tmp_path / "base").mkdir()
    monkeypatch.chdir(tmp_path)
    assert configs.load(tmp_path / "one" / artifact.CONFIG).catalogue == catalogue
    wanted = configs.parse({"model": "base", "split": {"file": "one/split.json"}}, "test")
    whole = pipeline._settle(wanted, tmp_path / "two", resume=False)
    assert whole.model == str(tmp_path / "base")
    assert whole.split.file == tmp_path / "one" / "split.json"


def test_a_misspelt_base_model_is_refused_before_the_catalogue_is_read(tmp_path):
    config = configs.parse({"catalogue": str(tmp_path / "none.csv"), "model": "tiny-lama"}, "test")
    with pytest.raises(ModelNotFoundError, match="Did you mean 'tiny-llama'"):
        train(config, tmp_path / "run")
