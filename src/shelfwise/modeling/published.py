"""Configurations of the base models that go by a name, so that a run can be planned without any file of theirs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from shelfwise.errors import ModelNotFoundError
from shelfwise.modeling import registry, tiny

# What decides sizes in the config.json of each repository at the revision that `registry` pins.
_LLAMA2_7B: dict[str, int | bool] = {
    "vocab_size": 32_000,
    "hidden_size": 4_096,
    "intermediate_size": 11_008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "max_position_embeddings": 4_096,
    "tie_word_embeddings": False,
}
_SMOLLM2_135M: dict[str, int | bool] = {
    "vocab_size": 49_152,
    "hidden_size": 576,
    "intermediate_size": 1_536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "max_position_embeddings": 8_192,
    "tie_word_embeddings": True,
}
_FALCON_7B: dict[str, int | bool] = {
    "vocab_size": 65_024,
    "hidden_size": 4_544,
    "num_hidden_layers": 32,
    "num_attention_heads": 71,
    "multi_query": True,
    "parallel_attn": True,
    "new_decoder_architecture": False,
    "bias": False,
    "alibi": False,
    "tie_word_embeddings": True,
}
_PUBLISHED = {"llama2-7b": _LLAMA2_7B, "smollm2-135m": _SMOLLM2_135M, "falcon-7b": _FALCON_7B}


def config_of(name: str, revision: str | None = None) -> Any:
    """The transformers configuration of a base model: built in, a folder's, or the hub's `config.json` alone.

    Args:
        name: a registry name, a folder, or a hub id ("owner/name").
        revision: of a hub model.

    Raises:
        ModelNotFoundError: no such model, or none that transformers knows.
        ModelAccessError: the hub is needed, and gated or out of reach.
    """
    from transformers import AutoConfig, FalconConfig, LlamaConfig

    spec = registry.require_name(name)
    if spec is not None and spec.source == "built in":
        return tiny.sized_config(spec.architecture)
    if spec is not None:
        kind = LlamaConfig if spec.architecture == "llama" else FalconConfig
        return kind(**_PUBLISHED[name])
    folder: Path = registry.config_folder(name, revision)
    try:
        return AutoConfig.from_pretrained(folder)
    except (OSError, ValueError, KeyError) as error:
        raise ModelNotFoundError(f"{name}: no base model that transformers knows ({error}).") from error
