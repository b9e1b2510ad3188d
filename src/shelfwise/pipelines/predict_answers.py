"""Who answers in a prediction job, and what is remembered of the answers.

Identical texts are answered once: a language model's of the last parts are remembered. What is remembered is written
down with each part, so a resumed job asks its classifier for exactly the texts that an unbroken one asks for, in the
same batches. A language model's last bits depend on the batch, and the file is to be the same byte by byte. The
baseline's do not, and it answers as quickly as a memory would: nothing is remembered of it from one part to the next.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from shelfwise.classifier import Classifier
from shelfwise.config import Role
from shelfwise.errors import CorruptArtifactError
from shelfwise.labels import Labels
from shelfwise.records import LEVELS, Prediction


@dataclass(frozen=True, slots=True)
class Answer:
    """One prediction, and who made it."""

    prediction: Prediction
    model: str


class Answerer(Protocol):
    """What answers the texts of a job: one classifier, or several in a row (`pipelines.cascade`)."""

    @property
    def name(self) -> str:
        """For the summary."""
        ...

    @property
    def labels(self) -> Labels:
        """The types that it knows."""
        ...

    @property
    def text_columns(self) -> tuple[Role, ...]:
        """What it reads."""
        ...

    @property
    def exact(self) -> bool:
        """Whether an answer depends on its text alone, to the last bit, and not on what is asked with it."""
        ...

    def start(self, texts: Sequence[str], top_k: int) -> Callable[[], list[Answer]]:
        """Begin with some texts; what comes back waits for one answer a text, in their order, in any thread."""
        ...


@dataclass(frozen=True, slots=True)
class Alone:
    """One classifier that answers everything; an `Answerer`."""

    classifier: Classifier

    @property
    def name(self) -> str:
        """The classifier's."""
        return self.classifier.name

    @property
    def labels(self) -> Labels:
        """The classifier's."""
        return self.classifier.labels

    @property
    def text_columns(self) -> tuple[Role, ...]:
        """The classifier's."""
        return self.classifier.text_columns

    @property
    def exact(self) -> bool:
        """So the baseline is. A language model's last bits depend on the batch."""
        return getattr(self.classifier.scorer, "exact", False)

    def start(self, texts: Sequence[str], top_k: int) -> Callable[[], list[Answer]]:
        """Begin with some texts; what comes back waits for one answer a text, in their order."""
        predicted = self.classifier.start(texts, top_k=top_k)
        return lambda: [Answer(prediction, self.name) for prediction in predicted()]


def ask_once(answerer: Answerer, texts: Sequence[str], top_k: int) -> tuple[list[Answer], int]:
    """One answer a text, in their order, identical ones asked once; and how many different ones there were."""
    distinct = list(dict.fromkeys(texts))
    found = dict(zip(distinct, answerer.start(distinct, top_k)(), strict=True)) if distinct else {}
    return [found[text] for text in texts], len(distinct)


@dataclass(frozen=True, slots=True)
class Asked:
    """The texts of a part, some of which are under way."""

    texts: Sequence[str]
    distinct: list[str]
    new: list[str]  # of these, those that had to be asked for
    forgotten: list[str]  # texts of earlier parts that no later part will look for
    answers: Callable[[], list[Answer]]  # waits for those of `new`


class Memory:
    """An answerer that remembers the texts of the last `parts` parts.

    Which texts a part needs depends on the texts of earlier parts and not on their answers. So parts can be asked for
    in one thread and told in another, both in the same order.
    """

    def __init__(self, answerer: Answerer, top_k: int, parts: int) -> None:
        self.answerer = answerer
        self.part = 0  # the number of the part that is asked for next
        self._top_k = top_k
        self._parts = parts
        self._last: OrderedDict[str, int] = OrderedDict()  # the part that asked last; oldest first. Of who asks
        self._known: dict[str, Answer] = {}  # of who tells

    def __len__(self) -> int:
        return len(self._last)

    def ask(self, texts: Sequence[str]) -> Asked:
        """Ask for the texts of the next part."""
        forgotten = self._forget()
        distinct = list(dict.fromkeys(texts))
        new = [text for text in distinct if text not in self._last]
        self._remember(distinct)
        answers = self.answerer.start(new, self._top_k) if new else list
        return Asked(texts, distinct, new, forgotten, answers)

    def tell(self, asked: Asked) -> tuple[list[Answer], int, bytes]:
        """Wait for the answers of the next part.

        Returns:
            One answer a text in their order; how many different texts had to be asked for; what `recall` takes.
        """
        for text in asked.forgotten:
            del self._known[text]
        self._known.update(zip(asked.new, asked.answers(), strict=True))
        answers = {text: self._known[text] for text in asked.distinct}
        return [answers[text] for text in asked.texts], len(asked.new), _written(answers.items())

    def recall(self, part: int, written: bytes, source: str) -> None:
        """Take back what was remembered of an earlier part; parts in ascending order, those that still count.

        Raises:
            CorruptArtifactError: it can't be read.
        """
        self.part = part
        try:
            answers = dict(_read(cells, self.answerer.labels) for cells in json.loads(written))
        except (ValueError, TypeError, IndexError, KeyError) as error:
            raise CorruptArtifactError(f"{source}: not readable ({error}). Start over with --force.") from error
        self._remember(answers)
        self._known.update(answers)

    def _remember(self, texts: Iterable[str]) -> None:
        for text in texts:
            self._last[text] = self.part
            self._last.move_to_end(text)
        self.part += 1

    def _forget(self) -> list[str]:
        forgotten = []
        while self._last and next(iter(self._last.values())) < self.part - self._parts:
            forgotten.append(self._last.popitem(last=False)[0])
        return forgotten


def _written(answers: Iterable[tuple[str, Answer]]) -> bytes:
    """JSON of one list each; Python writes a float with all the digits that give it back."""
    cells = []
    for text, answer in answers:
        p = answer.prediction
        cells.append([text, p.top_k, LEVELS.index(p.level), p.sure_path, answer.model])
    return json.dumps(cells, ensure_ascii=False, allow_nan=False).encode()


def _read(cells: Sequence[Any], labels: Labels) -> tuple[str, Answer]:
    text, ranking, level, sure_path, model = cells
    top_k = tuple((str(label), float(share)) for label, share in ranking)
    label, confidence = top_k[0]
    prediction = Prediction(
        label=label,
        confidence=confidence,
        decision="accept" if LEVELS[level] == "type" else "review",
        level=LEVELS[level],
        top_k=top_k,
        path=labels.taxonomy.path(label),
        sure_path=tuple(map(str, sure_path)),
    )
    return str(text), Answer(prediction, str(model))
