"""Loading base models: the right class for the objective, the right dtype, quantised where the method says so."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from shelfwise.config import Precision
from shelfwise.errors import CorruptArtifactError, InputError, MissingPackageError, StorageError
from shelfwise.modeling.hardware import DTYPES
from shelfwise.records import Method, Objective

# The layer that answers: never quantised, never adapted, always trained whole or kept as it is.
HEADS: dict[Objective, str] = {"head": "score", "completion": "lm_head"}


@dataclass(frozen=True, slots=True)
class LoadSettings:
    """How a base model is to be loaded."""

    objective: Objective
    method: Method
    n_labels: int
    device: torch.device
    precision: Precision
    dropout: float = 0.0
    trainable: bool = True  # False: for inference
    bf16_weights: bool = False  # full only: train bf16 weights; needs an optimiser that rounds stochastically

    @property
    def dtype(self) -> torch.dtype | str:
        """Dtype of the stored weights.

        Weights that are trained in full stay fp32 masters under autocast, for bf16 rounds away updates under 1e-3 of
        a weight. Frozen ones take the precision's dtype. A fully trained model is loaded again in the dtype that it
        was saved in, so that it answers as it did.
        """
        if self.method == "full":
            if not self.trainable:
                return "auto"
            return torch.bfloat16 if self.bf16_weights else torch.float32
        return DTYPES[self.precision]


def model_class(objective: Objective) -> Any:
    """transformers' own class behind an objective."""
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    return AutoModelForSequenceClassification if objective == "head" else AutoModelForCausalLM


def configure(config: Any, settings: LoadSettings, pad_token_id: int) -> Any:
    """Set what an objective needs in a base model's configuration."""
    config.pad_token_id = pad_token_id
    config.use_cache = False
    for name in ("attention_dropout", "hidden_dropout"):
        if hasattr(config, name):
            setattr(config, name, settings.dropout)
    if settings.objective == "head":
        config.num_labels = settings.n_labels
        config.problem_type = "single_label_classification"
    return config


def load(folder: Path, settings: LoadSettings, pad_token_id: int) -> nn.Module:
    """Load a base model's weights; a missing classification head is made fresh, in full precision.

    Args:
        folder: a transformers folder.
        settings: objective, method, device and precision.
        pad_token_id: from the prepared tokenizer; LLaMA2's configuration has none, and batches above 1 need it.

    Raises:
        CorruptArtifactError: the folder can't be loaded.
        MissingPackageError: qlora without bitsandbytes.
    """
    from transformers import AutoConfig

    quantised = {"quantization_config": _four_bit(settings)} if settings.method == "qlora" else {}
    try:
        config = configure(AutoConfig.from_pretrained(folder), settings, pad_token_id)
        with _plain_linear_layers() if quantised else nullcontext():
            model = model_class(settings.objective).from_pretrained(
                folder,
                config=config,
                dtype=settings.dtype,
                device_map={"": settings.device},
                use_safetensors=True,
                local_files_only=True,
                **quantised,
            )
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise StorageError(f"{folder}: could not be read ({error}).") from error
        raise CorruptArtifactError(
            f"{folder}: no model that transformers can load ({error}). Name another folder, or copy the model "
            "again, whole."
        ) from error
    except RuntimeError as error:
        if "mismatched" not in str(error):
            raise
        raise CorruptArtifactError(
            f"{folder}: its weights have other shapes than its config.json says. Copy the model again, whole."
        ) from error
    _settle_head(model, settings)
    if settings.method == "qlora":
        _require_quantised(model, folder)
        differentiate_on_cpu(model)
    model.eval()
    return model  # type: ignore[no-any-return]


def fresh(config: Any, settings: LoadSettings, pad_token_id: int) -> nn.Module:
    """Make a model with fresh fp32 weights; draws from torch's generator."""
    configured = configure(config, settings, pad_token_id)
    model = model_class(settings.objective).from_config(configured, dtype=torch.float32)
    _settle_head(model, settings)
    return model.to(settings.device).eval()  # type: ignore[no-any-return]


def _settle_head(model: nn.Module, settings: LoadSettings) -> None:
    """Give a new classification head fp32 weights: its gradients are small, and it is tiny beside the base."""
    if settings.objective == "head" and settings.trainable:
        head = getattr(model, HEADS["head"])
        head.to(torch.float32)


def _four_bit(settings: LoadSettings) -> Any:
    """NF4 with double quantisation (Dettmers et al. 2023); the layer that answers keeps full precision."""
    try:
        import bitsandbytes  # noqa: F401
    except ImportError as error:
        raise MissingPackageError("qlora needs bitsandbytes: pip install 'shelfwise[qlora]'") from error
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=DTYPES[settings.precision],
        llm_int8_skip_modules=list(HEADS.values()),
    )


@contextmanager
def _plain_linear_layers() -> Iterator[None]:
    """Build Falcon from plain linear layers, the only kind that transformers hands to bitsandbytes.

    transformers 5.24 quantises a layer when ``type(module) is nn.Linear``; Falcon's own FalconLinear, the same product
    written out, is passed over with a warning, and "QLoRA" then trains on a base that was never quantised.
    """
    from transformers.models.falcon import modeling_falcon

    own = modeling_falcon.FalconLinear
    modeling_falcon.FalconLinear = nn.Linear
    try:
        yield
    finally:
        modeling_falcon.FalconLinear = own


def _require_quantised(model: nn.Module, folder: Path) -> None:
    """Refuse a base whose layers were left as they are: it would run, in four times the memory that was planned."""
    if not any(type(module).__name__ == "Linear4bit" for module in model.modules()):
        raise InputError(f"{folder}: none of this architecture's layers can be quantised; use --method lora.")


def differentiate_on_cpu(model: nn.Module) -> None:
    """Keep bitsandbytes from losing gradients on CPUs with AVX512-BF16.

    bitsandbytes 0.50 repacks a 4-bit weight for a fast CPU kernel at the first forward in eval mode; the repacked layer
    has no backward, so every gradient below it becomes None with only a warning. The repacking is asked for by a
    flag of each layer, and turning it off costs inference speed alone (docs/lab-notes.md).
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            vars(module)["support_avx512bf16_for_cpu"] = False


def enable_gradient_checkpointing(model: nn.Module) -> None:
    """Recompute each layer's activations in the backward pass; also for frozen embeddings under adapters."""
    enable: Any = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})
