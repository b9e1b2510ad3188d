"""The part of the leakage gate that looks at columns which a model is to read beside the product name."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from shelfwise.config import Role
from shelfwise.data.names import name_key
from shelfwise.records import Product

_FILLERS = frozenset(("and", "for", "in", "of", "other", "others", "the", "to", "with"))


@dataclass(frozen=True, slots=True)
class ReadOff:
    """How well one column's value alone tells the inventory type, by each value's most frequent type in training."""

    seen: int  # held-out products with a value that training has
    right: tuple[Product, ...]  # of them, those whose type it tells
    majority: int  # of them, those of the most frequent type in training: what a column that tells nothing gets right


def value_of(product: Product, role: Role) -> str:
    """What a product has in the column of this role."""
    return {
        "product": product.name,
        "brand": product.brand,
        "category": product.category,
        "sub_category": product.sub_category,
    }[role]


def told_by(products: Iterable[Product], role: Role) -> list[Product]:
    """Products whose value in this column holds all words of their inventory type, where the name does not."""
    words_of_label: dict[str, frozenset[str]] = {}
    found = []
    for product in products:
        label = product.label or ""
        wanted = words_of_label.get(label)
        if wanted is None:
            wanted = words_of_label[label] = _words(label) - _FILLERS
        told = wanted and wanted <= _words(value_of(product, role)) and not wanted <= _words(product.name)
        if told:
            found.append(product)
    return found


def read_off(seen: Sequence[Product], asked: Sequence[Product], role: Role) -> ReadOff:
    """Answer each held-out product by its column's value alone.

    Args:
        seen: training products; not empty.
        asked: held-out products. One without a value, or with one that training lacks, is left out.
        role: the column. Values are compared as `names.name_key` compares names.
    """
    types: dict[str, Counter[str]] = defaultdict(Counter)
    for product in seen:
        types[name_key(value_of(product, role))][product.label or ""] += 1
    answers = {value: _most(counter) for value, counter in types.items() if value}
    majority = _most(Counter(product.label or "" for product in seen))
    known = [(product, answers[value]) for product in asked if (value := name_key(value_of(product, role))) in answers]
    return ReadOff(
        seen=len(known),
        right=tuple(product for product, answer in known if product.label == answer),
        majority=sum(product.label == majority for product, _ in known),
    )


def _most(counter: Counter[str]) -> str:
    return min(counter, key=lambda label: (-counter[label], label))


def _words(text: str) -> frozenset[str]:
    """The words of a text without case, punctuation and the s of a plural."""
    return frozenset(
        word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word
        for word in name_key(text).split()
    )
