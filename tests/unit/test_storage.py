from __future__ import annotations

import errno
import os

import pytest

from shelfwise import artifact, storage
from shelfwise.errors import CorruptArtifactError, RunFolderError, StorageError


def full_disk(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_file_appears_only_when_it_is_whole(tmp_path):
    target = tmp_path / "deep" / "a.txt"
    with storage.atomic_file(target) as stream:
        stream.write("half")
        assert not target.exists()
    assert target.read_text() == "half"


def test_a_failure_half_way_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(KeyError), storage.atomic_file(target) as stream:
        stream.write("new")
        raise KeyError
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert target.read_text() == "old"


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(StorageError, match=r"a\.json: the disk is full"):
        storage.write_json(tmp_path / "a.json", {"a": 1})
    with pytest.raises(StorageError, match="the disk is full"), storage.atomic_folder(tmp_path / "run") as staging:
        (staging / "weights").write_text("x")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_replaced_whole_or_kept(tmp_path):
    target = tmp_path / "model"
    for text in ("one", "two"):
        with storage.atomic_folder(target) as staging:
            (staging / "weights").write_text(text)
    with pytest.raises(KeyError), storage.atomic_folder(target) as staging:
        (staging / "weights").write_text("three")
        raise KeyError
    assert (target / "weights").read_text() == "two"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_number_that_is_none_is_no_json(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        storage.write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def run(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights").write_text("1234")
    (tmp_path / "evaluation").mkdir()
    (tmp_path / "evaluation" / "report.json").write_text("{}")
    artifact.write_manifest(tmp_path, {"base_model": "tiny-llama"})
    return tmp_path


def test_a_manifest_lists_every_file_but_those_that_may_change(run):
    manifest = artifact.read_manifest(run)
    assert list(manifest["files"]) == ["model/weights"]
    assert manifest["base_model"] == "tiny-llama"


@pytest.mark.parametrize("text", ["1235", "123", None])
def test_a_changed_or_missing_file_is_found(run, text):
    weights = run / "model" / "weights"
    weights.unlink() if text is None else weights.write_text(text)
    with pytest.raises(CorruptArtifactError, match="weights"):
        artifact.read_manifest(run)


DAMAGED = {
    "torn": lambda text: text[:20],
    "no object": lambda text: "[]",
    "no files": lambda text: '{"format": 1}',
    "files as a list": lambda text: '{"format": 1, "files": ["model"]}',
    "a file without its hash": lambda text: '{"format": 1, "files": {"model/weights": {"bytes": 4}}}',
    "a file that is a number": lambda text: '{"format": 1, "files": {"model/weights": 4}}',
    "a file without a name": lambda text: '{"format": 1, "files": {"": {"bytes": 4, "sha256": "a"}}}',
    "a file outside": lambda text: text.replace("model/weights", "../../etc/passwd"),
    "another size": lambda text: text.replace('"bytes": 4', '"bytes": 5'),
    "another hash": lambda text: text.replace('"sha256": "', '"sha256": "0'),
}


@pytest.mark.parametrize("damage", DAMAGED.values(), ids=DAMAGED.keys())
def test_a_damaged_manifest_is_told_with_what_to_do(damage, run):
    path = run / "manifest.json"
    path.write_text(damage(path.read_text()))
    with pytest.raises(CorruptArtifactError, match="Copy the run folder whole again, or train the run again"):
        artifact.read_manifest(run)


def test_a_manifest_that_points_outside_the_folder_is_refused(run):
    path = run / "manifest.json"
    path.write_text(path.read_text().replace("model/weights", "../../etc/passwd"))
    with pytest.raises(CorruptArtifactError, match="outside"):
        artifact.read_manifest(run)


def test_a_newer_format_is_refused_and_a_torn_manifest_reported(run):
    path = run / "manifest.json"
    whole = path.read_text()
    path.write_text(whole.replace('"format": 1', '"format": 99'))
    with pytest.raises(RunFolderError, match="newer Shelfwise"):
        artifact.read_manifest(run)
    path.write_text(whole[:20])
    with pytest.raises(CorruptArtifactError, match="manifest"):
        artifact.read_manifest(run)


def test_an_unfinished_run_says_how_to_go_on(tmp_path):
    (tmp_path / "config.yaml").touch()
    with pytest.raises(RunFolderError, match="train --resume --out"):
        artifact.read_manifest(tmp_path)
    with pytest.raises(RunFolderError, match="no such run folder"):
        artifact.read_manifest(tmp_path / "none")
