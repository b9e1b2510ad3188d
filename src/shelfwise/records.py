"""The types that travel between folders, in the order a product meets them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Decision = Literal["accept", "review"]
Level = Literal["type", "sub_category", "category", ""]  # how deep an answer keeps the promise; "" when nowhere
LEVELS: tuple[Level, ...] = ("type", "sub_category", "category", "")  # deepest first
Method = Literal["full", "lora", "qlora"]
Objective = Literal["head", "completion"]
# Who of a run answers: its language model, the baseline beside it, both together; auto: as the run itself decided.
Which = Literal["auto", "model", "blend", "baseline"]


@dataclass(frozen=True, slots=True)
class RawRow:
    """One row as the file holds it: nothing normalised, nothing judged."""

    id: int  # position among the file's data rows, from 0; stable for one file
    source: str  # "catalogue.csv:1042", so that any error can name its row
    values: Mapping[str, str]  # the file's columns in the file's order; a missing cell is ""


@dataclass(frozen=True, slots=True)
class Reject:
    """One row that can't be used, and why. Written to the rejects file, never dropped in silence."""

    id: int
    source: str
    reason: str
    values: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Product:
    """One usable row with its columns recognised; all text is normalised (NFC, single spaces)."""

    id: int
    source: str
    name: str  # never empty
    label: str | None  # the inventory type; None where the file has no such column or the cell is empty
    brand: str = ""
    category: str = ""
    sub_category: str = ""
    text: str = ""  # what a model reads: the name, or the chosen text columns joined with single spaces


@dataclass(frozen=True, slots=True)
class Example:
    """One labelled text, on its way from `data` to `modeling`."""

    text: str  # normalised, never empty
    label: str  # always a member of the run's Labels
    source: str


@dataclass(frozen=True, slots=True)
class Prediction:
    """A classifier's answer to one text."""

    label: str
    confidence: float  # calibrated probability of `label`, in [0, 1]
    decision: Decision  # "accept" only when `level` is "type"
    level: Level  # the deepest that keeps the promise
    top_k: tuple[tuple[str, float], ...]  # (label, calibrated probability), highest first; top_k[0][0] == label
    path: tuple[str, ...]  # (category, sub-category, type) as far as the taxonomy knows it; path[-1] == label
    sure_path: tuple[str, ...]  # the most probable path down to `level`; need not begin `path`; () when nothing is sure
