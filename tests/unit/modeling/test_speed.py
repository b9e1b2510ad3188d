"""Time estimates: names of GPUs, operations a token, and shares that were measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from shelfwise.errors import InputError
from shelfwise.modeling import published
from shelfwise.modeling.backbone import model_class
from shelfwise.modeling.memory import Shape
from shelfwise.modeling.speed import GPUS, find_gpu, operations_per_token, require_gpu, tokens_per_second

RESULTS = Path(__file__).resolve().parents[3] / "benchmarks" / "results"
SHAPES = {name: Shape.of(published.config_of(name), model_class("head")) for name in ("llama2-7b", "falcon-7b")}


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("h200", "H200"),
        ("NVIDIA A100-SXM4-80GB", "A100-80GB"),
        ("NVIDIA A100-SXM4-40GB", "A100-40GB"),
        ("a100", "A100-40GB"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("rtx4090", "RTX 4090"),
        ("NVIDIA A10G", "A10G"),
        ("NVIDIA A10", "A10"),
        ("Tesla T4", "T4"),
    ],
)
def test_a_gpu_is_known_as_users_and_drivers_write_it(written, name):
    assert find_gpu(written) is GPUS[name]


@pytest.mark.parametrize("name", ["V100", "", "A1000", "NVIDIA T400", "RTX 40900"])
def test_a_gpu_that_is_not_in_the_table_is_none_of_those_in_it(name):
    assert find_gpu(name) is None
    with pytest.raises(InputError, match="--gpu-memory 24GiB"):
        require_gpu(name)


def test_operations_a_token_give_the_bounds_that_were_reckoned_by_hand():
    llama = SHAPES["llama2-7b"]
    assert 790e12 / operations_per_token(llama, "lora") == pytest.approx(30_500, rel=0.02)
    assert 790e12 / operations_per_token(llama, "full") == pytest.approx(20_300, rel=0.01)
    assert operations_per_token(llama, "full", checkpointing=True) == 8 * llama.linear_parameters


def test_rates_of_the_padded_path_are_those_measured_on_an_h100():
    rows = [
        row
        for name in ("true_size_adapters", "true_size_full")
        for row in json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))["rows"]
        if "error" not in row
    ]
    assert len(rows) >= 6
    for row in rows:
        shape = SHAPES[row["model"].split()[0]]
        found = tokens_per_second(shape, row["method"], GPUS["H100"], checkpointing=row["gradient_checkpointing"])
        assert found == pytest.approx(row["tokens_per_s"], rel=0.15), row


def test_rates_without_padding_are_the_slower_model_s_on_an_h100():
    for method in ("full", "lora", "qlora"):
        shares = []
        for model in SHAPES:
            name = {"llama2-7b": "llama", "falcon-7b": "falcon"}[model]
            rows = json.loads((RESULTS / f"training_speed_{name}.json").read_text(encoding="utf-8"))["rows"]
            (row,) = (row for row in rows if row["setting"] == method)
            told = tokens_per_second(SHAPES[model], method, GPUS["H100"], path="packed")
            assert told is not None
            shares.append(row["tokens_per_s"] / told)
        assert min(shares) == pytest.approx(1, abs=0.05)


def test_a_gpu_without_a_measurement_reaches_the_share_of_its_peak_that_an_h100_does():
    assert GPUS["H100"].ceiling == 790e12
    assert GPUS["A100-40GB"].ceiling == pytest.approx(312e12 * 790 / 989)
