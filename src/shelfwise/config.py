"""The configuration of a run: strict, complete, and saved as it was used.

A misspelt key ends the run before any data is read; all problems are told at once. `resolve` in
`pipelines.train` fills what is ``auto`` or None here, and the run folder's `config.yaml` holds the result.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

from shelfwise.errors import ConfigError, did_you_mean

Role = Literal["product", "brand", "category", "sub_category"]
SplitStrategy = Literal["grouped", "random", "brand"]
Precision = Literal["bf16", "fp16", "fp32"]
# Of answers: fp8 rounds the weights and inputs of a finished run's products.
Arithmetic = Literal["auto", "bf16", "fp16", "fp32", "fp8"]
LANGUAGE_MODEL = "smollm2-135m"  # where one is wanted and none is named
TRACKERS = ("tensorboard", "mlflow", "wandb")


def _takes_bool(annotation: object) -> bool:
    return annotation is bool or any(map(_takes_bool, get_args(annotation)))


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_yes_for_a_number(cls, value: object, info: ValidationInfo) -> object:
        if isinstance(value, bool) and not _takes_bool(cls.model_fields[str(info.field_name)].annotation):
            raise ValueError("must not be true or false (which YAML also reads yes, no, on and off as)")
        return value


class Columns(_Strict):
    """Which column plays which role; None means: recognised by its usual names (`data.catalogue`)."""

    product: str | None = None
    type: str | None = None
    brand: str | None = None
    category: str | None = None
    sub_category: str | None = None


class SplitConfig(_Strict):
    """How the catalogue is cut into train, validation and test."""

    strategy: SplitStrategy = "grouped"
    seed: int = Field(42, ge=0)
    test_size: float = Field(0.2, gt=0, lt=1)
    # Share of what is left after test. 0: all of it trains, so nothing chooses between epochs and no confidence is
    # calibrated; for a last run of a recipe that was chosen before.
    validation_size: float = Field(0.1, ge=0, lt=1)
    file: Path | None = None  # a saved split to reuse; the other keys are then ignored


class LoraSettings(_Strict):
    """Low-rank adaptation (Hu et al. 2021) of all linear layers; QLoRA (Dettmers et al. 2023) reads the same keys."""

    r: int = Field(16, ge=1)
    alpha: int = Field(32, ge=1)
    dropout: float = Field(0.05, ge=0, lt=1)


class TrainingConfig(_Strict):
    """The optimisation. None and "auto" are filled from the base model's recipe and the hardware."""

    epochs: float = Field(6, gt=0, le=100_000)
    # Passes over the catalogue's own names by next-token prediction before the labels are learned; rows without a type
    # are read too, rows that are held out never. None: the base model's recipe; 0: none.
    pretraining_epochs: float | None = Field(None, ge=0, le=100_000)
    # What a fresh classification head begins with: what the base model makes of each label's text, or random numbers.
    # auto: labels where all weights of a pretrained model are trained.
    head_init: Literal["auto", "labels", "random"] = "auto"
    max_steps: int | None = Field(None, ge=1)  # optimiser steps; overrides epochs
    batch_size: int = Field(256, ge=1)  # products an optimiser step, over all processes
    micro_batch_size: int | None = Field(None, ge=1)  # products a forward pass; None: from the memory there is
    learning_rate: float | None = Field(None, gt=0)
    weight_decay: float = Field(0.1, ge=0)  # not on norms and biases
    layer_decay: float = Field(1.0, gt=0, le=1)  # layer i learns at learning_rate * layer_decay**(layers above i)
    warmup_ratio: float = Field(0.06, ge=0, lt=1)  # linear warm-up, then cosine decay to 0
    max_grad_norm: float = Field(1.0, gt=0)
    label_smoothing: float = Field(0.0, ge=0, lt=1)  # objective head only
    dropout: float = Field(0.0, ge=0, lt=1)  # attention (and Falcon's hidden) dropout of the base model
    precision: Literal["auto", "bf16", "fp16", "fp32"] = "auto"
    gradient_checkpointing: bool | Literal["auto"] = "auto"
    # adamw_bf16: bf16 weights and moments with stochastic rounding (torchao), a third of adamw's memory; full only.
    optimizer: Literal["auto", "adamw", "adamw_bf16"] = "auto"
    # Over several processes. ddp: the model whole on each; fsdp: cut into pieces (FSDP2), full and lora only; auto: cut
    # for full, and for lora where one GPU can't hold it.
    parallel: Literal["auto", "ddp", "fsdp"] = "auto"
    # Rows without padding, side by side in tiles (modeling/packed); auto: on a GPU, for the layers that it knows.
    packed: bool | Literal["auto"] = "auto"
    fp8_base: bool = False  # lora, packed, on a GPU that has fp8: frozen weights and their products in 8 bits
    evaluations_per_epoch: int = Field(1, ge=0)  # each also saves a checkpoint; 0: only the last weights are kept
    best_metric: Literal["macro_f1", "loss"] = "macro_f1"  # on validation; chooses the weights that are kept
    patience: int | None = Field(None, ge=1)  # evaluations without a gain before stopping early; None: never
    checkpoints_kept: int = Field(2, ge=1)
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _micro_batches_fill_the_batch(self) -> TrainingConfig:
        if self.micro_batch_size is not None and self.batch_size % self.micro_batch_size:
            fits = max(n for n in range(1, self.micro_batch_size) if self.batch_size % n == 0)
            raise ValueError(
                f"micro_batch_size {self.micro_batch_size} does not divide batch_size {self.batch_size}; {fits} does"
            )
        return self


