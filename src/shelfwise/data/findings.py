"""What the audit can find, and in which words it says so."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from shelfwise.records import Product

Severity = Literal["problem", "warning", "info"]
Kind = Literal[
    "unreadable_rows",
    "empty_names",
    "garbled_names",
    "duplicate_rows",
    "repeated_names",
    "conflicting_types",
    "rows_without_type",
    "rows_without_brand",
    "single_type",
    "types_with_one_row",
    "types_under_5_rows",
    "types_under_10_rows",
    "untidy_types",
    "types_differing_in_spelling",
    "types_with_commas",
    "types_within_types",
    "types_sharing_first_word",
    "types_in_several_categories",
    "types_in_several_sub_categories",
    "sub_categories_in_several_categories",
    "names_shared_between_parts",
    "types_missing_from_train",
]
EXAMPLES = 5


@dataclass(frozen=True, slots=True)
class Example:
    """One place to look at."""

    source: str  # "catalogue.csv:1042"
    what: str  # the name, the type, the reason: what is to be seen there


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing about a catalogue that its owner should know."""

    kind: Kind
    severity: Severity  # problem: rows are lost; warning: costs accuracy; info: good to know, nothing to mend
    count: int  # of what the message begins with: rows, names, types, sub-categories or products
    message: str  # what is counted, and what to do; follows the count in a table
    examples: tuple[Example, ...] = ()  # at most EXAMPLES

    def to_json(self) -> dict[str, object]:
        """The finding for machines."""
        return {
            "kind": self.kind,
            "severity": self.severity,
            "count": self.count,
            "message": self.message,
            "examples": [{"source": example.source, "what": example.what} for example in self.examples],
        }


def product_examples(products: Iterable[Product]) -> tuple[Example, ...]:
    """The first products, by name and type."""
    found: list[Example] = []
    for product in products:
        if len(found) == EXAMPLES:
            break
        found.append(Example(product.source, f"{product.name} -> {product.label}" if product.label else product.name))
    return tuple(found)
