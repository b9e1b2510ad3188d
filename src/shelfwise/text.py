"""The one normalisation of names and labels."""

from __future__ import annotations

import re
import unicodedata

# Zero-width and directional marks carry no meaning in a product name, but make equal names differ.
_INVISIBLE = dict.fromkeys(
    [0x00AD, 0x034F, 0x180E, *range(0x200B, 0x2010), *range(0x202A, 0x202F), *range(0x2060, 0x2065), 0xFEFF]
)
_SPACES = re.compile(r"\s+")
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")


def normalise(text: str) -> str:
    """Normalise a name or a label: NFC, no invisible or control characters, single spaces, none at the ends.

    Case and punctuation are kept: they carry meaning (``1.5 L``, ``No.2``). Idempotent.
    """
    if text.isascii() and text.isprintable():
        return " ".join(text.split())
    composed = unicodedata.normalize("NFC", text.translate(_INVISIBLE))
    return _SPACES.sub(" ", _CONTROL.sub("", composed)).strip()


def fold(text: str) -> str:
    """The form in which two spellings of one name are equal: normalised and case-folded.

    Used to find duplicates and to keep the parts of a split apart, never as what a model reads.
    """
    return normalise(unicodedata.normalize("NFKC", text)).casefold()
