"""When two product names are the same name, for the audit and for splits."""

from __future__ import annotations

import re
import unicodedata

from shelfwise.text import fold


class _PunctuationToSpace(dict[int, str]):
    """A table for `str.translate` that is filled as characters turn up."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        # Letters, marks (the vowel signs of Indian scripts are marks) and digits stay.
        self[code] = character if unicodedata.category(character)[0] in "LMN" else " "
        return self[code]


_SPACED = _PunctuationToSpace()
# A no-break space in UTF-8 (C2 A0) that was once read as Windows-1252; three names of BigBasket differ in it alone.
_GARBLED_SPACE = re.compile("Â(?=\\s|$)")


def name_key(name: str) -> str:
    """The form in which one product's names are equal: `text.fold` with all punctuation as spaces.

    ``"Olive Oil - Pure, 1 L"`` and ``"olive oil pure 1 l"`` are one product, and a model that has seen one in training
    has seen the other. Numbers stay apart: ``1.5 kg`` is not ``15 kg``. A name of punctuation alone is its own key.
    """
    folded = fold(_GARBLED_SPACE.sub(" ", name))
    return " ".join(folded.translate(_SPACED).split()) or folded
