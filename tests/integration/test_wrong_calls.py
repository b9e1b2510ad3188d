"""Wrong calls, from the command line: one message of at most a screen, the right exit status, nothing half-written."""

from __future__ import annotations

import errno
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import pyarrow as pa
import pytest
import torch
from huggingface_hub import errors as hub
from pyarrow import parquet
from safetensors import SafetensorError
from transformers import PreTrainedModel

from shelfwise import artifact, cli
from shelfwise.modeling.trainer import ShelfwiseTrainer
from support.runs import train_small, write_base_model, write_catalogue

SCREEN = 15  # lines
TINY = [
    "--model",
    "tiny-falcon",
    "--max-steps",
    "4",
    "--batch-size",
    "32",
    "--learning-rate",
    "0.005",
    "--device",
    "cpu",
]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """A model this small trains several times faster on one thread than on two that wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a good catalogue, a finished run, and one of each thing that can be wrong."""
    shop = tmp_path_factory.mktemp("shop")
    catalogue = write_catalogue(shop / "good.csv")
    texts = {
        "empty.csv": "",
        "header.csv": "product,type\n",
        "no-types.csv": "product,brand\nBasmati rice,Amber\n",
        "empty-types.csv": "product,type\nBasmati rice,\nHair oil,\n",
        "one-type.csv": "product,type\nBasmati rice,Rice\nBrown rice,Rice\n",
        "long.csv": f"product,type\n{'x' * 200_000},Rice\n",
        "unknown-key.yaml": "model: tiny-llama\ntraining:\n  learning_rat: 0.001\n",
        "impossible.yaml": "model: tiny-llama\ntraining:\n  epochs: -1\n  precision: int8\n",
        "not-yaml.yaml": "model: [\n",
    }
    for name, text in texts.items():
        (shop / name).write_text(text, encoding="utf-8")
    (shop / "latin.csv").write_bytes("product,type\nrice,Rice\nCrème brûlée,Dessert\n".encode("latin-1"))
    parquet.write_table(pa.table({"product": ["rice"], "type": ["Rice"]}), shop / "parquet.csv")
    train_small(catalogue, shop / "run", model="baseline")
    shutil.copytree(shop / "run", shop / "damaged")
    labels = shop / "damaged" / artifact.LABELS
    labels.write_text(labels.read_text(encoding="utf-8").replace("Rice Flour", "Rice Fl0ur"), encoding="utf-8")
    shutil.copytree(shop / "run", shop / "unfinished")
    (shop / "unfinished" / artifact.MANIFEST).unlink()
    weights = write_base_model("llama", shop / "cut-off-model") / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5_000])
    return shop


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    """Everything below a folder, hidden files too, with size and time of change."""
    return {str(p.relative_to(folder)): (p.stat().st_size, p.stat().st_mtime_ns) for p in sorted(folder.rglob("*"))}


def gated(monkeypatch: pytest.MonkeyPatch) -> None:
    response: Any = type("Response", (), {"headers": {}, "status_code": 403, "request": None})()
    _hub_raises(monkeypatch, hub.GatedRepoError("gated", response=response))


def unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    _hub_raises(monkeypatch, hub.LocalEntryNotFoundError("no network"))


def _hub_raises(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def snapshot_download(*_: object, **__: object) -> str:
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)


def without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")


def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def fsync(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fsync)


def case(name: str, words: str, status: int, *fragments: str, world: Any = None) -> Any:
    """One line of the table: a command, its exit status, what its message must hold, and what the world does."""
    return pytest.param(words, status, fragments, world, id=name)


