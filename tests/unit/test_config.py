from __future__ import annotations

import pytest

from shelfwise import config as configs
from shelfwise.errors import ConfigError


def test_every_problem_is_told_at_once_with_the_nearest_key():
    values = {"modle": "x", "training": {"learning_rat": 1e-3, "epochs": -1}, "method": "magic"}
    with pytest.raises(ConfigError) as caught:
        configs.parse(values, "run.yaml")
    message = str(caught.value)
    assert "run.yaml: modle: there is no such key. Did you mean 'model'?" in message
    assert "training.learning_rat: there is no such key. Did you mean 'learning_rate'?" in message
    assert "training.epochs:" in message
    assert "method:" in message


def test_a_dumped_configuration_is_complete_and_gives_the_same_one_again(tmp_path):
    config = configs.parse({"catalogue": "c.csv", "text_columns": "brand,product", "trackers": ["mlflow"]}, "x")
    text = configs.dump(config)
    (tmp_path / "config.yaml").write_text(text)
    assert configs.load(tmp_path / "config.yaml") == config
    assert "label_smoothing" in text
    assert config.text_columns == ("brand", "product")


@pytest.mark.parametrize("columns", ["brand", "product,product", "colour"])
def test_text_columns_must_hold_the_product_once_and_be_known(columns):
    with pytest.raises(ConfigError, match="text_columns"):
        configs.parse({"text_columns": columns}, "x")


@pytest.mark.parametrize(
    ("text", "what"), [("- a\n- b", "list"), ("a: [", "not YAML"), ("? [a]\n: b", "not YAML"), ("3", "int")]
)
def test_a_file_that_is_no_mapping_is_reported(tmp_path, text, what):
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(ConfigError, match=what):
        configs.load(tmp_path / "bad.yaml")


def test_a_missing_or_binary_file_is_reported(tmp_path):
    with pytest.raises(ConfigError, match="no such file"):
        configs.load(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="UTF-8"):
        configs.load(tmp_path / "bad.yaml")


def test_an_empty_file_is_the_defaults(tmp_path):
    (tmp_path / "empty.yaml").write_text("")
    assert configs.load(tmp_path / "empty.yaml") == configs.TrainConfig()


@pytest.mark.parametrize(("batch", "micro"), [(256, 100), (8, 16)])
def test_micro_batches_must_fill_the_batch(batch, micro):
    with pytest.raises(ConfigError, match=rf"micro_batch_size {micro} does not divide batch_size {batch}"):
        configs.parse({"training": {"batch_size": batch, "micro_batch_size": micro}}, "x")


def test_true_and_false_are_no_numbers():
    values = {"training": {"epochs": True, "batch_size": True, "weight_decay": False}, "baseline": False}
    with pytest.raises(ConfigError) as caught:
        configs.parse(values, "run.yaml")
    lines = str(caught.value).splitlines()
    assert [line.split(":")[1].strip() for line in lines] == [
        "training.epochs",
        "training.batch_size",
        "training.weight_decay",
    ]
    assert all("must not be true or false" in line for line in lines)
    assert configs.parse({"training": {"gradient_checkpointing": True}}, "x").training.gradient_checkpointing is True


@pytest.mark.parametrize("text", ["model: a\nmodel: b\n", "training:\n  epochs: 2\n  epochs: 3\n"])
def test_a_key_that_stands_twice_is_refused_with_its_line(tmp_path, text):
    (tmp_path / "twice.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"stands here a second time\n.*line [23]"):
        configs.load(tmp_path / "twice.yaml")


def test_a_folder_is_no_configuration(tmp_path):
    with pytest.raises(ConfigError, match="is a folder"):
        configs.load(tmp_path)
