"""The same product, written as another shop would write it: seeded changes to a name, to test a classifier with."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping
from typing import Literal

from shelfwise.data._perturb_words import ABBREVIATIONS, SPELLINGS, TRANSLATIONS
from shelfwise.text import normalise

Perturbation = Literal[
    "typo", "dropped_brand", "dropped_size", "abbreviation", "case", "punctuation", "hinglish", "reordered"
]

# Keys beside each other on a QWERTY keyboard, in its rows.
_KEYBOARD = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_NEIGHBOURS = {
    key: "".join(row[max(0, i - 1) : i] + row[i + 1 : i + 2]) for row in _KEYBOARD for i, key in enumerate(row)
}
_UNITS = (
    "kgs?|gms?|grams?|g|mg|ml|mltr|ltrs?|litres?|liters?|l|cl|oz|lbs?|cm|mm|mtrs?|meters?|inch(?:es)?|ft|pcs?|pieces?|"
    "units?|nos?|n|tablets?|capsules?|sachets?|bags?|sheets?|pulls|rolls?|watts?|w"
)
_NUMBER = r"\d+(?:[.,]\d+)?"
_SIZE = re.compile(
    rf"\b(?:(?:pack|set|box|combo)\s+of\s+\d+|(?:{_NUMBER}\s*[x×]\s*)?{_NUMBER}\s*(?:{_UNITS})\b(?:\s*[x×]\s*\d+)?)",
    re.IGNORECASE,
)
_EMPTY_BRACKETS = re.compile(r"\(\W*\)|\[\W*\]")
_LOOSE_ENDS = " ,;:-–—/|&+*"
_MARKS = (" - ", ", ", " / ", ". ", " | ", "; ")
_ENDS = ("!", ".", " *", " -", ",")


def perturb(name: str, kind: Perturbation, seed: int, brand: str = "") -> str | None:
    """Change a name in one way.

    Args:
        name: normalised, not empty.
        kind: the way.
        seed: of the draw; it is mixed with kind and name, so that names are changed independently of their order.
        brand: what "dropped_brand" looks for in the name.

    Returns:
        A normalised name that differs from `name` and still holds a letter or a digit; None where the kind does not
        apply to this name.
    """
    # A text seeds the generator by SHA-512 of its bytes: the same on every machine and Python.
    draw = random.Random(f"{seed}\x1f{kind}\x1f{name}")  # noqa: S311  no secret depends on it
    changed = _dropped_brand(name, brand) if kind == "dropped_brand" else _CHANGES[kind](name, draw)
    if changed is None:
        return None
    changed = normalise(changed)
    return changed if changed != name and any(map(str.isalnum, changed)) else None


def _typo(name: str, draw: random.Random) -> str | None:
    """One slip of the fingers in one word: a neighbouring key, two letters swapped, one left out, one doubled."""
    words = [match for match in re.finditer(r"[A-Za-z]+", name) if len(match.group()) >= 4]
    if not words:  # in shorter words a slip often makes another word
        return None
    word = draw.choice(words)
    at = draw.randrange(word.start(), word.end() - 1)
    letter, following = name[at], name[at + 1]
    slips = [name[:at] + name[at + 1 :], name[: at + 1] + letter.lower() + name[at + 1 :]]
    if letter != following:
        slips.append(name[:at] + following + letter + name[at + 2 :])
    key = draw.choice(_NEIGHBOURS[letter.lower()])
    slips.append(name[:at] + (key.upper() if letter.isupper() else key) + name[at + 1 :])
    return draw.choice(slips)


def _dropped_brand(name: str, brand: str) -> str | None:
    if not brand:
        return None
    found = re.compile(rf"(?<!\w){re.escape(brand)}(?:'s)?(?!\w)", re.IGNORECASE)
    return _tidy(found.sub(" ", name)) if found.search(name) else None


def _dropped_size(name: str, draw: random.Random) -> str | None:
    return _tidy(_SIZE.sub(" ", name)) if _SIZE.search(name) else None


def _tidy(text: str) -> str:
    """Without the brackets and dashes that held what was dropped."""
    return normalise(_EMPTY_BRACKETS.sub(" ", text)).strip(_LOOSE_ENDS)


def _abbreviation(name: str, draw: random.Random) -> str | None:
    return _exchanged(name, ABBREVIATIONS)


def _hinglish(name: str, draw: random.Random) -> str | None:
    return _exchanged(name, _HINGLISH)


def _exchanged(name: str, words: Mapping[str, str]) -> str:
    """All words that the table holds, exchanged; a capital stays one."""

    def other(match: re.Match[str]) -> str:
        word = match.group()
        found = words.get(word.lower())
        if found is None:
            return word
        if word.isupper():
            return found.upper()
        return found[0].upper() + found[1:] if word[0].isupper() else found

    return re.sub(r"[^\W\d_]+", other, name)


def _case(name: str, draw: random.Random) -> str | None:
    different = [cased for cased in (name.upper(), name.lower(), name.title()) if cased != name]
    return draw.choice(different) if different else None


def _punctuation(name: str, draw: random.Random) -> str | None:
    """A mark between two words, and one at the end."""
    words = name.split(" ")
    if len(words) > 1:
        gap = draw.randrange(1, len(words))
        name = " ".join(words[:gap]) + draw.choice(_MARKS) + " ".join(words[gap:])
    return name + draw.choice(_ENDS)


def _reordered(name: str, draw: random.Random) -> str | None:
    words = name.split(" ")
    if len(set(words)) < 2:
        return None
    shuffled = list(words)
    while shuffled == words:  # ends: two words differ
        draw.shuffle(shuffled)
    return " ".join(shuffled)


_HINGLISH = {**TRANSLATIONS, **dict(SPELLINGS), **{second: first for first, second in SPELLINGS}}
_CHANGES: dict[str, Callable[[str, random.Random], str | None]] = {
    "typo": _typo,
    "dropped_size": _dropped_size,
    "abbreviation": _abbreviation,
    "case": _case,
    "punctuation": _punctuation,
    "hinglish": _hinglish,
    "reordered": _reordered,
}
KINDS: tuple[Perturbation, ...] = (
    "typo",
    "dropped_brand",
    "dropped_size",
    "abbreviation",
    "case",
    "punctuation",
    "hinglish",
    "reordered",
)
