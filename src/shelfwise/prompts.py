"""The seam between what a model reads and what it answers. The only owner of the space between them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from shelfwise.errors import COPY_AGAIN, CorruptArtifactError, InputError

IGNORE_INDEX = -100  # torch.nn.functional.cross_entropy's default: positions that are no target


@dataclass(frozen=True, slots=True)
class PromptFormat:
    """How a product's text becomes a prompt, and an inventory type its completion.

    The completion owns the space: ``"Basmati Rice 1 kg ->:"`` + ``" Rice"``. With both SentencePiece and byte-level
    BPE tokenizers a token never crosses a space from the left, so prompt and completion can be tokenised apart
    (`modeling.encoding` checks it for the tokenizer at hand).
    """

    suffix: str = " ->:"
    separator: str = " "

    def __post_init__(self) -> None:
        if not self.separator.startswith(" ") or self.suffix.endswith(" "):
            raise InputError("The space between prompt and completion belongs to the completion.")

    def prompt(self, text: str) -> str:
        """What the model reads; never holds the label."""
        return f"{text}{self.suffix}"

    def completion(self, label: str) -> str:
        """What a `completion` model answers, without the end-of-text token."""
        return f"{self.separator}{label}"

    def labelled(self, text: str, label: str) -> str:
        """Product text and inventory type joined: one line of labelled training text."""
        return self.prompt(text) + self.completion(label)

    def to_json(self) -> dict[str, object]:
        """What `prompt.json` holds."""
        return asdict(self)

    @classmethod
    def load(cls, path: Path) -> PromptFormat:
        """Read `prompt.json`.

        Raises:
            CorruptArtifactError: the file can't be read as a prompt format.
        """
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError, InputError) as error:
            raise CorruptArtifactError(f"{path}: not a readable prompt format ({error}). {COPY_AGAIN}") from error
