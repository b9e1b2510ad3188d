"""Asking classifiers for labelled rows: a blend and its parts together, so that no text is scored twice."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from shelfwise import metrics
from shelfwise.blend import BlendScorer
from shelfwise.classifier import Classifier
from shelfwise.config import Role
from shelfwise.pipelines.evaluation import Kind
from shelfwise.pipelines.scoring import TOP_K, Answers, Rows
from shelfwise.thresholds import Decided

CHUNK = 1024  # texts scored together; bounds the (texts, labels) table in memory, and the wait for a sign of progress

Progress = Callable[[str, int, int], None]  # classifier's name, texts done, texts in all
Clock = Callable[[], float]  # seconds


@dataclass(frozen=True, slots=True)
class Panel:
    """Classifiers of the same labels and text columns that are asked together, at least one."""

    members: tuple[tuple[Kind, Classifier], ...]

    @property
    def name(self) -> str:
        """For progress: the blend's, whose parts the others are; else that of the only member."""
        names = [classifier.name for _, classifier in self.members]
        return next((c.name for _, c in self.members if isinstance(c.scorer, BlendScorer)), names[-1])

    @property
    def text_columns(self) -> tuple[Role, ...]:
        """What all read."""
        return self.members[0][1].text_columns

    def answer(
        self, rows: Rows, progress: Progress | None = None, *, what: str = "", clock: Clock = time.perf_counter
    ) -> tuple[Answers, ...]:
        """Ask for all rows.

        Each different text is scored once, in the order of its length, so that a language model's batches hold texts of
        like length whatever the order of the rows. A blend's seconds are those that it takes when it is asked alone.

        Args:
            rows: what is asked.
            progress: called after each chunk.
            what: what is special about these rows, for `progress`: "perturbed".
            clock: seconds, monotonic.

        Returns:
            The answers of each member, in their order.
        """
        texts = sorted({product.text for product in rows.products}, key=lambda text: (len(text), text))
        of_text: dict[str, list[int]] = {}
        for position, product in enumerate(rows.products):
            of_text.setdefault(product.text, []).append(position)
        order: list[int] = []
        sheets = [_Sheet(kind, classifier) for kind, classifier in self.members]
        for start in range(0, len(texts), CHUNK):
            chunk = _Chunk(texts[start : start + CHUNK], clock)
            positions = [(i, position) for i, text in enumerate(chunk.texts) for position in of_text[text]]
            order.extend(position for _, position in positions)
            here = rows.targets[[position for _, position in positions]]
            for sheet in sheets:
                sheet.add(chunk, [i for i, _ in positions], here)
            if progress is not None:
                progress(", ".join(filter(None, (self.name, what))), start + len(chunk.texts), len(texts))
        return tuple(sheet.answers(np.asarray(order), rows) for sheet in sheets)


def answer(classifier: Classifier, kind: Kind, rows: Rows, progress: Progress | None = None) -> Answers:
    """Ask one classifier for all rows, as `Panel.answer` does."""
    return Panel(((kind, classifier),)).answer(rows, progress)[0]


class _Chunk:
    """Some texts, and what classifiers said to them."""

    def __init__(self, texts: Sequence[str], clock: Clock) -> None:
        self.texts = texts
        self.clock = clock
        self._said: dict[int, tuple[NDArray[np.float32], float]] = {}  # by the identity of the scorer

    def ask(self, classifier: Classifier) -> tuple[NDArray[np.float32], float]:
        """(N, C) uncalibrated natural logarithms, and the seconds that they take when the classifier is asked alone."""
        scorer = classifier.scorer
        if id(scorer) not in self._said:
            seconds = 0.0
            if isinstance(scorer, BlendScorer):
                (model, of_model), (baseline, of_baseline) = self.ask(scorer.model), self.ask(scorer.baseline)
                began, seconds = self.clock(), of_model + of_baseline
                said = scorer.join(model, baseline)
            else:
                began = self.clock()
                said = classifier.log_probs(self.texts)
            self._said[id(scorer)] = said, seconds + self.clock() - began
        return self._said[id(scorer)]


@dataclass(slots=True)
class _Sheet:
    """What one classifier answered so far; rows in the order in which they were asked."""

    kind: Kind
    classifier: Classifier
    seconds: float = 0.0
    _ranked: list[metrics.Ranked] = field(default_factory=list)
    _decided: list[Decided] = field(default_factory=list)
    _raw: list[NDArray[np.float32]] = field(default_factory=list)

    def add(self, chunk: _Chunk, of_row: Sequence[int], targets: NDArray[np.int64]) -> None:
        """Take down the answers to a chunk; `of_row` says which text of it each of the rows has."""
        uncalibrated, seconds = chunk.ask(self.classifier)
        began = chunk.clock()
        calibration = self.classifier.calibration
        log_probs = calibration.log_probs(uncalibrated)
        ranked = metrics.rank(log_probs[of_row], targets, TOP_K)
        found = calibration.decide(np.exp(log_probs), self.classifier.shelves)
        self._ranked.append(ranked)
        self._raw.append(np.exp(uncalibrated[of_row, ranked.answers[:, 0]]))
        self._decided.append(Decided(found.level[of_row], found.node[of_row]))
        self.seconds += seconds + chunk.clock() - began

    def answers(self, order: NDArray[np.int64], rows: Rows) -> Answers:
        """All answers; `order` holds the positions in `rows` of what was taken down."""
        back = np.argsort(order)
        depth = Decided.joined(self._decided)
        return Answers(
            kind=self.kind,
            name=self.classifier.name,
            ranked=metrics.Ranked(
                np.concatenate([part.answers for part in self._ranked])[back],
                np.concatenate([part.probabilities for part in self._ranked])[back],
                np.concatenate([part.of_truth for part in self._ranked])[back],
            ),
            calibration=self.classifier.calibration,
            seconds=self.seconds,
            level=depth.level[back],
            sure_right=self.classifier.shelves.right(depth, rows.targets[order])[back],
            raw_confidence=np.concatenate(self._raw)[back],
        )
