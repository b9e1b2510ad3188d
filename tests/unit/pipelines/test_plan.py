"""The plan of a run: no weights, no network, every method, and what would fit."""

from __future__ import annotations

import json
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from shelfwise.cli import run
from shelfwise.config import TrainConfig, parse
from shelfwise.errors import ConfigError, InputError, ModelAccessError, ModelNotFoundError
from shelfwise.modeling.memory import GIB
from shelfwise.pipelines.plan import Plan, parse_memory, plan
from support.runs import write_base_model, write_catalogue


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the network was asked for")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def config(**values: Any) -> TrainConfig:
    training = values.pop("training", {})
    return parse({"model": "llama2-7b", **values, "training": training}, "test")


def ways(found: Plan) -> set[tuple[str, str, bool]]:
    return {(way.method, way.optimizer, way.gradient_checkpointing) for way in found.ways}


@pytest.mark.parametrize("model", ["llama2-7b", "falcon-7b", "smollm2-135m"])
def test_a_registry_model_is_planned_by_every_method_without_any_file_of_it(model: str) -> None:
    found = plan(config(model=model), gpu="H100")
    assert {method for method, _, _ in ways(found)} == {"full", "lora", "qlora"}
    assert len(ways(found)) == len(found.ways) == 8
    assert sum(way.chosen for way in found.ways) == 1
    for way in found.ways:
        parts = way.weights_gib + way.gradients_gib + way.optimizer_gib + way.activations_gib
        assert way.peak_gib == pytest.approx(parts, abs=0.03)
        assert way.fits == (way.peak_gib <= found.usable_gib)
        assert way.tokens_per_s is not None
        assert way.seconds == pytest.approx(10_000 * found.rows.mean / way.tokens_per_s, abs=0.06)


def test_a_built_in_model_is_trained_in_full_alone() -> None:
    assert {method for method, _, _ in ways(plan(config(model="tiny-falcon"), gpu="T4"))} == {"full"}
    with pytest.raises(ConfigError, match="tiny-llama starts from fresh weights"):
        plan(config(model="tiny-llama", method="lora"), gpu="T4")


def test_a_wish_that_does_not_fit_is_answered_by_what_does() -> None:
    found = plan(config(method="lora", training={"micro_batch_size": 128}), gpu_memory=8 * GIB)
    assert {way.method for way in found.ways} == {"lora"}
    assert not any(way.fits for way in found.ways)
    (sentence,) = found.advice
    assert sentence.startswith("LoRA with gradient checkpointing at a micro-batch of 128 needs about 1")
    assert "does not fit. QLoRA with gradient checkpointing at a micro-batch of" in sentence
    assert all(way.seconds is None for way in found.ways)


def test_a_smaller_micro_batch_of_the_same_method_is_named_before_another_method() -> None:
    wanted = {"micro_batch_size": 256, "gradient_checkpointing": False}
    (sentence,) = plan(config(method="lora", training=wanted), gpu="A10").advice
    assert sentence.startswith("LoRA at a micro-batch of 256 needs about")
    assert "does not fit. LoRA " in sentence


def test_when_nothing_fits_the_least_is_told() -> None:
    (sentence,) = plan(config(), gpu_memory=2 * GIB).advice
    assert "Nothing does: the least of all, QLoRA with gradient checkpointing at a micro-batch of 1, needs" in sentence


def test_methods_out_of_reach_are_named_beside_what_train_would_do() -> None:
    first, *rest = plan(config(), gpu_memory=12 * GIB).advice
    assert first.startswith("shelfwise train would take this: QLoRA")
    assert [line.split(" with ")[0] for line in rest] == ["Out of reach: Full fine-tuning", "Out of reach: LoRA"]


def test_the_plan_agrees_with_what_train_settles_on() -> None:
    from shelfwise.modeling import memory, published
    from shelfwise.modeling.backbone import model_class

    found = plan(config(method="lora"), gpu_memory=40 * GIB, row_tokens=40)
    wish = memory.Wish(
        method="lora",
        optimizer=None,
        micro_batch_size=None,
        checkpointing=None,
        batch_size=256,
        row_tokens=40,
        rank=16,
        low_precision=True,
        on_gpu=True,
        path="packed",
        mean_tokens=12.1,
        spread_tokens=5.7,
        shares=((64, 1.04), (256, 0.97), (1024, 0.91), (4096, 0.85)),
    )
    shape = memory.Shape.of(published.config_of("llama2-7b"), model_class("head"))
    choice = memory.choose(shape, wish, 40 * GIB)
    (chosen,) = (way for way in found.ways if way.chosen)
    assert (chosen.micro_batch_size, chosen.gradient_checkpointing) == (choice.micro_batch_size, choice.checkpointing)
    assert chosen.peak_gib == pytest.approx(choice.estimate.total / GIB, abs=0.01)


