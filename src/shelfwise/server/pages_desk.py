"""What the review page shows of one product, read from the store in one go. Blocking: pages call it in a thread."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from shelfwise.errors import InputError
from shelfwise.review.items import Decision, Item, Progress, new_key
from shelfwise.review.store import Store
from shelfwise.server.contract import TypeInfo

TOP = 5  # types that have a key of their own
EXAMPLES = 4  # names shown of each
MORE_EXAMPLES = 12
MAX_TYPE = 1_000  # characters
WITHOUT_CATEGORY = "Without a category"

Examples = Mapping[str, tuple[str, ...]]  # type to names of it, from the run


@dataclass(frozen=True, slots=True)
class Option:
    """A type that the model holds possible."""

    type: str
    share: float  # calibrated probability
    path: tuple[str, ...]  # above the type
    examples: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Card:
    """One product to decide about."""

    item: Item
    options: tuple[Option, ...]
    key: str  # of this showing: decisions made from it have keys that follow from it
    following: str | None  # the name of the product after it


@dataclass(frozen=True, slots=True)
class Branch:
    """A category with its sub-categories and their types."""

    category: str
    shelves: tuple[tuple[str, tuple[str, ...]], ...]  # (sub-category or "", types)
    types: int


@dataclass(frozen=True, slots=True)
class Choice:
    """What a reviewer asked for, from a form."""

    item_id: int
    version: int
    key: str  # of the card
    action: str  # "accept", "skip", or "type" with a type
    type: str = ""
    same_name: bool = False

    def decision(self, reviewer: str, predicted: str | None) -> Decision:
        """As the store takes it; the same choice from the same card has the same key however often it is sent."""
        told = f"{self.key}|{self.item_id}|{self.action}|{self.type}|{self.same_name}"
        key = hashlib.sha256(told.encode("utf-8", "replace")).hexdigest()[:40]
        if self.action == "skip":
            return Decision("skip", reviewer, self.version, key=key)
        if self.action == "accept" or self.type == predicted:
            return Decision("accept", reviewer, self.version, key=key, same_name=self.same_name)
        return Decision("correct", reviewer, self.version, type=self.type, key=key, same_name=self.same_name)


def next_card(store: Store, reviewer: str, types: Mapping[str, TypeInfo], examples: Examples) -> Card | None:
    """The product that this reviewer should look at now; None when nothing is left for them."""
    item = store.next_item(reviewer)
    return None if item is None else card_of(store, item, reviewer, types, examples)


def card_of(store: Store, item: Item, reviewer: str, types: Mapping[str, TypeInfo], examples: Examples) -> Card:
    """A product with what helps to decide about it."""
    following = store.peek(reviewer, item.id)
    options = tuple(
        Option(
            label,
            share,
            types[label].path[:-1] if label in types else (),
            examples_of(store, label, examples, EXAMPLES, but=item.name),
        )
        for label, share in item.top_k[:TOP]
    )
    return Card(item, options, new_key(), following.name if following else None)


def examples_of(store: Store | None, label: str, known: Examples, limit: int, but: str = "") -> tuple[str, ...]:
    """Names that are of a type: first those that people settled so, then those of the run."""
    settled = [example.name for example in store.examples(label, limit)] if store is not None else []
    names = dict.fromkeys((*settled, *known.get(label, ())))
    names.pop(but, None)
    return tuple(names)[:limit]


def check(choice: Choice, item: Item, types: Mapping[str, TypeInfo]) -> None:
    """Refuse a type that is none.

    Raises:
        InputError: it is neither one of the run's nor one that the model named for this product.
    """
    if choice.action not in ("accept", "skip", "type"):
        raise InputError("A product is accepted, corrected or skipped.")
    named = {label for label, _ in item.top_k}
    if choice.action == "type" and choice.type not in types and choice.type not in named:
        raise InputError(f"'{choice.type[:100]}' is not one of the {len(types)} types.")


def tree(types: Sequence[TypeInfo]) -> tuple[Branch, ...]:
    """The taxonomy: a type stands under every sub-category that it was seen under."""
    found: dict[str, dict[str, list[str]]] = {}
    for info in types:
        for category, sub_category, _ in info.paths or (("", "", 0),):
            found.setdefault(category or WITHOUT_CATEGORY, {}).setdefault(sub_category, []).append(info.name)
    return tuple(
        Branch(
            category,
            tuple((shelf, tuple(sorted(names, key=str.casefold))) for shelf, names in sorted(shelves.items())),
            len({name for names in shelves.values() for name in names}),
        )
        for category, shelves in sorted(found.items(), key=lambda one: (one[0] == WITHOUT_CATEGORY, one[0].casefold()))
    )


@dataclass(frozen=True, slots=True)
class Standing:
    """How far the review is."""

    progress: Progress
    mine: int  # decisions of this reviewer that stand

    @classmethod
    def of(cls, store: Store, reviewer: str) -> Standing:
        """Read it."""
        progress = store.progress()
        mine = next((one for one in progress.reviewers if one.reviewer == reviewer), None)
        return cls(progress, mine.accepted + mine.corrected if mine else 0)
