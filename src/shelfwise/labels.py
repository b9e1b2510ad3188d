"""The ordered inventory types of a run, and the taxonomy above them. Labels are data, never syntax."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from shelfwise.errors import COPY_AGAIN, CorruptArtifactError, InputError, did_you_mean
from shelfwise.records import Product

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Taxonomy:
    """Where each inventory type sits: category > sub-category > type. It need not be a tree.

    `paths[label]` holds every (category, sub-category) the label was seen under with its number of products, most
    frequent first. A label without a category has no entry.
    """

    paths: dict[str, tuple[tuple[str, str, int], ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, products: Iterable[Product]) -> Taxonomy:
        """Count the paths of labelled products. Ties are broken by name, so the result depends on the rows alone."""
        counts: dict[str, Counter[tuple[str, str]]] = {}
        for product in products:
            if product.label is not None and product.category:
                counts.setdefault(product.label, Counter())[(product.category, product.sub_category)] += 1
        return cls(
            {
                label: tuple((c, s, n) for (c, s), n in sorted(counter.items(), key=lambda item: (-item[1], item[0])))
                for label, counter in sorted(counts.items())
            }
        )

    def path(self, label: str) -> tuple[str, ...]:
        """The label's most frequent path: (category, sub-category, label), without the levels that are unknown."""
        known = self.paths.get(label)
        return (*(level for level in known[0][:2] if level), label) if known else (label,)

    def category(self, label: str) -> str | None:
        """The label's most frequent category, or None."""
        known = self.paths.get(label)
        return known[0][0] if known else None

    def __bool__(self) -> bool:
        return bool(self.paths)


@dataclass(frozen=True, slots=True)
class Labels:
    """The closed, ordered set of inventory types of a run; `index` and position agree, always."""

    names: tuple[str, ...]
    taxonomy: Taxonomy = field(default_factory=Taxonomy)
    _index: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        index = {name: position for position, name in enumerate(self.names)}
        if len(index) != len(self.names):
            raise InputError(f"Labels must be unique: {len(self.names) - len(index)} of them are repeated.")
        if not all(self.names):
            raise InputError("An empty text is no label.")
        object.__setattr__(self, "_index", index)

    @classmethod
    def of(cls, products: Iterable[Product]) -> Labels:
        """The labels of these products in sorted order, with their taxonomy."""
        labelled = [product for product in products if product.label is not None]
        return cls(tuple(sorted({p.label for p in labelled if p.label is not None})), Taxonomy.of(labelled))

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __contains__(self, name: object) -> bool:
        return name in self._index

    def __getitem__(self, position: int) -> str:
        return self.names[position]

    def index(self, name: str, source: str = "") -> int:
        """Position of a label.

        Raises:
            InputError: the label is not one of this run's; names the row `source` and the nearest label.
        """
        position = self._index.get(name)
        if position is None:
            where = f"{source}: " if source else ""
            raise InputError(
                f"{where}'{name}' is not one of the {len(self)} inventory types of this run."
                f"{did_you_mean(name, self.names)}"
            )
        return position

    @property
    def sha256(self) -> str:
        """Hash of the ordered names, 64 hex digits; two runs with equal hashes give comparable probabilities."""
        return hashlib.sha256(json.dumps(self.names, ensure_ascii=False).encode()).hexdigest()

    def to_json(self) -> dict[str, object]:
        """What `labels.json` holds."""
        return {
            "format": FORMAT,
            "sha256": self.sha256,
            "labels": list(self.names),
            "taxonomy": {label: [list(path) for path in paths] for label, paths in self.taxonomy.paths.items()},
        }

    @classmethod
    def load(cls, path: Path) -> Labels:
        """Read `labels.json`.

        Raises:
            CorruptArtifactError: the file can't be read as labels, or its hash does not match its names.
        """
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            paths = {
                str(label): tuple((str(c), str(s), int(n)) for c, s, n in found)
                for label, found in stored["taxonomy"].items()
            }
            labels = cls(tuple(map(str, stored["labels"])), Taxonomy(paths))
            expected = stored["sha256"]
        except (OSError, ValueError, KeyError, TypeError, AttributeError, InputError) as error:
            raise CorruptArtifactError(f"{path}: not a readable label list ({error}). {COPY_AGAIN}") from error
        if labels.sha256 != expected:
            raise CorruptArtifactError(
                f"{path}: the labels do not match their recorded hash, so probabilities would be given to the wrong "
                f"types. {COPY_AGAIN}"
            )
        return labels
