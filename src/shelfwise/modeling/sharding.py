"""A model cut into pieces over several processes with FSDP2, and put together again for a file.

Each process holds 1/N of every weight, gradient and optimiser state; a layer's weights are gathered when it is passed.
(Zhao et al. 2023, "PyTorch FSDP"; `torch.distributed.fsdp.fully_shard`.) Files hold whole tensors, so a checkpoint
goes on with any number of processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from types import MethodType
from typing import Any, TypeVar

import torch
from safetensors import safe_open
from torch import Tensor, nn

from shelfwise import processes
from shelfwise.config import Precision
from shelfwise.modeling import adapters
from shelfwise.modeling.hardware import DTYPES

_Result = TypeVar("_Result")
_WITHIN = "_shelfwise_within_forward"


def shard(model: Any, device: torch.device, precision: Precision) -> None:
    """Cut a model in place: each layer by itself, what stands outside the layers together.

    fp32 masters are gathered in the low precision that the step computes in; gradients are averaged in fp32.

    Args:
        model: whole and alike in every process, on the CPU or on `device`.
        device: where the pieces go.
        precision: of the step.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method

    masters = any(p.dtype == torch.float32 for p in model.parameters() if p.requires_grad)
    low = DTYPES[precision] if precision != "fp32" and masters else None
    policy = MixedPrecisionPolicy(param_dtype=low, reduce_dtype=torch.float32)
    mesh = init_device_mesh(device.type, (processes.count(),))
    plain = adapters.plain(model)
    layers = set(plain._no_split_modules)
    for module in model.modules():
        if type(module).__name__ in layers:
            fully_shard(module, mesh=mesh, mp_policy=policy)
    fully_shard(model, mesh=mesh, mp_policy=policy)
    vars(model)[_WITHIN] = MethodType(lambda _, call: call(), model)
    register_fsdp_forward_method(model, _WITHIN)


def is_sharded(model: nn.Module) -> bool:
    """Whether `shard` has cut this model."""
    return _WITHIN in vars(model)


def within_forward(model: nn.Module, call: Callable[[], _Result]) -> _Result:
    """Call something that passes parts of a model by themselves; the weights outside the layers are whole meanwhile."""
    result: _Result = vars(model)[_WITHIN](call) if is_sharded(model) else call()
    return result


def no_gradients(model: nn.Module) -> AbstractContextManager[object]:
    """Inference mode, or what a cut model bears: gathered weights are used again in training."""
    return torch.no_grad() if is_sharded(model) else torch.inference_mode()


def reshard(model: nn.Module) -> None:
    """Give back what a forward pass without a backward one has left whole."""
    if is_sharded(model):
        from torch.distributed.fsdp import FSDPModule

        for module in model.modules():
            if isinstance(module, FSDPModule):
                module.reshard()


# Whole again, for files


def whole(value: Any) -> Tensor:
    """A tensor put together, on the first process's CPU; an empty one elsewhere. Every process has to ask."""
    gathered: Tensor = value.full_tensor() if _is_cut(value) else value
    return gathered.detach().cpu() if processes.is_first() else torch.empty(0)


def _is_cut(value: object) -> bool:
    return hasattr(value, "full_tensor")


def whole_weights(model: nn.Module) -> dict[str, Tensor] | None:
    """What a model's file holds, by parameter name, on the first process; None for a model that was never cut.

    Tied weights are one tensor under several names, as in a model that is whole.
    """
    if not is_sharded(model):
        return None
    adapted = hasattr(model, "peft_config")  # of an adapted model only what is trained is saved
    seen: dict[int, Tensor] = {}
    weights: dict[str, Tensor] = {}
    for name, parameter in model.state_dict(keep_vars=True).items():
        if parameter.requires_grad or not adapted:
            if id(parameter) not in seen:
                seen[id(parameter)] = whole(parameter)
            weights[name] = seen[id(parameter)]
    return weights


def whole_optimizer(state: dict[str, Any]) -> dict[str, Any]:
    """An optimiser's state dict with its tensors whole, on the first process; a state never cut is given as it is."""
    entries = {
        index: {key: whole(value) if _is_cut(value) else value for key, value in entry.items()}
        for index, entry in state["state"].items()
    }
    return {**state, "state": entries}


# And cut, from files


def piece(value: Tensor, like: Tensor) -> Tensor:
    """The part of a whole tensor that this process holds of `like`; all of it where that was never cut."""
    if not _is_cut(like) or value.shape != like.shape:
        return value
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(like, DTensor)
    # Every process reads the file itself, so none has to be sent anything.
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def load_weights(model: nn.Module, folder: Path) -> None:
    """Read a checkpoint's weights into a cut model, one tensor at a time."""
    targets: dict[str, Tensor] = dict(model.named_parameters(remove_duplicate=False))
    if hasattr(model, "peft_config"):
        from peft import get_peft_model_state_dict

        targets = get_peft_model_state_dict(model, state_dict=targets, save_embedding_layers=False)
    with torch.no_grad():
        for name, value in _weights_in(folder):
            targets[name].copy_(piece(value, targets[name]))


def _weights_in(folder: Path) -> Iterator[tuple[str, Tensor]]:
    for path in sorted([*folder.glob("model*.safetensors"), *folder.glob("adapter_model.safetensors")]):
        file: Any
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118  # the file is no mapping
                yield name, file.get_tensor(name)