class TrainConfig(_Strict):
    """One training run, whole."""

    catalogue: Path | None = None
    columns: Columns = Columns()
    text_columns: tuple[Role, ...] = ("product",)
    split: SplitConfig = SplitConfig()
    # auto: a language model where there is a GPU or something only it can do is asked for, else the baseline: see
    # `pipelines.model_choice`.
    model: str = "auto"
    revision: str | None = None  # of a hub model; None: the registry's pinned one
    method: Literal["auto", "full", "lora", "qlora"] = "auto"
    objective: Literal["head", "completion"] = "head"
    lora: LoraSettings = LoraSettings()
    training: TrainingConfig = TrainingConfig()
    trackers: tuple[Literal["tensorboard", "mlflow", "wandb"], ...] = ()
    baseline: bool = True  # also fit the linear baseline on the same rows, so that every number has its yardstick
    # Who answers: the language model alone, or together with the baseline (`shelfwise.blend`); auto: together where
    # that is no worse on validation. Only of a language model with its baseline and validation rows.
    classifier: Literal["auto", "model", "blend"] = "auto"

    @field_validator("text_columns", mode="before")
    @classmethod
    def _split_commas(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _product_is_read(self) -> TrainConfig:
        if "product" not in self.text_columns:
            raise ValueError("text_columns must hold 'product': the name is what a type is told from")
        if len(set(self.text_columns)) != len(self.text_columns):
            raise ValueError("text_columns names a column twice")
        return self

    @model_validator(mode="after")
    def _blend_has_its_parts(self) -> TrainConfig:
        if self.classifier == "blend" and self.model == "baseline":
            raise ValueError(
                "classifier: blend needs a language model beside the baseline; name one as model, or leave it out"
            )
        if self.classifier == "blend" and not self.baseline:
            raise ValueError("classifier: blend needs the baseline that baseline: false leaves out")
        return self


def _known_keys(location: tuple[int | str, ...]) -> list[str]:
    model: Any = TrainConfig
    for part in location[:-1]:
        found = model.model_fields.get(str(part)) if isinstance(model, type) and issubclass(model, BaseModel) else None
        model = found.annotation if found is not None else None
    return list(model.model_fields) if isinstance(model, type) and issubclass(model, BaseModel) else []


def parse(values: object, source: str) -> TrainConfig:
    """Check a configuration's values.

    Args:
        values: what YAML gave: a mapping of keys to values.
        source: the file's name, for messages.

    Raises:
        ConfigError: with every problem, one a line.
    """
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise ConfigError(f"{source}: a configuration is a list of 'key: value' lines, not a {type(values).__name__}.")
    try:
        return TrainConfig.model_validate(values)
    except ValidationError as error:
        problems = []
        for item in error.errors():
            where = "".join(f"{part}." for part in item["loc"])[:-1]
            if item["type"] == "extra_forbidden":
                near = did_you_mean(str(item["loc"][-1]), _known_keys(item["loc"]))
                problems.append(f"{where}: there is no such key.{near}")
            else:
                got = f" (got {item['input']!r:.80})" if where else ""  # else it is the whole configuration
                near = _nearest_choice(item) if item["type"] == "literal_error" else ""
                problems.append(f"{where}: {_told(item['msg'])}{got}{near}".removeprefix(": "))
        raise ConfigError("\n".join(f"{source}: {problem}" for problem in problems)) from error


def _told(message: str) -> str:
    """What pydantic says, in YAML's words."""
    return message.removeprefix("Value error, ").replace("a valid tuple", "a list, as in [a, b]")


def _nearest_choice(problem: Any) -> str:
    """The nearest of the values that a key can have, as a sentence; empty where none is near."""
    near = did_you_mean(str(problem["input"]), re.findall("'([^']+)'", problem["ctx"]["expected"]))
    return near and f".{near}"


class _NoKeyTwice(yaml.SafeLoader):
    """YAML's safe loader, which would take the last of two values of a key and say nothing."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        """A mapping whose keys differ."""
        seen: set[object] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key '{key.value}' stands here a second time", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def load(path: Path) -> TrainConfig:
    """Read a YAML configuration.

    Raises:
        ConfigError: no such file, no YAML, or values that are wrong; the message lists all problems.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such file.") from None
    except IsADirectoryError:
        raise ConfigError(f"{path}: is a folder. Name the YAML file in it.") from None
    except OSError as error:
        raise ConfigError(f"{path}: can't be read ({error.strerror}). Make it readable, or name another.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text ({error}). Save it as UTF-8.") from error
    try:
        values = yaml.load(text, _NoKeyTwice)  # noqa: S506  a safe loader
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not YAML: {error}") from error
    return parse(values, str(path))


def dump(config: TrainConfig) -> str:
    """The configuration as YAML with every key, so that running it again repeats the run."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
