"""The parts of a catalogue: made once, saved as row ids with hashes, and never redrawn by accident."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, cast, get_args

from shelfwise.config import SplitConfig, SplitStrategy
from shelfwise.data import _strategies
from shelfwise.data.catalogue import Catalogue
from shelfwise.data.names import name_key
from shelfwise.errors import CatalogueError, CorruptArtifactError, InputError
from shelfwise.records import Product

FORMAT = 1
PARTS = ("train", "validation", "test")


class Parts(NamedTuple):
    """The labelled products of each part, in the file's order."""

    train: tuple[Product, ...]
    validation: tuple[Product, ...]
    test: tuple[Product, ...]
    left_out: int  # rows of the catalogue that are in no part: rejected, or without an inventory type


@dataclass(frozen=True, slots=True)
class Splits:
    """Which rows of one catalogue belong to which part. The parts are disjoint and hold every row.

    Rows are ids as `RawRow.id` counts them, rejected rows included, sorted within each part.
    """

    strategy: SplitStrategy
    seed: int
    test_size: float  # of all rows
    validation_size: float  # of the rows that are left after test
    fingerprint: str  # the catalogue's
    train: tuple[int, ...]
    validation: tuple[int, ...]
    test: tuple[int, ...]
    notes: tuple[str, ...] = ()  # what a user of this split must know, a sentence each

    def rows(self) -> dict[str, tuple[int, ...]]:
        """The rows of each part by its name, in the order of `PARTS`."""
        return {"train": self.train, "validation": self.validation, "test": self.test}

    def describe(self) -> str:
        """The settings in words."""
        return (
            f"strategy {self.strategy}, seed {self.seed}, test size {self.test_size:g}, "
            f"validation size {self.validation_size:g}"
        )

    def check(self, catalogue: Catalogue) -> None:
        """Make sure that this split was made from this catalogue.

        Raises:
            CatalogueError: it was made from other rows, or from other columns of them.
        """
        if self.fingerprint != catalogue.fingerprint:
            raise CatalogueError(
                f"{catalogue.path}: the split was made from another catalogue, another version of this one, or with "
                f"other columns (fingerprint {self.fingerprint[:12]}, here {catalogue.fingerprint[:12]}). Use the file "
                f"and the column options it was made with, or make a new split: shelfwise split {catalogue.path} "
                "--out DIR"
            )

    def parts(self, catalogue: Catalogue) -> Parts:
        """The labelled products of each part.

        Raises:
            CatalogueError: the split was made from another catalogue.
        """
        self.check(catalogue)
        by_id = {product.id: product for product in catalogue.labelled}
        train, validation, test = (
            tuple(by_id[row] for row in rows if row in by_id) for rows in (self.train, self.validation, self.test)
        )
        return Parts(train, validation, test, catalogue.row_count - len(by_id))

    def to_json(self) -> dict[str, object]:
        """What `split.json` holds."""
        return {
            "format": FORMAT,
            "strategy": self.strategy,
            "seed": self.seed,
            "test_size": self.test_size,
            "validation_size": self.validation_size,
            "fingerprint": self.fingerprint,
            "notes": list(self.notes),
            "parts": {
                name: {"rows": len(ids), "sha256": _sha256(ids), "ids": list(ids)} for name, ids in self.rows().items()
            },
        }

    @classmethod
    def load(cls, path: Path) -> Splits:
        """Read `split.json`.

        Raises:
            InputError: there is no such file, or it is a folder.
            CorruptArtifactError: no split, or one whose rows do not match their hashes.
        """
        if path.is_dir():
            raise InputError(f"{path}: is a folder. Name the file in it: {path / 'split.json'}")
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            parts = {name: _ids(stored["parts"][name], f"{path}: part '{name}'") for name in PARTS}
            splits = cls(
                strategy=_strategy(stored["strategy"]),
                seed=int(stored["seed"]),
                test_size=float(stored["test_size"]),
                validation_size=float(stored["validation_size"]),
                fingerprint=str(stored["fingerprint"]),
                notes=tuple(map(str, stored["notes"])),
                **parts,
            )
        except (FileNotFoundError, NotADirectoryError):
            raise InputError(f"{path}: there is no such split. Make one: shelfwise split CATALOGUE --out DIR") from None
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise CorruptArtifactError(
                f"{path}: not a readable split ({error}). Make it again: shelfwise split CATALOGUE --out DIR --force"
            ) from error
        rows = sorted((*splits.train, *splits.validation, *splits.test))
        if rows != list(range(len(rows))):
            raise CorruptArtifactError(f"{path}: a row stands in two parts, or in none. Restore the file.")
        return splits


