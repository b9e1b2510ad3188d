"""What traffic is held against: words and brands of the training rows, and how the held-out products came out."""

from __future__ import annotations

import json
import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from shelfwise import artifact
from shelfwise import config as configs
from shelfwise.baseline import VOCABULARY
from shelfwise.data.catalogue import read_catalogue
from shelfwise.data.split import Splits
from shelfwise.errors import ShelfwiseError
from shelfwise.labels import Labels
from shelfwise.pipelines.evaluation import PREDICTIONS
from shelfwise.server.monitor import CONFIDENCE_BINS, MAX_NOVEL_LENGTH, Known, confidence_bin, words_of
from shelfwise.server.monitor_rules import Expected
from shelfwise.text import fold

_LOG = logging.getLogger(__name__)
NO_CATEGORY = "without a category"
EXAMPLES_PER_TYPE = 8
MAX_CATALOGUE_BYTES = 64 << 20  # read only to know its brands and some names of each type
MAX_VOCABULARY_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class Reference:
    """What a run folder tells about the products that it was made of. Parts that can't be had are empty."""

    known: Known = Known()  # noqa: RUF009  frozen
    expected: Expected = Expected()  # noqa: RUF009  frozen
    examples: Mapping[str, tuple[str, ...]] | None = None  # type to names of it
    categories: Mapping[str, str] | None = None  # type to its most frequent category
    trained_at_s: float = 0.0  # seconds since 1970

    def groups(self, types: Mapping[str, int]) -> dict[str, int]:
        """Counts by type as counts by category; as they are where the taxonomy knows none."""
        if not self.categories:
            return dict(types)
        found: Counter[str] = Counter()
        for name, count in types.items():
            found[self.categories.get(name, NO_CATEGORY)] += count
        return dict(found)

    @classmethod
    def of(cls, run: Path) -> Reference:
        """Read it from a run folder; what is missing or damaged there is left out and logged."""
        labels = Labels.load(run / artifact.LABELS)
        categories = {name: category for name in labels if (category := labels.taxonomy.category(name)) is not None}
        names, brands = _from_catalogue(run)
        known = Known(_words(run), brands)
        trained_at_s = _trained_at_s(run)
        bare = cls(known, Expected(train_rows=_train_rows(run)), names, categories, trained_at_s)
        held_out = _held_out(run)
        if not held_out:
            return bare
        examples = _with(names, held_out.examples)
        return cls(known, _expected(bare, held_out), examples, categories, trained_at_s)


@dataclass(frozen=True, slots=True)
class _HeldOut:
    """The rows of the run's evaluation."""

    texts: Sequence[str]
    answered: Sequence[str]
    confidence: Sequence[float]
    accepted: int
    examples: Mapping[str, tuple[str, ...]]


def _expected(bare: Reference, rows: _HeldOut) -> Expected:
    bins = Counter(map(confidence_bin, rows.confidence))
    novel = sum(bool(bare.known.new_words(text)) for text in rows.texts)
    return Expected(
        products=len(rows.texts),
        accepted_share=rows.accepted / len(rows.texts),
        novel_share=novel / len(rows.texts) if bare.known.words else None,
        confidence=tuple(bins[i] for i in range(CONFIDENCE_BINS)),
        groups=bare.groups(Counter(rows.answered)),
        train_rows=bare.expected.train_rows,
    )


def _held_out(run: Path) -> _HeldOut | None:
    import pyarrow as pa
    from pyarrow import parquet

    path = run / artifact.EVALUATION / PREDICTIONS
    if not path.is_file():
        return None
    wanted = ["text", "true_type", "predicted_type", "confidence", "decision"]
    try:
        columns = parquet.read_table(path, columns=wanted).to_pydict()
    except (OSError, KeyError, pa.ArrowException) as error:
        _LOG.warning("%s is not readable: %s", path, error)
        return None
    if not columns["text"]:
        return None
    return _HeldOut(
        texts=columns["text"],
        answered=columns["predicted_type"],
        confidence=columns["confidence"],
        accepted=sum(decision == "accept" for decision in columns["decision"]),
        examples=_first(zip(columns["true_type"], columns["text"], strict=True)),
    )


def _words(run: Path) -> frozenset[str]:
    """The single words of the baseline's vocabulary: those of all training texts."""
    path = run / artifact.BASELINE / VOCABULARY
    try:
        if path.stat().st_size > MAX_VOCABULARY_BYTES:
            return frozenset()
        words, _ = json.loads(path.read_text(encoding="utf-8"))
        return frozenset().union(*(words_of(word) for word in words if " " not in word))
    except (OSError, ValueError, TypeError) as error:
        _LOG.info("the words of the training rows are not known: %s", error)
        return frozenset()


def _from_catalogue(run: Path) -> tuple[Mapping[str, tuple[str, ...]], frozenset[str]]:
    """Names of each type, and all brands, where the catalogue is still where it was when the run was trained."""
    config = configs.load(run / artifact.CONFIG)
    path = config.catalogue
    try:
        if path is None or not path.is_file() or path.stat().st_size > MAX_CATALOGUE_BYTES:
            return {}, frozenset()
        catalogue = read_catalogue(path, config.columns, config.text_columns)
    except (OSError, ShelfwiseError) as error:
        _LOG.info("the training catalogue is not readable: %s", error)
        return {}, frozenset()
    brands = frozenset(fold(product.brand)[:MAX_NOVEL_LENGTH] for product in catalogue.products if product.brand)
    return _first((product.label or "", product.name) for product in catalogue.labelled), brands


def _trained_at_s(run: Path) -> float:
    try:
        return datetime.fromisoformat(artifact.read_manifest(run, verify=False)["created"]).timestamp()
    except (ShelfwiseError, KeyError, TypeError, ValueError) as error:
        _LOG.info("it is not known when the run was trained: %s", error)
        return 0.0


def _train_rows(run: Path) -> int:
    try:
        return len(Splits.load(run / artifact.SPLIT).train)
    except ShelfwiseError as error:
        _LOG.info("the number of training rows is not known: %s", error)
        return 0


def _first(pairs: Iterable[tuple[str, str]]) -> dict[str, tuple[str, ...]]:
    """The first different names of each type."""
    found: dict[str, list[str]] = defaultdict(list)
    for label, name in pairs:
        names = found[label]
        if len(names) < EXAMPLES_PER_TYPE and name not in names:
            names.append(name)
    return {label: tuple(names) for label, names in found.items()}


def _with(first: Mapping[str, tuple[str, ...]], then: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """Both, as far as there is room for examples."""
    return {
        label: tuple(dict.fromkeys((*first.get(label, ()), *then.get(label, ()))))[:EXAMPLES_PER_TYPE]
        for label in {*first, *then}
    }
