"""The leakage gate: what lets a model answer held-out products without having learnt what a name says.

Three ways are looked for: the same product in two parts of a split, or nearly the same one; the words of the inventory
type in a column that is read beside the name; and a column from whose value alone the type can be read off.

A *problem* makes the numbers wrong, and `--strict` refuses it. A *warning* is to be known when they are read: a shop
lists a thing in several sizes, and a new size of a known thing is what its model will be asked about.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from shelfwise.config import Role, SplitStrategy
from shelfwise.data import _leakage_columns as columns
from shelfwise.data._leakage_near import BLOCK_ROWS, near_duplicates
from shelfwise.data.catalogue import Catalogue
from shelfwise.data.findings import EXAMPLES, Example
from shelfwise.data.names import name_key
from shelfwise.data.split import Splits
from shelfwise.errors import CatalogueError
from shelfwise.records import Product

LeakageKind = Literal["same_product", "near_duplicate", "type_in_text", "type_from_column"]
HeldOut = Literal["test", "validation"]
Key = tuple[str, str | None]  # (`names.name_key`, inventory type)
Pairs = Sequence[tuple[Product, Product]]  # (held-out product, its like in an earlier part)

_BEFORE: dict[HeldOut, str] = {"test": "train or validation", "validation": "train"}
_HARM: dict[HeldOut, str] = {"test": "scores", "validation": "the choice between epochs and the confidences"}
# Share of products whose column holds their type's words from which it is a problem. BigBasket's brands, which a new
# product has too, hold them in 0.7% ("Muniyal Ayurveda"), its sub-categories in 2.3%.
IN_TEXT_SHARE = 0.1
# Share of held-out products that a column's value alone answers right from which the type can be read off it. On
# BigBasket's grouped split: category 0.14, sub_category 0.42, brand 0.53.
READ_OFF_ACCURACY = 0.95
READ_OFF_ROWS = 20  # held-out products with a known value; with 20 of 20 right, above 0.86 at 95% confidence (binomial)


@dataclass(frozen=True, slots=True)
class LeakageFinding:
    """One way in which the answer leaks."""

    kind: LeakageKind
    severity: Literal["problem", "warning"]
    where: str  # the part that is no longer unseen ("test", "validation"), or the column that tells ("brand")
    count: int  # products concerned
    of: int  # products looked at
    summary: str  # follows the count, for one line: "of 5,510 test products stand in train too"
    message: str  # follows the count in a table, as in `findings.Finding`: what is counted, and what to do
    examples: tuple[Example, ...]  # at most `findings.EXAMPLES`

    def to_json(self) -> dict[str, object]:
        """The finding for machines."""
        return {
            "kind": self.kind,
            "severity": self.severity,
            "where": self.where,
            "count": self.count,
            "of": self.of,
            "message": self.message,
            "examples": [{"source": example.source, "what": example.what} for example in self.examples],
        }


@dataclass(frozen=True, slots=True)
class Leakage:
    """All that was found; true when anything was."""

    findings: tuple[LeakageFinding, ...] = ()  # problems first

    def __bool__(self) -> bool:
        return bool(self.findings)

    @property
    def problems(self) -> tuple[LeakageFinding, ...]:
        """The findings that `--strict` refuses."""
        return tuple(finding for finding in self.findings if finding.severity == "problem")

    def summary(self) -> str:
        """One line with the counts; empty when nothing was found."""
        told = "; ".join(f"{finding.count:,} {finding.summary}" for finding in self.findings)
        return f"leakage: {told}" if told else ""

    def to_json(self) -> dict[str, object]:
        """The findings as one JSON document."""
        return {"findings": [finding.to_json() for finding in self.findings]}


def find_leakage(
    catalogue: Catalogue, splits: Splits, text_columns: Sequence[Role], *, block_rows: int = BLOCK_ROWS
) -> Leakage:
    """Look for leakage, before training or evaluation.

    Args:
        catalogue: labelled; rows without an inventory type are not looked at.
        splits: the catalogue's.
        text_columns: what the model reads.
        block_rows: names compared at a time; bounds the memory, and never changes the result.

    Raises:
        CatalogueError: the split was made from another catalogue.
    """
    parts = splits.parts(catalogue)
    findings = [
        *_same("test", [*parts.train, *parts.validation], parts.test, splits.strategy),
        *_same("validation", parts.train, parts.validation, splits.strategy),
        *_near("test", [*parts.train, *parts.validation], parts.test, splits.strategy, block_rows),
        *_near("validation", parts.train, parts.validation, splits.strategy, block_rows),
    ]
    for role in text_columns:
        if role != "product":
            findings.extend(_told_by(role, catalogue))
            findings.extend(_read_off(role, catalogue, parts.train, [*parts.validation, *parts.test]))
    return Leakage(tuple(sorted(findings, key=lambda finding: finding.severity != "problem")))


def require_no_leakage(leakage: Leakage, catalogue: Catalogue) -> None:
    """Refuse what makes the numbers wrong; warnings pass.

    Raises:
        CatalogueError: with every problem, its examples and the mend.
    """
    if not leakage.problems:
        return
    lines = [f"{catalogue.path}: --strict refuses leakage:"]
    for finding in leakage.problems:
        lines.append(f"  {finding.count:,} {finding.message}")
        lines.extend(f"    {example.source}: {example.what}" for example in finding.examples)
    raise CatalogueError("\n".join(lines))


def _same(
    part: HeldOut, seen: Sequence[Product], asked: Sequence[Product], strategy: SplitStrategy
) -> Iterator[LeakageFinding]:
    """Products of one part that the parts before it hold too.

    Between held-out brands it is a warning: "Almonds" of a new brand is what its products are called, and a model for
    new brands will be asked about it.
    """
    known: dict[Key, Product] = {}
    for product in seen:
        known.setdefault(_key(product), product)
    same = [(product, known[_key(product)]) for product in asked if _key(product) in known]
    if not same:
        return
    share = len(same) / len(asked)
    if strategy == "brand":
        mend = "They have another brand; --strategy grouped keeps equal names together instead."
    else:
        mend = f"They make {_HARM[part]} too good; split with --strategy grouped."
    yield LeakageFinding(
        kind="same_product",
        severity="warning" if strategy == "brand" else "problem",
        where=part,
        count=len(same),
        of=len(asked),
        summary=f"of {len(asked):,} {part} products ({share:.1%}) stand in {_BEFORE[part]} too",
        message=f"Products of {part} ({share:.1%}) whose name and type {_BEFORE[part]} holds too. {mend}",
        examples=_pair_examples(same),
    )


def _near(
    part: HeldOut, seen: Sequence[Product], asked: Sequence[Product], strategy: SplitStrategy, block_rows: int
) -> Iterator[LeakageFinding]:
    """Products of one part that are nearly those of the parts before it; those of `_same` are not counted again."""
    known = {_key(product) for product in seen}
    found = near_duplicates(seen, [product for product in asked if _key(product) not in known], block_rows=block_rows)
    if not found.pairs:
        return
    share = len(found.pairs) / found.looked_at
    instead = "" if strategy == "brand" else ", or split with --strategy brand"
    yield LeakageFinding(
        kind="near_duplicate",
        severity="warning",
        where=part,
        count=len(found.pairs),
        of=found.looked_at,
        summary=f"of {found.looked_at:,} {part} products ({share:.1%}) are nearly ones of {_BEFORE[part]}",
        message=f"Products of {part} ({share:.1%} of {found.looked_at:,} compared) that differ from one of "
        f"{_BEFORE[part]} in little more than a size or a word. Read {_HARM[part]} with that in mind{instead}.",
        examples=_pair_examples(found.pairs),
    )


def _told_by(role: Role, catalogue: Catalogue) -> Iterator[LeakageFinding]:
    products = catalogue.labelled
    if told := columns.told_by(products, role):
        share = len(told) / len(products)
        yield LeakageFinding(
            kind="type_in_text",
            severity="problem" if share >= IN_TEXT_SHARE else "warning",
            where=role,
            count=len(told),
            of=len(products),
            summary=f"products ({share:.1%}) have their type's words in the {role}",
            message=f"Products ({share:.1%}) whose {role} ('{catalogue.columns[role]}') holds the words of their "
            f"type, where the name does not. {_LEAVE_OUT.format(role=role)}",
            examples=_column_examples(told, role),
        )


def _read_off(
    role: Role, catalogue: Catalogue, train: Sequence[Product], held_out: Sequence[Product]
) -> Iterator[LeakageFinding]:
    found = columns.read_off(train, held_out, role)
    right = len(found.right)
    if found.seen < READ_OFF_ROWS or right < READ_OFF_ACCURACY * found.seen:
        return
    if 2 * (found.seen - right) >= found.seen - found.majority:
        return  # always answering the most frequent type is wrong hardly more often: the column tells next to nothing
    yield LeakageFinding(
        kind="type_from_column",
        severity="problem",
        where=role,
        count=right,
        of=found.seen,
        summary=f"of {found.seen:,} held-out products ({right / found.seen:.1%}) are told by the {role} alone",
        message=f"Held-out products, of {found.seen:,} with a {role} that train holds ({right / found.seen:.1%}), "
        f"whose type can be read off the {role} ('{catalogue.columns[role]}') alone; always answering the most "
        f"frequent type gets {found.majority:,} right. {_LEAVE_OUT.format(role=role)}",
        examples=_column_examples(found.right, role),
    )


_LEAVE_OUT = (
    "If that is not known of a new product before its type is, leave {role} out of --text-columns or name another "
    "column for it."
)


def _key(product: Product) -> Key:
    return name_key(product.name), product.label


def _pair_examples(pairs: Pairs) -> tuple[Example, ...]:
    return tuple(
        Example(product.source, f"{product.name} -> {product.label}; {like.source}: {like.name}")
        for product, like in pairs[:EXAMPLES]
    )


def _column_examples(products: Sequence[Product], role: Role) -> tuple[Example, ...]:
    return tuple(
        Example(product.source, f"{columns.value_of(product, role)} | {product.name} -> {product.label}")
        for product in products[:EXAMPLES]
    )
