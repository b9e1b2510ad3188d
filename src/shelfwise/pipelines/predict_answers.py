"""Who answers in a prediction job, and what is remembered of the answers.

Identical texts are answered once: a language model's of the last parts are remembered. What is remembered is written
down with each part, so a resumed job asks its classifier for exactly the texts that an unbroken one asks for, in the
same batches. A language model's last bits depend on the batch, and the file is to be the same byte by byte. The
baseline's do not, and it answers as quickly as a memory would: nothing is remembered of it from one part to the next.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Iterable, Sequence
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

    def ask(self, texts: Sequence[str], top_k: int) -> list[Answer]:
        """One answer a text, in their order."""
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

    def ask(self, texts: Sequence[str], top_k: int) -> list[Answer]:
        """One answer a text, in their order."""
        return [Answer(prediction, self.name) for prediction in self.classifier.predict(texts, top_k=top_k)]


def ask_once(answerer: Answerer, texts: Sequence[str], top_k: int) -> tuple[list[Answer], int]:
    """One answer a text, in their order, identical ones asked once; and how many different ones there were."""
    distinct = list(dict.fromkeys(texts))
    found = dict(zip(distinct, answerer.ask(distinct, top_k), strict=True)) if distinct else {}
    return [found[text] for text in texts], len(distinct)


class Memory:
    """An answerer that remembers the texts of the last `parts` parts."""

    def __init__(self, answerer: Answerer, top_k: int, parts: int) -> None:
        self.answerer = answerer
        self.part = 0  # the number of the part that is being answered
        self._top_k = top_k
        self._parts = parts
        self._known: OrderedDict[str, tuple[int, Answer]] = OrderedDict()  # with the part that asked last; oldest first

    def __len__(self) -> int:
        return len(self._known)

    def answer_part(self, texts: Sequence[str]) -> tuple[list[Answer], int, bytes]:
        """Answer the texts of the next part.

        Returns:
            One answer a text in their order; how many different texts had to be asked for; what `recall` takes.
        """
        self._forget()
        distinct = list(dict.fromkeys(texts))
        new = [text for text in distinct if text not in self._known]
        asked = dict(zip(new, self.answerer.ask(new, self._top_k), strict=True)) if new else {}
        answers = {text: asked[text] if text in asked else self._known[text][1] for text in distinct}
        self._remember(answers.items())
        return [answers[text] for text in texts], len(new), _written(answers.items())

    def recall(self, part: int, written: bytes, source: str) -> None:
        """Take back what was remembered of an earlier part; parts in ascending order, those that still count.

        Raises:
            CorruptArtifactError: it can't be read.
        """
        self.part = part
        try:
            self._remember(_read(cells, self.answerer.labels) for cells in json.loads(written))
        except (ValueError, TypeError, IndexError, KeyError) as error:
            raise CorruptArtifactError(f"{source}: not readable ({error}). Start over with --force.") from error

    def _remember(self, answers: Iterable[tuple[str, Answer]]) -> None:
        for text, answer in answers:
            self._known[text] = (self.part, answer)
            self._known.move_to_end(text)
        self.part += 1

    def _forget(self) -> None:
        while self._known and next(iter(self._known.values()))[0] < self.part - self._parts:
            self._known.popitem(last=False)


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