def test_completions_need_more_than_a_head() -> None:
    head, completion = (plan(config(objective=each), gpu="H100", row_tokens=60) for each in ("head", "completion"))
    for one, other in zip(head.ways, completion.ways, strict=True):
        assert other.peak_gib / other.micro_batch_size >= one.peak_gib / one.micro_batch_size


def test_a_catalogue_gives_the_rows_and_their_number(tmp_path: Path) -> None:
    catalogue = write_catalogue(tmp_path / "catalogue.csv")
    found = plan(config(catalogue=str(catalogue)), gpu="H100")
    assert found.products == found.rows.products == round(120 * 0.8 * 0.9)
    assert found.rows.mean < found.rows.longest < 61
    assert "reckoned" in found.rows.source


@pytest.mark.parametrize("objective", ["head", "completion"])
def test_a_folder_is_planned_by_its_own_configuration_and_tokenizer(objective: str, tmp_path: Path) -> None:
    catalogue = write_catalogue(tmp_path / "catalogue.csv")
    base = write_base_model("falcon", tmp_path / "base")
    (base / "model.safetensors").unlink()  # the weights are not needed
    found = plan(config(model=str(base), catalogue=str(catalogue), objective=objective), gpu_memory=4 * GIB)
    assert found.parameters < 1_000_000
    assert "counted" in found.rows.source


def test_a_hub_model_out_of_reach_is_told_as_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub
    from huggingface_hub import errors

    asked: list[str] = []

    def refuse(repository: str, file: str, **_: object) -> str:
        asked.append(file)
        raise errors.LocalEntryNotFoundError("offline")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)
    with pytest.raises(ModelAccessError, match="owner/name: not in the local cache"):
        plan(config(model="owner/name"), gpu="H100")
    assert asked == ["config.json"]
    with pytest.raises(ModelNotFoundError, match="Did you mean 'llama2-7b'"):
        plan(config(model="lama2-7b"), gpu="H100")


def test_a_configuration_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "clip"}), encoding="utf-8")
    with pytest.raises(ModelNotFoundError, match="not the configuration of a causal language model"):
        plan(config(model=str(tmp_path)), gpu="H100")


@pytest.mark.parametrize(
    ("text", "size"),
    [("24GiB", 24 * GIB), ("24 GB", 24 * 10**9), ("24000MB", 24 * 10**9), ("23.5 gib", int(23.5 * GIB))],
)
def test_sizes_are_read_as_people_write_them(text: str, size: int) -> None:
    assert parse_memory(text) == size


@pytest.mark.parametrize(
    "text", ["24", "", "lots", "-4GiB", "0GiB", "9e9GiB", "24TiB", "nanGB", "99999999999GiB", "1,5GB"]
)
def test_nonsense_sizes_are_refused_with_what_is_accepted(text: str) -> None:
    with pytest.raises(InputError, match="a number and its unit: GiB, GB, MiB or MB, as in 24GiB"):
        parse_memory(text)


@pytest.mark.parametrize("tokens", [0, -1, 10**9])
def test_rows_of_impossible_length_are_refused(tokens: int) -> None:
    with pytest.raises(InputError, match="--row-tokens"):
        plan(config(), gpu="H100", row_tokens=tokens)


def test_the_command_prints_all_in_eighty_columns(capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert run(["plan", "--model", "llama2-7b", "--gpu", "RTX 4090", "--row-tokens", "40"]) == 0
    out = capsys.readouterr().out
    rows = [line for line in out.splitlines() if line.startswith(("full ", "lora ", "qlora "))]
    assert len(rows) == 8
    assert all(len(line.rstrip()) <= 80 and "…" not in line for line in rows)
    assert "estimates" in out
    assert sum("does not fit" in line for line in rows) == 4


def test_the_command_prints_json_for_machines(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", "--model", "smollm2-135m", "--gpu-memory", "8 GB", "--method", "full", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["memory_gib"] == pytest.approx(7.45, abs=0.01)
    assert {way["method"] for way in found["ways"]} == {"full"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--gpu-memory", "24"], "a number and its unit"),
        (["--gpu", "V100"], "not one of H100"),
        (["--micro-batch-size", "3"], "does not divide"),
        (["--model", "nosuch"], "is no base model"),
    ],
)
def test_a_wrong_call_ends_with_status_two(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["plan", *options]) == 2
    assert message in capsys.readouterr().err


def test_on_this_machine_it_plans_with_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    from shelfwise.modeling import hardware

    monkeypatch.setattr(hardware, "free_memory", lambda _: 3 * GIB)
    found = plan(config(model="smollm2-135m"))
    assert found.memory_gib == 3.0
    assert replace(found, ways=()).notes[0].startswith("All figures are estimates")
