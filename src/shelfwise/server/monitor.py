"""What the service answered, counted by the hour: no name is kept, only words and brands that training never had.

The service tells `Traffic.observe` every batch and `Traffic.timed` every answered request; the page asks for a `Seen`.
Counts are written to a file every `SAVE_PERIOD_S`, whole or not at all; a crash loses what came since.
"""

from __future__ import annotations

import json
import logging
import re
import threading
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shelfwise.errors import StorageError
from shelfwise.server.contract import Answer
from shelfwise.storage import write_json
from shelfwise.text import fold

_LOG = logging.getLogger(__name__)
FORMAT = 1
HOUR_S = 3600
KEPT_HOURS = 24 * 28
SAVE_PERIOD_S = 30.0
MAX_NOVEL = 200  # new words, and new brands, that an hour keeps
MAX_NOVEL_LENGTH = 40  # characters
MAX_BYTES = 64 << 20
CONFIDENCE_BINS = 10
# Upper ends, seconds; the last bin has none.
LATENCY_ENDS = (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_WORD = re.compile(r"[^\W\d_]{3,}")  # letters; numbers and units are new in every catalogue


@dataclass(slots=True)
class Hour:
    """The counts of one hour."""

    requests: int = 0
    products: int = 0
    accepted: int = 0
    novel: int = 0  # products with a word that training never had
    latency: list[int] = field(default_factory=lambda: [0] * (len(LATENCY_ENDS) + 1))  # requests
    confidence: list[int] = field(default_factory=lambda: [0] * CONFIDENCE_BINS)  # products
    types: Counter[str] = field(default_factory=Counter)
    words: Counter[str] = field(default_factory=Counter)  # that training never had
    brands: Counter[str] = field(default_factory=Counter)  # the same

    def add(self, other: Hour) -> None:
        """Add another hour's counts to these."""
        self.requests += other.requests
        self.products += other.products
        self.accepted += other.accepted
        self.novel += other.novel
        self.latency = [a + b for a, b in zip(self.latency, other.latency, strict=True)]
        self.confidence = [a + b for a, b in zip(self.confidence, other.confidence, strict=True)]
        for mine, theirs in ((self.types, other.types), (self.words, other.words), (self.brands, other.brands)):
            mine.update(theirs)

    @property
    def accepted_share(self) -> float | None:
        """In [0, 1]; None without products."""
        return self.accepted / self.products if self.products else None

    @property
    def novel_share(self) -> float | None:
        """Products with a new word, in [0, 1]; None without products."""
        return self.novel / self.products if self.products else None

    def latency_s(self, share: float) -> float | None:
        """The upper end of the bin that this share of the requests was answered within; None without requests."""
        wanted, total = share * sum(self.latency), 0
        for end, count in zip((*LATENCY_ENDS, float("inf")), self.latency, strict=True):
            total += count
            if count and total >= wanted:
                return end
        return None


@dataclass(frozen=True, slots=True)
class Known:
    """What training had, folded; an empty set: that is not known, and nothing counts as new."""

    words: frozenset[str] = frozenset()
    brands: frozenset[str] = frozenset()

    def new_words(self, text: str) -> set[str]:
        """The words of a text that training never had."""
        return words_of(text) - self.words if self.words else set()

    def new_brand(self, brand: str) -> str | None:
        """The brand, folded, if there is one and training never had it."""
        folded = fold(brand)[:MAX_NOVEL_LENGTH] if brand and self.brands else ""
        return folded if folded and folded not in self.brands else None


@dataclass(frozen=True, slots=True)
class Seen:
    """What was answered in a stretch of time."""

    total: Hour
    by_hour: tuple[tuple[float, Hour], ...]  # (begin in seconds since 1970, counts), oldest first, without gaps


def words_of(text: str) -> set[str]:
    """The words of a text as they are compared: letters only, folded, three or more."""
    return {word[:MAX_NOVEL_LENGTH] for word in _WORD.findall(fold(text))}


class Traffic:
    """The counts of one service; every method may be called from any thread."""

    def __init__(
        self, path: Path | None = None, known: Known = Known(), clock: Callable[[], float] = time.time
    ) -> None:
        self._path = path
        self._known = known
        self._clock = clock
        self._lock = threading.Lock()
        self._hours: dict[int, Hour] = _load(path) if path is not None else {}

    def know(self, known: Known) -> None:
        """From now on, tell what is new by this."""
        self._known = known

    def observe(self, answers: Sequence[Answer]) -> None:
        """Count the answers of a batch; quick, and never waits for the disk."""
        one, known = Hour(products=len(answers)), self._known
        for answer in answers:
            new = known.new_words(answer.product.text)
            one.novel += bool(new)
            one.words.update(new)
            if (brand := known.new_brand(answer.product.brand)) is not None:
                one.brands[brand] += 1
            one.accepted += answer.prediction.decision == "accept"
            one.confidence[confidence_bin(answer.prediction.confidence)] += 1
            one.types[answer.prediction.label] += 1
        self._add(one)

    def timed(self, seconds: float) -> None:
        """Count a request that was answered within so long."""
        number, latency_bin = int(self._clock() // HOUR_S), bisect_left(LATENCY_ENDS, seconds)
        with self._lock:
            hour = self._hours.get(number) or self._hours.setdefault(number, Hour())
            hour.requests += 1
            hour.latency[latency_bin] += 1

    def _add(self, one: Hour) -> None:
        number = int(self._clock() // HOUR_S)
        with self._lock:
            hour = self._hours.setdefault(number, Hour())
            hour.add(one)
            hour.words, hour.brands = _bounded(hour.words), _bounded(hour.brands)

    def seen(self, hours: int) -> Seen:
        """The last so many hours, the present one included."""
        now = int(self._clock() // HOUR_S)
        total, by_hour = Hour(), []
        with self._lock:
            for number in range(now - hours + 1, now + 1):
                hour = Hour()
                hour.add(self._hours.get(number, Hour()))
                total.add(hour)
                by_hour.append((float(number * HOUR_S), hour))
        return Seen(total, tuple(by_hour))

    def save(self) -> None:
        """Write the counts down. A disk that refuses is logged: it must not cost an answer."""
        if self._path is None:
            return
        oldest = int(self._clock() // HOUR_S) - KEPT_HOURS
        with self._lock:
            self._hours = {number: hour for number, hour in self._hours.items() if number > oldest}
            document = {"format": FORMAT, "hours": {str(n): _stored(hour) for n, hour in self._hours.items()}}
        try:
            write_json(self._path, document)
        except StorageError as error:
            _LOG.warning("the traffic counts were not saved: %s", error)


def confidence_bin(confidence: float) -> int:
    """Which of `CONFIDENCE_BINS` equal bins of [0, 1]."""
    return min(int(confidence * CONFIDENCE_BINS), CONFIDENCE_BINS - 1)


def _bounded(counts: Counter[str]) -> Counter[str]:
    """The more frequent half of a counter that has grown too large."""
    return counts if len(counts) <= MAX_NOVEL else Counter(dict(counts.most_common(MAX_NOVEL // 2)))


def _stored(hour: Hour) -> dict[str, object]:
    return {name: getattr(hour, name) for name in Hour.__slots__}


def _load(path: Path) -> dict[int, Hour]:
    """The counts of an earlier service; none where they can't be read, for they are worth less than a start."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError("too large")
        stored = json.loads(path.read_text(encoding="utf-8"))
        return {int(number): _hour(hour) for number, hour in stored["hours"].items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        _LOG.warning("%s is not readable (%s); counting starts anew", path, type(error).__name__)
        return {}


def _hour(stored: Mapping[str, Any]) -> Hour:
    hour = Hour()
    for name in ("requests", "products", "accepted", "novel"):
        setattr(hour, name, int(stored[name]))
    for name in ("latency", "confidence"):
        counts = [int(count) for count in stored[name]]
        if len(counts) != len(getattr(hour, name)):
            raise ValueError(f"'{name}' has {len(counts)} bins")
        setattr(hour, name, counts)
    for name in ("types", "words", "brands"):
        setattr(hour, name, Counter({str(key): int(count) for key, count in stored[name].items()}))
    return hour
