"""A base model on its way into training: resolved, its tokenizer ready, loaded for an objective."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from shelfwise import processes
from shelfwise.config import TrainConfig
from shelfwise.errors import InputError, ModelNotFoundError
from shelfwise.modeling import adapters, backbone, distributed, encoding, registry, sharding, tiny
from shelfwise.modeling.batching import Item
from shelfwise.modeling.encoding import Encoder
from shelfwise.modeling.engine import Engine
from shelfwise.modeling.packed.choice import packed_model
from shelfwise.prompts import PromptFormat

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from shelfwise.labels import Labels
    from shelfwise.pipelines.run import Prepared


@dataclass(frozen=True, slots=True)
class BaseModel:
    """What a run is trained from."""

    resolved: registry.ResolvedModel
    config: Any  # transformers' configuration
    encoder: Encoder
    device: torch.device

    @classmethod
    def find(cls, config: TrainConfig, prepared: Prepared, device: str) -> BaseModel:
        """Resolve a configuration's base model, and make its tokenizer where it has none.

        Raises:
            InputError: a GPU that training can't take.
            ModelNotFoundError: no base model goes by this name.
        """
        place = distributed.device_of(device)
        if place.index and processes.count() == 1:
            raise InputError(
                f"--device {device}: training takes the first visible GPU; set CUDA_VISIBLE_DEVICES instead."
            )
        resolved = distributed.first_goes_ahead(lambda: registry.resolve(config.model, config.revision))
        encoder = Encoder(_tokenizer(resolved, prepared), PromptFormat())
        return cls(resolved, _configuration(resolved, encoder), encoder, place)

    def engine(
        self,
        config: TrainConfig,
        labels: Labels,
        items: Sequence[Item],
        shards: int,
        prepare: Callable[[Engine], None],
        *,
        scores: bool = True,
    ) -> Engine:
        """Load the model for a settled configuration's objective, with its adapters, ready to be trained.

        Args:
            config: settled.
            labels: of the run.
            items: the rows that it is trained on.
            shards: processes over which it is cut; 1: each holds it whole.
            prepare: what is done to the model while it is whole.
            scores: whether it is to score labels, which `completion` needs a tree of them for.

        Raises:
            CorruptArtifactError: the weights can't be loaded.
        """
        training = config.training
        torch.manual_seed(training.seed)
        # A model to be cut need not fit the device while it is whole.
        loading = self.device if shards == 1 else torch.device("cpu")
        settings = load_settings(config, len(labels), loading, training.precision)
        pad = self.encoder.tokenizer.pad_token_id
        folder = self.resolved.folder
        model: Any = backbone.load(folder, settings, pad) if folder else backbone.fresh(self.config, settings, pad)
        if training.gradient_checkpointing:
            backbone.enable_gradient_checkpointing(model)
        if config.method != "full":
            model = adapters.attach(model, config.lora, config.objective)
        prepare(Engine(model, self.encoder, config.objective, labels, loading, settings.precision))
        if shards > 1:
            sharding.shard(model, self.device, settings.precision)
        else:
            distributed.broadcast_parameters(p for p in model.parameters() if p.requires_grad)
        make = Engine.of if scores else Engine
        engine = make(model, self.encoder, config.objective, labels, self.device, settings.precision)
        if shards == 1 and processes.count() == 1:
            longest = max(len(item.input_ids) for item in items)
            engine = replace(engine, packed=packed_model(config, model, longest, self.device, settings.precision))
        return engine


def load_settings(config: TrainConfig, n_labels: int, device: torch.device, precision: Any) -> backbone.LoadSettings:
    """Load settings of a settled configuration, for training."""
    return backbone.LoadSettings(
        objective=config.objective,
        method=config.method,  # type: ignore[arg-type]  # settled: no longer "auto"
        n_labels=n_labels,
        device=device,
        precision=precision,
        dropout=config.training.dropout,
        bf16_weights=config.training.optimizer == "adamw_bf16",
    )


def _tokenizer(resolved: registry.ResolvedModel, prepared: Prepared) -> Any:
    if resolved.folder:
        return encoding.load_tokenizer(resolved.folder)
    assert resolved.spec is not None  # only built-in models have no folder
    prompts = PromptFormat()
    texts = [prompts.labelled(product.text, product.label or "") for product in prepared.train]
    return tiny.tokenizer_for(resolved.spec.architecture, texts)


def _configuration(resolved: registry.ResolvedModel, encoder: Encoder) -> Any:
    from transformers import AutoConfig

    if resolved.folder:
        try:
            return AutoConfig.from_pretrained(resolved.folder)
        except (OSError, ValueError, KeyError) as error:
            raise ModelNotFoundError(f"{resolved.folder}: no base model that transformers knows ({error}).") from error
    assert resolved.spec is not None
    return tiny.config_for(resolved.spec.architecture, encoder.tokenizer)
