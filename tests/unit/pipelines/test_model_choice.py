from __future__ import annotations

from pathlib import Path

import pytest

from shelfwise import artifact, cli
from shelfwise import config as configs
from shelfwise.config import LANGUAGE_MODEL, TrainConfig, parse
from shelfwise.errors import InputError
from shelfwise.pipelines import model_choice
from shelfwise.pipelines.model_choice import with_model
from support.runs import write_catalogue


@pytest.fixture(params=[True, False], ids=["a GPU", "no GPU"])
def gpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr(model_choice, "_has_gpu", lambda device: request.param and device != "cpu")
    return bool(request.param)


def test_where_nothing_is_said_the_hardware_chooses_and_it_is_told(gpu: bool) -> None:
    notes: list[str] = []
    found = with_model(TrainConfig(), "auto", notes.append).model
    other = "baseline" if gpu else LANGUAGE_MODEL
    assert found == (LANGUAGE_MODEL if gpu else "baseline")
    assert len(notes) == 1
    assert f"--model {other}" in notes[0]
    assert with_model(TrainConfig(), "cpu", notes.append).model == "baseline"


@pytest.mark.parametrize(
    "values",
    [
        {"method": "lora"},
        {"objective": "completion"},
        {"classifier": "blend"},
        {"lora": {"r": 8}},
        {"trackers": ["tensorboard"]},
    ],
    ids=lambda values: next(iter(values)),
)
def test_what_only_a_language_model_can_do_chooses_one_without_a_word(values: dict[str, object], gpu: bool) -> None:
    notes: list[str] = []
    assert with_model(parse(values, "test"), "auto", notes.append).model == LANGUAGE_MODEL
    assert notes == []


def test_settings_of_a_training_are_not_given_to_a_baseline_that_nobody_named(gpu: bool) -> None:
    config = parse({"training": {"epochs": 3, "seed": 1}}, "test")
    if gpu:
        assert with_model(config, "auto", lambda _: None).model == LANGUAGE_MODEL
        return
    with pytest.raises(InputError, match=f"^epochs, seed: .* No model was named, .* --model {LANGUAGE_MODEL}"):
        with_model(config, "auto", pytest.fail)


def test_a_model_that_was_named_stays(gpu: bool) -> None:
    for name in ("baseline", "tiny-llama", "llama2-7b"):
        assert with_model(TrainConfig(model=name), "auto", pytest.fail).model == name


def test_the_shortest_call_there_is_trains_the_baseline_on_a_cpu_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    catalogue = write_catalogue(tmp_path / "catalogue.csv")
    run = tmp_path / "run"
    assert cli.run(["train", str(catalogue), "--out", str(run), "--device", "cpu"]) == 0
    said = capsys.readouterr()
    assert f"--model {LANGUAGE_MODEL}" in said.out + said.err
    assert configs.load(run / artifact.CONFIG).model == "baseline"
    assert artifact.read_manifest(run)["classifier"] == "baseline"