def make_splits(catalogue: Catalogue, config: SplitConfig) -> Splits:
    """Cut a catalogue into train, validation and test; the same catalogue and settings always give the same parts.

    Args:
        catalogue: also its rejected rows are given a part, so that ids need no renumbering.
        config: the strategy, its seed and the sizes; `file` is not looked at.

    Raises:
        CatalogueError: too few rows, or no brands to hold out.
    """
    train, validation, test = _strategies.assign(catalogue, config)
    splits = Splits(
        strategy=config.strategy,
        seed=config.seed,
        test_size=config.test_size,
        validation_size=config.validation_size,
        fingerprint=catalogue.fingerprint,
        train=train,
        validation=validation,
        test=test,
    )
    return replace(splits, notes=tuple(_notes(catalogue, splits.parts(catalogue), config.strategy)))


def _notes(catalogue: Catalogue, parts: Parts, strategy: SplitStrategy) -> Iterator[str]:
    """What a user of the split must know, a sentence each."""
    train, validation, test = ({product.label for product in part} for part in parts[:3])
    rows = Counter(product.label for product in catalogue.labelled)
    single = sum(count == 1 for count in rows.values())
    if strategy != "random" and single:
        yield f"Types with a single row stay in train: {single}."
    if untested := len(rows.keys() - test):
        yield f"Types without a row in test, so without a score: {untested} of {len(rows)}."
    if untaught := len((test | validation) - train):
        yield f"Types in test or validation but not in train, which no model can get right: {untaught}."
    if again := len(repeated([*parts.train, *parts.validation], parts.test)):
        share = f"{again:,} of {len(parts.test):,} ({again / len(parts.test):.1%})"
        yield f"Products of test whose name train or validation holds too: {share}."
    if parts.left_out:
        rejected = len(catalogue.rejects)
        yield (
            f"Rows left out when the split is used: {rejected:,} rejected, "
            f"{parts.left_out - rejected:,} without an inventory type."
        )
    for name, products in zip(PARTS, parts[:3], strict=True):
        if not products:
            yield f"Nothing could be held out for {name}: too few names for these sizes."


def repeated(seen: Iterable[Product], asked: Iterable[Product]) -> tuple[Product, ...]:
    """Those of `asked` whose name stands in `seen` too, as `names.name_key` compares names."""
    known = {name_key(product.name) for product in seen}
    return tuple(product for product in asked if name_key(product.name) in known)


def _ids(part: Mapping[str, object], where: str) -> tuple[int, ...]:
    ids = cast("Sequence[object]", part["ids"])
    if not isinstance(ids, list) or not all(type(row) is int for row in ids):
        raise ValueError(f"{where}: ids are whole numbers")
    rows = cast("tuple[int, ...]", tuple(ids))
    if _sha256(rows) != part["sha256"] or len(rows) != part["rows"]:
        raise ValueError(f"{where} does not match its hash")
    return rows


def _strategy(name: object) -> SplitStrategy:
    if name not in get_args(SplitStrategy):
        raise ValueError(f"'{name}' is no strategy")
    return cast("SplitStrategy", name)


def _sha256(ids: Sequence[int]) -> str:
    return hashlib.sha256(json.dumps(list(ids)).encode()).hexdigest()
