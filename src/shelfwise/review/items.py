"""What a review is about: items, decisions, and what is counted. All bounds on text from outside are here."""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass, field
from typing import Literal

from shelfwise.errors import InputError, WorkError
from shelfwise.records import Level, Prediction
from shelfwise.text import fold, normalise

Action = Literal["accept", "correct", "skip"]
RecordedAction = Literal["accept", "correct", "skip", "undo"]
Status = Literal["open", "accepted", "corrected"]
Reason = Literal["low confidence", "label audit", "live traffic"]

MAX_NAME = 1_000  # characters of a name, a type, a brand; as in `data.catalogue`
MAX_TEXT = 5_000  # of what a model reads: up to four such columns
MAX_SOURCE = 500
MAX_REVIEWER = 200
MAX_COMMENT = 2_000
MAX_RANKED = 50  # types of a prediction that are kept
_KEY = re.compile(r"[A-Za-z0-9_-]{8,100}")


class UnknownItemError(InputError):
    """There is no item of this number in the store."""


class ConflictError(WorkError):
    """The item has changed since it was shown; nothing was stored.

    Attributes:
        item: as it is now.
        decision: what somebody decided meanwhile; None when it was reopened, or another model answered.
    """

    def __init__(self, message: str, item: Item, decision: Recorded | None) -> None:
        super().__init__(message)
        self.item = item
        self.decision = decision


def clean(text: str, what: str, most: int, *, empty: bool = True) -> str:
    """A text from outside, normalised, or an error that names it.

    Raises:
        InputError: longer than `most`, half of a surrogate pair in it, or empty where it may not be.
    """
    if len(text) > most:
        raise InputError(f"{what} has {len(text):,} characters; at most {most:,} are allowed.")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{what} holds half of a surrogate pair, which is no text.") from error
    settled = normalise(text)
    if not settled and not empty:
        raise InputError(f"{what} is empty.")
    return settled


def reviewer_name(text: str) -> str:
    """A reviewer's name, normalised, or an InputError."""
    return clean(text, "The reviewer's name", MAX_REVIEWER, empty=False)


def new_key() -> str:
    """An idempotency key that nobody has used."""
    return uuid.uuid4().hex


def checked_key(key: str) -> str:
    """The key, or an InputError when it is none."""
    if not _KEY.fullmatch(key):
        raise InputError("A decision's key has 8 to 100 letters, digits, '-' and '_'; a UUID does.")
    return key


@dataclass(frozen=True, slots=True)
class NewItem:
    """One row for the queue. Rows of one name (as `name_key` tells) and brand become one item."""

    name: str
    name_key: str  # equal for equal names: `data.names.name_key`
    prediction: Prediction
    model: str  # which classifier answered
    reason: Reason
    brand: str = ""
    text: str = ""  # what the model read; the name when empty
    category: str = ""
    sub_category: str = ""
    source: str = ""  # "predictions.csv:1042"
    given_type: str | None = None  # what the catalogue says, where it says something
    doubt: float | None = None  # probability in [0, 1] that what stands there is wrong; None: 1 - confidence
    origin: str | None = None  # identifies the row: it counts once however often it is added. None: always counts
    rows: int = 1  # how many rows this one stands for

    def __post_init__(self) -> None:
        for name, most in (("name", MAX_NAME), ("name_key", MAX_NAME), ("model", MAX_SOURCE)):
            object.__setattr__(self, name, clean(getattr(self, name), name, most, empty=False))
        for name, most in (
            ("brand", MAX_NAME),
            ("text", MAX_TEXT),
            ("category", MAX_NAME),
            ("sub_category", MAX_NAME),
            ("source", MAX_SOURCE),
        ):
            object.__setattr__(self, name, clean(getattr(self, name), name, most))
        if self.rows < 1:
            raise InputError(f"An item stands for at least one row, not {self.rows}.")
        confidence = self.prediction.confidence
        doubt = 1 - confidence if self.doubt is None else self.doubt
        if not (0 <= confidence <= 1 and 0 <= doubt <= 1):  # also NaN
            raise InputError(f"{self.source or self.name}: confidence and doubt lie between 0 and 1.")
        object.__setattr__(self, "doubt", doubt)

    @property
    def brand_key(self) -> str:
        """Equal for equal brands."""
        return fold(self.brand)


