"""Shelfwise: fine-tunes causal language models to tell a product's inventory type from its name.

Each command of the command line is a function here: `shelfwise.train(...)` does what `shelfwise train` does. They are
loaded when they are first asked for, so that importing the package stays cheap.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_WHERE = {
    "audit": "shelfwise.data.audit",
    "audit_labels": "shelfwise.pipelines.label_audit",
    "compare": "shelfwise.pipelines.compare",
    "demo": "shelfwise.pipelines.demo",
    "evaluate": "shelfwise.pipelines.evaluate",
    "evaluate_all": "shelfwise.pipelines.side_by_side",
    "export": "shelfwise.pipelines.export",
    "make_splits": "shelfwise.data.split",
    "plan": "shelfwise.pipelines.plan",
    "predict": "shelfwise.pipelines.predict",
    "read_catalogue": "shelfwise.data.catalogue",
    "train": "shelfwise.pipelines.train",
    "Classifier": "shelfwise.classifier",
    "TrainConfig": "shelfwise.config",
}
__all__ = ["__version__", *sorted(_WHERE)]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'shelfwise' has no attribute {name!r}")
    return getattr(importlib.import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_WHERE})