WRONG_CALLS = [
    # The catalogue
    case("missing file", "train goood.csv --out new", 2, "goood.csv: there is no such file. Did you mean 'good.csv'?"),
    case("folder for a file", "train run --out new", 2, "run: this is a folder. Name a file in it."),
    case("unknown column", "train good.csv --type typ --out new", 2, "no column 'typ' (--type). Did you mean 'type'?"),
    case("empty file", "train empty.csv --out new", 2, "empty.csv: the file is empty (0 bytes)"),
    case("header only", "train header.csv --out new", 2, "header.csv: a header and no rows"),
    case("no column of types", "train no-types.csv --out new", 2, "no-types.csv: no column", "--type COLUMN"),
    case("no type in any row", "train empty-types.csv --out new", 2, "column 'type' is empty in every row", "--type"),
    case("one single type", "train one-type.csv --out new", 2, "all 2 products have the same inventory type, 'Rice'"),
    case("Parquet named .csv", "train parquet.csv --out new", 2, "this is a Parquet file", "parquet.parquet"),
    case("latin-1", "train latin.csv --out new", 2, "latin.csv:3: byte 3", "not UTF-8", "iconv -f WINDOWS-1252"),
    case("200,000 characters", "train long.csv --out new", 2, "no usable row", "long.csv:2: ", "more than 100,000"),
    case("no catalogue", "train --model tiny-llama --out new", 2, "There is no catalogue"),
    case("not a split", "train good.csv --split old.json --out new", 2, "old.json: there is no such split"),
    # The configuration
    case("unknown key", "train good.csv --config unknown-key.yaml --out new", 2,
         "unknown-key.yaml: training.learning_rat: there is no such key. Did you mean 'learning_rate'?"),
    case("impossible values", "train good.csv --config impossible.yaml --out new", 2,
         "impossible.yaml: training.epochs: Input should be greater than 0 (got -1)", "training.precision: ", "'int8'"),
    case("no YAML", "train good.csv --config not-yaml.yaml --out new", 2, "not-yaml.yaml: not YAML"),
    case("no such configuration", "train good.csv --config no.yaml --out new", 2, "no.yaml: there is no such file"),
    case("endless epochs", "train good.csv --epochs inf --out new", 2, "training.epochs", "finite"),
    case("unknown text column", "train good.csv --text-columns colour,product --out new", 2, "text_columns", "colour"),
    case("text without the name", "train good.csv --text-columns brand --out new", 2, "must hold 'product'"),
    case("seed that is no number", "train good.csv --seed abc --out new", 2, "'--seed'", "integer"),
    case("unknown tracker", "train good.csv --tracker excel --out new", 2, "'--tracker'", "tensorboard"),
    case("a method of a baseline", "train good.csv --model baseline --method lora --out new", 2, "--method", "--model"),
    case("no run folder named", "train good.csv", 2, "--out"),
    # The base model
    case("unknown model", "train good.csv --model falcon7b --out new", 2, "'falcon7b' is no", "mean 'falcon-7b'?"),
    case("gated model", "train good.csv --model llama2-7b --out new", 2, "accept its licence", "hf auth login",
         "--model NousResearch/Llama-2-7b-hf", world=gated),
    case("hub out of reach", "train good.csv --model falcon-7b --out new", 2, "falcon-7b: not in the local cache",
         world=unreachable),
    case("damaged weights", "train good.csv --model cut-off-model --method full --out new", 1, "-model: no model"),
    case("adapter on fresh weights", "train good.csv --model tiny-llama --method lora --out new", 2, "--method full"),
    case("no CUDA here", "train good.csv --model tiny-llama --device cuda --out new", 2, "--device cuda: not to be had",
         "'auto' or 'cpu'", world=without_cuda),
    # The run folder
    case("train over a run", "train good.csv --out run", 2, "run: holds a finished run", "--out"),
    case("train over a begun run", "train good.csv --out unfinished", 2, "holds an unfinished run", "--resume"),
    case("train into a full folder", "train good.csv --out .", 2, "exists and is not empty", "--out"),
    case("resume nothing", "train --resume --out new", 2, "new: there is no run to resume"),
    case("resume with options", "train --resume --seed 1 --out unfinished", 2, "keeps its own configuration"),
    case("evaluate no run", "evaluate cut-off-model", 2, "cut-off-model: not a run folder", "manifest.json"),
    case("evaluate nothing", "evaluate nowhere", 2, "nowhere: there is no such run folder"),
    case("evaluate a begun run", "evaluate unfinished", 2, "did not end", "train --resume --out unfinished"),
    case("evaluate a damaged run", "evaluate damaged", 1, "labels.json", "Copy"),
    case("compare one run", "compare run", 2, "two different run folders"),
    case("compare before evaluating", "compare run damaged", 2, "not been evaluated", "shelfwise evaluate run"),
    case("predict over the input", "predict run good.csv --force --out good.csv", 2, "overwrite its own input"),
    case("predict to no format", "predict run good.csv --out out.doc", 2, "out.doc: '.doc' is no format", ".parquet"),
    case("predict by a begun run", "predict unfinished good.csv --out out.csv", 2, "did not end", "--resume"),
    case("predict by the model of a baseline", "predict run good.csv --classifier model --out out.csv", 2,
         "run: this run is a baseline and has no language model. Ask its baseline"),
    case("predict by a damaged run", "predict damaged good.csv --out out.csv", 1, "labels.json: changed", "Copy"),
    # The disk
    case("full disk: train", "train good.csv --model baseline --out new", 1, "new/labels.json: the disk is full",
         world=full_disk),
    case("full disk: evaluate", "evaluate run", 1, "run/evaluation/", "the disk is full", world=full_disk),
    case("full disk: predict", "predict run good.csv --out out.csv", 1, "out.csv: the disk is full", world=full_disk),
    case("full disk: split", "split good.csv --out .", 1, "split.json: the disk is full", world=full_disk),
]  # fmt: skip