@dataclass(frozen=True, slots=True)
class Item:
    """One product in the queue, as it stands now."""

    id: int
    version: int  # changes with every decision, undo and new prediction; a decision names the one it is about
    status: Status
    settled_type: str | None  # what people decided; None while open
    name: str
    brand: str
    text: str
    category: str
    sub_category: str
    source: str
    rows: int  # how many rows have this name and brand: one decision settles them all
    same_name: int  # open items of this name under other brands
    predicted_type: str
    confidence: float  # calibrated probability of `predicted_type`
    level: Level
    top_k: tuple[tuple[str, float], ...]  # (type, probability), highest first
    path: tuple[str, ...]
    sure_path: tuple[str, ...]
    model: str
    reason: Reason
    given_type: str | None
    priority: float  # rows x probability that what stands there is wrong: see `queue`
    skips: int  # reviewers who skipped it
    leased_by: str | None  # who has it open; None once the lease is over
    leased_until_s: float | None  # seconds since 1970
    added_at_s: float


@dataclass(frozen=True, slots=True)
class Decision:
    """What a reviewer decides about an item."""

    action: Action
    reviewer: str
    version: int  # of the item as it was shown
    type: str | None = None  # correct: the right type; accept, skip: None
    comment: str = ""
    # Also settles the open items of this name under other brands with the same type; one undo takes all back.
    same_name: bool = False
    key: str = field(default_factory=new_key)  # made by the client, once for all repeats of a request

    def __post_init__(self) -> None:
        object.__setattr__(self, "reviewer", reviewer_name(self.reviewer))
        object.__setattr__(self, "comment", clean(self.comment, "The comment", MAX_COMMENT))
        if self.action not in ("accept", "correct", "skip"):
            raise InputError(f"'{self.action}' is no action; decide accept, correct or skip.")
        if (self.type is not None) != (self.action == "correct"):
            raise InputError("A correction names the right type, and nothing else does.")
        if self.type is not None:
            object.__setattr__(self, "type", clean(self.type, "The type", MAX_NAME, empty=False))
        if self.same_name and self.action == "skip":
            raise InputError("One item is skipped at a time.")
        checked_key(self.key)


@dataclass(frozen=True, slots=True)
class Recorded:
    """One line of the record: never changed, never deleted."""

    id: int
    item_id: int
    action: RecordedAction
    type: str | None  # the type it settles the item with; None for skip and undo
    reviewer: str
    at_s: float  # seconds since 1970
    comment: str
    key: str
    batch: str  # the key of the request that it came with; items settled together share it
    undoes: int | None  # undo: the id of the decision that it takes back
    predicted_type: str  # the answer that the reviewer saw
    confidence: float
    model: str


@dataclass(frozen=True, slots=True)
class Filter:
    """Which items; None is any."""

    status: Literal["open", "settled", "accepted", "corrected", "skipped"] | None = None
    reason: Reason | None = None
    predicted_type: str | None = None
    settled_type: str | None = None
    search: str | None = None  # in name and brand, without regard to case


@dataclass(frozen=True, slots=True)
class ReviewerCount:
    """The standing decisions of one reviewer."""

    reviewer: str
    accepted: int
    corrected: int


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the review is. An item is open, accepted or corrected; decisions that were taken back don't count."""

    open: int
    accepted: int
    corrected: int
    skipped: int  # open items that somebody skipped
    leased: int  # open items that somebody has before them
    open_rows: int  # rows of the catalogue that the open items stand for
    settled_rows: int
    reviewers: tuple[ReviewerCount, ...]  # most decisions first

    @property
    def settled(self) -> int:
        """Items that are decided."""
        return self.accepted + self.corrected

    @property
    def total(self) -> int:
        """All items."""
        return self.open + self.settled

    @property
    def agreement(self) -> float | None:
        """Share of the settled items whose predicted type was accepted, in [0, 1]; None when none is settled."""
        return self.accepted / self.settled if self.settled else None


@dataclass(frozen=True, slots=True)
class Override:
    """How often people put one type in another's place."""

    predicted_type: str
    settled_type: str
    items: int


@dataclass(frozen=True, slots=True)
class Example:
    """A product that is of a type, to show what the type holds."""

    type: str
    name: str
    brand: str = ""
