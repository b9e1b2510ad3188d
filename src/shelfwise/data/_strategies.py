"""How each split strategy assigns rows to parts."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from shelfwise.config import SplitConfig
from shelfwise.data.catalogue import Catalogue
from shelfwise.data.names import name_key
from shelfwise.errors import CatalogueError, InputError
from shelfwise.records import Product

Rows = tuple[int, ...]
_MAX_SEED = 2**32 - 1  # NumPy's, and so scikit-learn's


@dataclass(frozen=True, slots=True)
class _Group:
    """Rows that must not be parted."""

    rows: Rows
    labels: Counter[str]  # of the labelled rows
    stratum: str  # groups of one stratum are held out in proportion
    order: bytes  # places the group in its stratum


def assign(catalogue: Catalogue, config: SplitConfig) -> tuple[Rows, Rows, Rows]:
    """The rows of train, validation and test, each sorted.

    Raises:
        CatalogueError: too few rows, or no brands to hold out.
    """
    if config.strategy == "random":
        return _random(catalogue, config)
    if config.strategy == "brand" and not any(product.brand for product in catalogue.products):
        raise CatalogueError(
            f"{catalogue.path}: strategy 'brand' holds out whole brands, and no product has one. Name the column with "
            "--brand, or use --strategy grouped."
        )
    groups = _groups(catalogue.products, config)
    test = _held_out(groups, config.test_size)
    left = [group for i, group in enumerate(groups) if i not in test]
    validation = _held_out(left, config.validation_size)
    unusable = [reject.id for reject in catalogue.rejects]
    return (
        _sorted_rows((group for i, group in enumerate(left) if i not in validation), unusable),
        _sorted_rows(left[i] for i in validation),
        _sorted_rows(groups[i] for i in test),
    )


def _random(catalogue: Catalogue, config: SplitConfig) -> tuple[Rows, Rows, Rows]:
    """`train_test_split` over the rows of the file as it stands, unusable ones included.

    With the default seed and test size these are the rows that the notebooks published for the BigBasket data hold out.
    """
    from sklearn.model_selection import train_test_split

    if config.seed > _MAX_SEED:
        raise InputError(f"A seed of strategy 'random' is at most {_MAX_SEED:,}, not {config.seed:,}.")
    try:
        rest, test = train_test_split(range(catalogue.row_count), test_size=config.test_size, random_state=config.seed)
        train, validation = (
            train_test_split(rest, test_size=config.validation_size, random_state=config.seed)
            if config.validation_size
            else (rest, [])
        )
    except ValueError as error:
        raise CatalogueError(
            f"{catalogue.path}: {catalogue.row_count:,} rows are too few to hold out {config.test_size:g} of them for "
            f"test and {config.validation_size:g} of the others for validation."
        ) from error
    return tuple(sorted(train)), tuple(sorted(validation)), tuple(sorted(test))


def _groups(products: Iterable[Product], config: SplitConfig) -> list[_Group]:
    """Products of one name, or of one brand; a product without a brand goes with its name.

    Groups are ordered by a hash of seed and name: the same on every machine and Python, and nearly the same after a
    few products were added to the catalogue.
    """
    members: dict[str, list[Product]] = {}
    for product in products:
        by_brand = config.strategy == "brand" and product.brand
        key = f"brand\x1f{name_key(product.brand)}" if by_brand else f"name\x1f{name_key(product.name)}"
        members.setdefault(key, []).append(product)
    groups = []
    for key, together in members.items():
        labels = Counter(product.label for product in together if product.label is not None)
        most = min(labels, key=lambda label: (-labels[label], label)) if labels else ""
        groups.append(
            _Group(
                rows=tuple(product.id for product in together),
                labels=labels,
                stratum=most if config.strategy == "grouped" else "",  # a brand has many types
                order=hashlib.sha256(f"{config.seed}\x1f{key}".encode()).digest(),
            )
        )
    return groups


def _held_out(groups: Sequence[_Group], share: float) -> set[int]:
    """Positions of the groups to hold out: about `share` of the rows of each stratum, and of all rows.

    A group stays where holding it out would leave one of its labels without any row. So every label of `groups`
    occurs in the rest: a type with a single row, or with a single name, is never held out.
    """
    left: Counter[str] = Counter()
    strata: dict[str, list[int]] = {}
    for position, group in enumerate(groups):
        left.update(group.labels)
        strata.setdefault(group.stratum, []).append(position)
    held: set[int] = set()
    owed = 0.0  # rows that rounding kept from the strata before: rare types get their share together
    for _, members in sorted(strata.items()):
        wanted = share * sum(len(groups[position].rows) for position in members) + owed
        for position in sorted(members, key=lambda position: groups[position].order):
            group = groups[position]
            nearer = len(group.rows) < 2 * wanted
            if nearer and all(left[label] > count for label, count in group.labels.items()):
                held.add(position)
                left.subtract(group.labels)
                wanted -= len(group.rows)
        owed = min(1.0, max(-1.0, wanted))  # one row at most: a stratum of one large group must not burden the next
    return held


def _sorted_rows(groups: Iterable[_Group], more: Iterable[int] = ()) -> Rows:
    return tuple(sorted([*more, *(row for group in groups for row in group.rows)]))