@pytest.mark.parametrize(("words", "status", "fragments", "world"), WRONG_CALLS)
def test_a_wrong_call_is_one_message_and_writes_nothing(
    words: str,
    status: int,
    fragments: tuple[str, ...],
    world: Any,
    shop: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(shop)
    if world is not None:
        world(monkeypatch)
    before = tree(shop)
    assert cli.run(words.split()) == status
    said = capsys.readouterr()
    message = said.err
    assert all(fragment in message for fragment in fragments), message
    assert "Traceback" not in message
    assert len((said.out + message).splitlines()) <= SCREEN
    assert message.count("error") <= 2
    assert {name: facts for name, facts in tree(shop).items() if name not in before} == {}
    assert {name: facts for name, facts in tree(shop).items() if not (shop / name).is_dir()} == {
        name: facts for name, facts in before.items() if not (shop / name).is_dir()
    }


def test_a_row_with_an_oversize_field_is_rejected_and_told_and_the_others_train(
    shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mixed.csv"
    path.write_text((shop / "good.csv").read_text(encoding="utf-8") + f"{'x' * 200_000},a,b,c,Rice\n", encoding="utf-8")
    assert cli.run(["train", str(path), "--model", "baseline", "--out", str(tmp_path / "run")]) == 0
    told = capsys.readouterr().err
    assert "1 of 121 rows can't be used, the first mixed.csv:122: " in told
    assert f"shelfwise check {path}" in told


@pytest.fixture(scope="module")
def unbroken(shop: Path) -> Path:
    """A run of the tiny model that nothing happened to."""
    assert cli.run(["train", str(shop / "good.csv"), *TINY, "--out", str(shop / "unbroken")]) == 0
    return shop / "unbroken"


@pytest.mark.parametrize(
    ("file", "words"),
    [
        pytest.param("model", "I/O error: No space left on device (os error 28)", id="last weights, safetensors 0.8"),
        pytest.param("checkpoint-3", "IoError(Os { code: 28, kind: Full })", id="a checkpoint, safetensors 0.5"),
    ],
)
def test_a_disk_that_fills_while_weights_are_saved_leaves_a_run_that_can_be_gone_on_with(
    file: str,
    words: str,
    unbroken: Path,
    shop: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    save = PreTrainedModel.save_pretrained

    def save_pretrained(model: Any, folder: Path, **options: Any) -> None:
        save(model, folder, **options)
        if folder.name.startswith(f".{file}."):
            (folder / "model.safetensors").write_bytes(b"half")
            raise SafetensorError(f"Error while serializing: {words}")

    run = tmp_path / "run"
    with monkeypatch.context() as patched:
        patched.setattr(PreTrainedModel, "save_pretrained", save_pretrained)
        assert cli.run(["train", str(shop / "good.csv"), *TINY, "--out", str(run)]) == 1
    message = capsys.readouterr().err
    assert f"/{file}: the disk is full" in message
    assert f"shelfwise train --resume --out {run}" in message
    assert "Traceback" not in message
    assert not (run / artifact.MANIFEST).exists()
    assert not (run / artifact.MODEL).exists()
    assert list(run.rglob(".*")) == []
    assert cli.run(["train", "--resume", "--out", str(run)]) == 0
    weights = [folder / artifact.MODEL / "model.safetensors" for folder in (run, unbroken)]
    assert artifact.sha256(weights[0]) == artifact.sha256(weights[1])


@pytest.mark.parametrize(
    ("times", "said"), [(1, "Stopped. Checkpoint kept: "), (2, "Stopped at once. Checkpoints written before are kept.")]
)
def test_ctrl_c_ends_training_with_a_message_and_a_run_that_can_be_gone_on_with(
    times: int,
    said: str,
    shop: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    step = ShelfwiseTrainer.training_step

    def training_step(trainer: ShelfwiseTrainer, *arguments: Any) -> Any:
        if trainer.state.global_step == 1:
            for _ in range(times):
                os.kill(os.getpid(), signal.SIGINT)
        return step(trainer, *arguments)

    run = tmp_path / "run"
    with monkeypatch.context() as patched:
        patched.setattr(ShelfwiseTrainer, "training_step", training_step)
        assert cli.run(["train", str(shop / "good.csv"), *TINY, "--out", str(run)]) == 1
    message = capsys.readouterr().err
    assert f"error: {said}" in message
    assert f"Go on with: shelfwise train --resume --out {run}" in message
    assert "SIGINT: stopping after this step" in message
    assert not (run / artifact.MANIFEST).exists()
    assert cli.run(["train", "--resume", "--out", str(run)]) == 0
    assert artifact.read_manifest(run)["steps"] == 4


def test_ctrl_c_before_anything_was_written_says_so(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("shelfwise.pipelines.train.prepare", interrupt)
    call = ["train", str(shop / "good.csv"), "--model", "baseline", "--out", str(tmp_path / "run")]
    assert cli.run(call) == 1
    assert capsys.readouterr().err == "error: interrupted. Nothing was written under a final name.\n"
    assert list(tmp_path.iterdir()) == []
