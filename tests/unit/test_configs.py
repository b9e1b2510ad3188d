"""Every recipe in configs/ loads, names a known base model, and says how it is run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from shelfwise import config as configs
from shelfwise.config import TrainConfig
from shelfwise.modeling.registry import MODELS
from shelfwise.pipelines import demo

ROOT = Path(__file__).resolve().parents[2]
RECIPES = sorted((ROOT / "configs").glob("*.yaml"))
SEVEN_BILLION = [path for path in RECIPES if "-7b-" in path.name]


def header(path: Path) -> str:
    lines = path.read_text(encoding="utf-8").splitlines()
    return "\n".join(line for line in lines[: lines.index("")])


def keys(values: object, prefix: str = "") -> set[str]:
    if not isinstance(values, dict):
        return {prefix}
    return set().union(*(keys(value, f"{prefix}.{key}") for key, value in values.items()))


def test_the_recipes_were_found():
    assert len(RECIPES) >= 12
    names = {path.stem for path in RECIPES}
    sevens = {f"{model}-{method}" for model in ("llama2-7b", "falcon-7b") for method in ("lora", "qlora", "full")}
    assert {"default", "tiny-llama", "tiny-falcon", *sevens} <= names


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_loads_and_its_header_runs_it(path):
    config = configs.load(path)
    assert config.model in (*MODELS, "auto")
    words = header(path)
    assert all(line.startswith("#") for line in words.splitlines())
    assert re.search(r"shelfwise train\b", words)
    assert f"--config configs/{path.name}" in words
    assert "--out runs/" in words
    assert ("shelfwise train --config" in words) == (config.catalogue is not None), "it must name a catalogue"


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_what_its_name_says(path):
    config = configs.load(path)
    if path.stem == "default":
        return
    assert path.stem.startswith(config.model)
    ending = path.stem.removeprefix(config.model).lstrip("-")
    assert ending in ("", config.method, config.objective)


def test_the_default_recipe_holds_every_key_with_its_default():
    path = ROOT / "configs" / "default.yaml"
    assert configs.load(path) == TrainConfig()
    assert keys(yaml.safe_load(path.read_text(encoding="utf-8"))) == keys(TrainConfig().model_dump(mode="json"))


def test_every_key_of_the_default_recipe_has_a_comment():
    lines = (ROOT / "configs" / "default.yaml").read_text(encoding="utf-8").splitlines()
    roles = set(TrainConfig().columns.model_dump())  # explained together, by the comment on their section
    settings = [line for line in lines if re.match(r"\s*\w+: ?\S", line) and line.split(":")[0].strip() not in roles]
    assert len(settings) > 30
    assert [line for line in settings if "  # " not in line] == []


@pytest.mark.parametrize("path", SEVEN_BILLION, ids=lambda path: path.stem)
def test_the_recipes_of_seven_billion_say_that_their_weights_were_random(path):
    config = configs.load(path)
    full = config.method == "full"
    assert "RANDOM weights" in header(path)
    assert config.training.learning_rate == MODELS[config.model].learning_rates[config.method]
    assert config.training.optimizer == ("adamw_bf16" if full else "adamw")
    assert config.training.layer_decay == (0.9 if full else 1.0)


@pytest.mark.parametrize("model", demo.MODELS)
def test_the_tiny_recipes_are_what_the_demo_trains(model):
    config = configs.load(ROOT / "configs" / f"{model}.yaml")
    assert (config.training.epochs, config.training.batch_size) == (demo.EPOCHS, demo.BATCH)
    assert config.training.learning_rate == MODELS[model].learning_rates["full"]
    assert config.catalogue is not None
    assert (ROOT / config.catalogue).is_file()
