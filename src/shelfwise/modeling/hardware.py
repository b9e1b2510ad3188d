"""Which device there is, which precision it is good at, and how much memory it has left."""

from __future__ import annotations

from typing import Literal

import torch

from shelfwise.config import Precision
from shelfwise.errors import InputError

# Under this size autocast's casts cost more than bf16 saves on a CPU: docs/lab-notes.md, 2026-11-24.
_SMALL_MODEL = 20_000_000
DTYPES: dict[Precision, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def resolve_device(wanted: str = "auto") -> torch.device:
    """The device to work on.

    Args:
        wanted: "auto" (CUDA where there is one), "cpu", "cuda", "cuda:1", "mps".

    Raises:
        InputError: no such device here.
    """
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(wanted)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        first = str(error).splitlines()[0]
        raise InputError(f"--device {wanted}: not to be had here ({first}). Use 'auto' or 'cpu'.") from error
    return device


def resolve_precision(
    wanted: Precision | Literal["auto"], device: torch.device, parameters: int | None = None
) -> Precision:
    """Mixed precision by hardware: bf16 where it is native, else fp16 with loss scaling on CUDA, else fp32.

    Args:
        wanted: "auto", or what the caller insists on.
        device: where the model will run.
        parameters: size of the model; on a CPU small ones stay in fp32.
    """
    if wanted != "auto":
        return wanted
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device)[0] >= 8 else "fp16"
    if device.type == "cpu" and (parameters is None or parameters >= _SMALL_MODEL):
        return "bf16" if native_bf16() else "fp32"
    return "fp32"


def native_bf16() -> bool:
    """Whether this CPU multiplies bf16 itself; emulated bf16 is up to six times slower than fp32."""
    probe = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported() and probe and probe())


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """The autocast region of a precision; disabled for fp32."""
    return torch.autocast(device.type, dtype=DTYPES[precision], enabled=precision != "fp32")


def has_fp8(device: torch.device) -> bool:
    """Whether matrix products in 8-bit floating point are native: Ada, Hopper and later."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 9)


def gpu_name(wanted: str) -> str:
    """What the GPU calls itself; empty where `resolve_device` gives none."""
    device = resolve_device(wanted)
    return torch.cuda.get_device_name(device) if device.type == "cuda" else ""


def free_memory(device: torch.device) -> int:
    """Bytes a process may still take on a device: free CUDA memory, or the machine's available memory."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
    import psutil

    return int(psutil.virtual_memory().available)
