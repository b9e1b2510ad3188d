"""LoRA adapters through PEFT, and the layer-wise learning rates of full and adapter training."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from shelfwise.config import LoraSettings
from shelfwise.errors import CorruptArtifactError, InputError
from shelfwise.records import Objective

_TASKS: dict[Objective, str] = {"head": "SEQ_CLS", "completion": "CAUSAL_LM"}
# Every linear layer of a block. PEFT's defaults adapt only q_proj and v_proj, or Falcon's query_key_value.
TARGETS: dict[str, list[str]] = {
    "llama": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    "falcon": ["query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"],
}
_LAYER = re.compile(r"\.(?:layers|h)\.(\d+)\.")
_EMBEDDING = re.compile(r"embed_tokens|word_embeddings")


def attach(model: nn.Module, settings: LoraSettings, objective: Objective) -> nn.Module:
    """Put fresh adapters on all linear layers of a base model; a classification head is trained and saved whole.

    Adapter weights are fp32 and their products run under autocast. Draws from torch's generator.
    """
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        task_type=_TASKS[objective],
        r=settings.r,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=TARGETS.get(model.config.model_type, "all-linear"),  # type: ignore[union-attr, arg-type]
    )
    return _without_input_copies(get_peft_model(model, config))


def load(model: nn.Module, folder: Path) -> nn.Module:
    """Put a saved adapter, and its head where it has one, on a base model, for inference.

    Raises:
        CorruptArtifactError: the folder holds no adapter that fits this model.
    """
    from peft import PeftModel
    from safetensors import SafetensorError

    try:
        return _without_input_copies(PeftModel.from_pretrained(model, str(folder))).eval()
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise CorruptArtifactError(
            f"{folder}: no adapter that fits this base model ({error}). Was it trained on another one? Else "
            "copy the run folder again."
        ) from error


def plain(model: Any) -> Any:
    """The transformers model itself, also where PEFT stands around it."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def merge(model: Any, dtype: torch.dtype) -> nn.Module:
    """One plain model of a base and its adapters, layer by layer, in place.

    Each sum is made in fp32 and cast once; 4-bit weights are dequantised for it. Merging into 4-bit weights would round
    every sum to one of 16 values; merging in bf16 would lose updates under 1e-2 of a weight.

    Args:
        model: a PEFT model. It is used up.
        dtype: of the merged weights.

    Returns:
        The transformers model inside, with the trained head where there is one.

    Raises:
        CorruptArtifactError: a merged weight is no number.
    """
    for name, module in model.named_modules():
        if not hasattr(module, "lora_A"):
            continue
        base = module.get_base_layer()
        with torch.no_grad():
            weight = _dequantised(base)
            for adapter in module.active_adapters:
                down, up = module.lora_A[adapter].weight.float(), module.lora_B[adapter].weight.float()
                weight.addmm_(up, down, alpha=module.scaling[adapter])
            # What is no number stays none in the least and largest, which take a fifteenth of the time.
            if not all(torch.isfinite(end) for end in torch.aminmax(weight)):
                raise CorruptArtifactError(
                    f"{name}: with its adapter this layer's weights are no numbers. Train the run again, at a lower "
                    "--learning-rate."
                )
        plain = base
        if hasattr(base.weight, "quant_state"):
            plain = nn.Linear(base.in_features, base.out_features, bias=False, device="meta")
            module.base_layer = plain
        plain.weight = nn.Parameter(weight.to(dtype), requires_grad=False)
    merged: nn.Module = model.unload()
    return merged


def _dequantised(layer: Any) -> Tensor:
    """A layer's weight in fp32, a tensor of its own."""
    if hasattr(layer.weight, "quant_state"):
        from bitsandbytes.functional import dequantize_4bit

        whole: Tensor = dequantize_4bit(layer.weight.data, layer.weight.quant_state).float()
        return whole
    return layer.weight.detach().to(torch.float32, copy=True)  # type: ignore[no-any-return]


def _without_input_copies(model: nn.Module) -> nn.Module:
    """Keep PEFT from copying every adapted layer's input to fp32, the adapters' dtype.

    Autocast casts the small adapter weights down instead; in fp32 there is nothing to cast. The copies doubled the
    activations of LLaMA2-7B (docs/lab-notes.md, 2026-11-24).
    """
    for module in model.modules():
        if hasattr(module, "lora_A"):
            vars(module)["cast_input_dtype_enabled"] = False
    return model


@dataclass(frozen=True, slots=True)
class RateSettings:
    """What an optimiser's parameter groups are made from."""

    learning_rate: float
    weight_decay: float
    layer_decay: float  # 1: every layer learns alike


def parameter_groups(model: nn.Module, settings: RateSettings) -> list[dict[str, Any]]:
    """Group trainable parameters by learning rate and weight decay.

    Layer-wise learning-rate decay (Howard and Ruder 2018; Clark et al. 2020): with L layers, layer i learns at
    ``learning_rate * layer_decay**(L - 1 - i)``, embeddings at ``learning_rate * layer_decay**L``, what stands above
    the layers at ``learning_rate``. An adapter learns at the rate of the layer it sits in. Norms and biases
    (parameters of one dimension) are not decayed.

    Returns:
        torch.optim parameter groups with the keys params, lr, weight_decay and name ("layer 3", "decayed or not").

    Raises:
        InputError: layer-wise decay is asked for and the model's layers are not recognised.
    """
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    numbers = [int(found.group(1)) for name, _ in model.named_parameters() if (found := _LAYER.search(name))]
    if settings.layer_decay != 1 and not numbers:
        raise InputError("layer_decay: this architecture's layers are not recognised; use layer_decay: 1.")
    layers = 1 + max(numbers, default=-1)
    groups: dict[tuple[str, bool], dict[str, Any]] = {}
    for name, parameter in named:
        found = _LAYER.search(name)
        if found:
            place, above = f"layer {found.group(1)}", layers - 1 - int(found.group(1))
        elif _EMBEDDING.search(name):
            place, above = "embeddings", layers
        else:
            place, above = "top", 0
        decayed = parameter.ndim > 1
        group = groups.setdefault(
            (place, decayed),
            {
                "params": [],
                "lr": settings.learning_rate * settings.layer_decay**above,
                "weight_decay": settings.weight_decay if decayed else 0.0,
                "name": place,
            },
        )
        group["params"].append(parameter)
    return list(groups.values())
