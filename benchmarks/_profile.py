"""Where the time of a step goes on a GPU, from torch's profiler."""

from __future__ import annotations

import json
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

# Kernels by parts of their names, the longest part that fits; matrix products are told apart by their shapes.
KINDS = {
    "attend": "attention forward",
    "attend_backward": "attention backward",
    "keep": "keys and values kept",
    "activate": "activation",
    **dict.fromkeys(("triton", "norm"), "norms, residuals, the rest of the layers"),
    "log_sum": "sums over the vocabulary",
    **dict.fromkeys(("softmax", "nll_loss", "multi_tensor", "adam"), "loss and optimiser"),
}
PRODUCTS = ("aten::mm", "aten::addmm", "aten::addmm_", "aten::_scaled_mm", "aten::bmm")
ADAPTERS = 64  # products with a side of no more than this are adapters'
OTHERS = 12  # that are named one by one


class Profile:
    """Records some steps; `begin` and `end` wait for the GPU."""

    def __init__(self) -> None:
        import torch

        self._profiler: Any = torch.profiler.profile(record_shapes=True)

    def begin(self) -> None:
        _wait()
        self._profiler.__enter__()
        self._began = time.perf_counter()

    def end(self, steps: int) -> dict[str, Any]:
        """Milliseconds of a step."""
        _wait()
        seconds = time.perf_counter() - self._began
        self._profiler.__exit__(None, None, None)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "trace.json"
            self._profiler.export_chrome_trace(str(path))
            events = json.loads(path.read_bytes())["traceEvents"]
        return summed(events, seconds, steps)


def summed(events: list[dict[str, Any]], seconds: float, steps: int) -> dict[str, Any]:
    """Milliseconds of a step by what they go into, and the largest of what has no name here.

    Args:
        events: of a trace.
        seconds: that these steps took.
        steps: how many.
    """
    operators = {e["args"]["External id"]: e for e in events if e.get("cat") == "cpu_op" and "args" in e}
    kinds: Counter[str] = Counter()
    others: Counter[str] = Counter()
    busy, until = 0.0, 0.0
    kernels = [e for e in events if e.get("cat") in ("kernel", "gpu_memcpy", "gpu_memset")]
    for kernel in sorted(kernels, key=lambda e: e["ts"]):
        duration, begin = kernel["dur"], kernel["ts"]
        busy += max(0.0, begin + duration - max(begin, until))
        until = max(until, begin + duration)
        operator = operators.get(kernel.get("args", {}).get("External id"), {})
        kind = _kind(kernel["name"].lower(), operator)
        kinds[kind] += duration
        if kind == "others":
            others[f"{operator.get('name', '?')}: {kernel['name'][:60]}"] += duration
    scale = 1e3 * steps
    return {
        "step_ms": round(seconds * 1e3 / steps, 2),
        "idle_ms": round(seconds * 1e3 / steps - busy / scale, 2),
        "kinds_ms": {kind: round(time_ / scale, 2) for kind, time_ in kinds.most_common()},
        "others_ms": {name: round(time_ / scale, 2) for name, time_ in others.most_common(OTHERS)},
    }


def _kind(name: str, operator: dict[str, Any]) -> str:
    if operator.get("name") in PRODUCTS:
        dims = operator.get("args", {}).get("Input Dims", [])[: 2 if operator["name"] == "aten::_scaled_mm" else 3]
        sides = [side for dim in dims if len(dim) >= 2 for side in dim]
        return "adapters' products" if sides and min(sides) <= ADAPTERS else "frozen products"
    word = max((word for word in KINDS if word in name), key=len, default=None)
    return KINDS[word] if word else "others"


def _wait() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()
