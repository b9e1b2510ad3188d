"""What `smollm2_bigbasket.py --save-log-probs` kept, and the baseline beside it: shared by what reads it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

import _bench


def normalised(table: Any) -> Any:
    """(N, C) float32 log-probabilities of stored ones: half precision lost the last digits of each row's sum."""
    wide = table.astype(np.float32)
    return wide - np.log(np.exp(wide).sum(1, keepdims=True))


def kept_baseline(prepared: Any, split: str, given: str, work: Path) -> Path:
    """The folder of the baseline of a line, fitted once for all runs of it."""
    from shelfwise import artifact
    from shelfwise.pipelines import train as pipeline

    kept = work / f"baseline-{split}-{given}"
    if not kept.is_dir():
        pipeline._fit_baseline(prepared, kept)
    return kept / artifact.BASELINE


def parser(description: str | None, name: str) -> argparse.ArgumentParser:
    """The options that these benchmarks share."""
    options = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("catalogue", type=Path)
    options.add_argument("--log-probs", type=Path, required=True, metavar="DIR")
    options.add_argument("--out", type=Path, default=_bench.RESULTS)
    options.add_argument("--work", type=Path, default=Path("runs"))
    options.add_argument("--name", default=name, help="of the result file")
    return options
